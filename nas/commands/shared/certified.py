"""Commands on certified networks: run the certified form, or note that the command uses another one."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from nas.commands.shared import common

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nas.latency.target import Target
    from nas.quantization.forms import Form
    from nas.runs.certificate import Certificate

TERMS = {"target": "target", "input": "input size", "classes": "classes"}
"""The terms of a latency: the options that set them, and their names in messages."""


def certificate_in_lower_precision(options: argparse.Namespace) -> Certificate | None:
    """The certificate of ARCH, if it is about lower precision and --weights is not given."""
    certificate = _certificate(options)
    return certificate if certificate is not None and certificate.precision != "fp32" else None


def form_to_run(
    options: argparse.Namespace, size: tuple[int, int], *, as_timed: bool = False, unless: str = ""
) -> Form | None:
    """The certified form of ARCH, if it is in lower precision and runs here at height and width `size`, on all cores.
    With `as_timed`: in full precision too, and on as many cores as the certificate says. None where PyTorch runs the
    network instead; a note then gives the reason. `unless` is a reason of the command's own to use PyTorch, or empty.

    Raises: UserError for a certificate or a graph that cannot be read, or is not what was certified.
    """
    from nas.errors import TargetError
    from nas.quantization.certified import certified_form

    certificate = _certificate(options) if as_timed else certificate_in_lower_precision(options)
    if certificate is None and not as_timed:
        return None
    reason = unless or ("as --device asks" if options.device is not None else "")
    if not reason and options.weights is not None:
        reason = "the weights of --weights have no certificate"
    if not reason:
        try:
            form = certified_form(options.architecture, size, as_timed=as_timed)
        except TargetError as error:
            reason = str(error)
        else:
            assert certificate is not None
            cores = "" if str(form.target) == certificate.latency.target else ", but on all cores"
            common.say(f"the network runs on {certificate.runs_on}, as certified{cores}")
            return form
    what = "" if certificate is None else f"the certificate is for {certificate.runs_on}; "
    common.say(f"note: {what}here PyTorch runs the network in float32: {reason}")
    return None


@contextlib.contextmanager
def refusals_told(options: argparse.Namespace, form: Form | None) -> Iterator[None]:
    """Turn a runtime's refusal of a form, or its crash, inside the body into an error that says what to do.

    Raises: UserError then.
    """
    from nas.errors import UnmeasuredError
    from space.errors import UserError

    try:
        yield
    except UnmeasuredError as error:
        assert form is not None
        raise UserError(
            f"{options.architecture}: expected {form.target} to run the certified form, but {error}; give "
            "--device cpu to have PyTorch run the network in float32"
        ) from None


def measured_as_certified(options: argparse.Namespace, names: Sequence[str]) -> str:
    """Fill in --target, --input and --classes where they are not given: from the certificates, if all networks have one
    and these agree and can be timed here, else with the usual defaults. Returns words on this for the command's first
    line.
    """
    from nas.runs.trained import certificate_of

    given = {"target": options.target or None, "input": options.input, "classes": options.classes}
    usual: dict[str, str | int] = {"target": "", "input": common.DEFAULT_INPUT, "classes": common.DEFAULT_CLASSES}
    left_open = [name for name, value in given.items() if value is None]
    found = [_terms(each) for each in map(certificate_of, names) if each is not None]
    taken: list[str] = []
    why = ""
    if left_open and found and len(found) == len(names):
        if differ := [name for name in left_open if any(terms[name] != found[0][name] for terms in found)]:
            why = (
                f"; the certificates differ in {_listed(differ, 'or')}, so options not given have their usual defaults"
            )
        else:
            taken = left_open
            if "target" in taken and (reason := _not_here(str(found[0]["target"]))):
                taken = [name for name in taken if name != "target"]
                why = f"; not on its target: {reason}"
    for name in left_open:
        setattr(options, name, found[0][name] if name in taken else usual[name])
    if found and len(found) == len(names) and all(terms == _asked(options) for terms in found):
        return ", as certified"
    source = "its certificate" if len(names) == 1 else "their certificates"
    return f"{f', {_listed(taken)} of {source}' if taken else ''}{why}"


def say_untrained(names: Iterable[str], target: Target, size: tuple[int, int], classes: int) -> None:
    """Print a note for each network that is certified in lower precision on other terms, but timed here by its
    architecture.
    """
    from nas.runs.trained import certificate_of

    for name in names:
        certificate = certificate_of(name)
        if certificate is None or certificate.precision == "fp32":
            continue
        terms = _terms(certificate)
        if terms != {"target": str(target), "input": f"{size[0]}x{size[1]}", "classes": classes}:
            common.say(
                f"note: {name}: the certificate is for {certificate.runs_on} at {terms['input']} for "
                f"{terms['classes']} classes; here its architecture is timed, untrained"
            )


def say_exported(options: argparse.Namespace) -> None:
    """Print a note after an export in full precision if the certificate is for a lower one."""
    from nas.latency import parse_target, runtimes
    from nas.runs.certificate import MODEL
    from nas.runs.trained import folder_of
    from space.errors import UserError

    certificate = certificate_in_lower_precision(options)
    if certificate is None:
        return
    folder, where = folder_of(options.architecture), ""
    with contextlib.suppress(UserError):  # for a runtime that is not here, it is unknown whether it reads graphs
        if folder is not None and runtimes.reads_graphs(parse_target(certificate.latency.target)):
            where = f": {folder / MODEL}"
    common.say(f"note: this file is in full precision; the certificate is for {certificate.runs_on}{where}")


def _certificate(options: argparse.Namespace) -> Certificate | None:
    from nas.runs.trained import certificate_of

    return certificate_of(options.architecture) if options.weights is None else None


def _terms(certificate: Certificate) -> dict[str, str | int]:
    """The target, input size and classes of a certificate, in the form of the options."""
    latency = certificate.latency
    return {
        "target": latency.target,
        "input": f"{latency.height}x{latency.width}",
        "classes": certificate.num_classes,
    }


def _asked(options: argparse.Namespace) -> dict[str, str | int]:
    """The target, input size and classes of the options, in the form of `_terms`; an invalid target stays as it is."""
    from nas.errors import TargetError
    from nas.latency.target import Target

    target = options.target
    with contextlib.suppress(TargetError):  # reported when the target is used
        target = str(Target.parse(target)) if target else ""
    height, width = common.input_size(options.input)
    return {"target": target, "input": f"{height}x{width}", "classes": options.classes}


def _not_here(target: str) -> str:
    """Why a certificate's target is not used by default here, or empty."""
    from nas.latency import parse_target, runtimes
    from space.errors import UserError

    try:
        parsed = parse_target(target)
        if parsed.host:
            return f"{target} is on another host; --target times there"
        runtimes.require(parsed)
    except UserError as error:  # a target of another package, say, that is not installed here
        return str(error)
    return ""


def _listed(terms: Sequence[str], last: str = "and") -> str:
    *first, end = (TERMS[each] for each in terms)
    return f"{', '.join(first)} {last} {end}" if first else end
