"""What certificates say of networks, where a command would use them otherwise: in full precision, say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nas.commands import common

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.quantization.forms import Form
    from nas.runs.certificate import Certificate


def certificate_in_lower_precision(options: argparse.Namespace) -> Certificate | None:
    """The certificate of ARCH, where it is about a form in lower precision and no other weights are given."""
    from nas.runs.trained import certificate_of

    certificate = certificate_of(options.architecture) if options.weights is None else None
    return certificate if certificate is not None and certificate.form and certificate.precision != "fp32" else None


def form_in_lower_precision(options: argparse.Namespace, size: tuple[int, int], *, unless: str = "") -> Form | None:
    """The form in lower precision that the certificate of ARCH is about, which is said, where it runs here at height
    and width `size`. None where PyTorch runs the network, which is said too where such a form is certified: `unless` is
    why that is wanted, if it is.
    """
    from nas.video.segmenter import certified_form
    from space.errors import TargetError

    certificate = certificate_in_lower_precision(options)
    if certificate is None:
        return None
    reason = unless or ("as --device asks" if options.device is not None else "")
    if not reason:
        try:
            form = certified_form(options.architecture, size)
        except TargetError as error:
            reason = str(error)
        else:
            common.say(f"the network runs on {certificate.form}, as certified")
            return form
    common.say(f"note: what is certified is {certificate.form}; here PyTorch runs the network in float32: {reason}")
    return None


def measured_as_certified(options: argparse.Namespace, names: Sequence[str]) -> str:
    """Fill in what --target, --input and --classes leave open: from the certificates of those networks that have one,
    where these agree and can be asked for here, else as for any network. What is to be said of that.
    """
    from nas.runs.trained import certificate_of

    given = {"target": options.target or None, "input": options.input, "classes": options.classes}
    defaults: dict[str, str | int] = {"target": "", "input": common.DEFAULT_INPUT, "classes": common.DEFAULT_CLASSES}
    left_open = [name for name, value in given.items() if value is None]
    found = [_terms(each) for each in map(certificate_of, names) if each is not None]
    said = ""
    if left_open and found:
        if all(terms[name] == found[0][name] for terms in found for name in left_open):
            defaults, said = found[0], ", as certified"
            if "target" in left_open and (reason := _not_here(str(defaults["target"]))):
                defaults, said = {**defaults, "target": ""}, f", as certified but for the target: {reason}"
        else:
            said = f"; what is certified differs in {' or '.join(left_open)}, so these are as for any network"
    for name in left_open:
        setattr(options, name, defaults[name])
    return said


def _terms(certificate: Certificate) -> dict[str, str | int]:
    """What a network was certified on, by the options that ask for it."""
    latency = certificate.latency
    return {
        "target": latency.target,
        "input": f"{latency.height}x{latency.width}",
        "classes": certificate.num_classes,
    }


def _not_here(target: str) -> str:
    """Why a target cannot be timed from here without being asked for, or empty."""
    from nas.latency import parse_target, runtimes
    from space.errors import TargetError

    parsed = parse_target(target)
    if parsed.host:
        return f"{target} is on another host; --target times there"
    try:
        runtimes.require(parsed)
    except TargetError as error:
        return str(error)
    return ""


def say_exported(options: argparse.Namespace) -> None:
    """Say of a file in full precision that something else is certified, where it is."""
    from nas.latency import parse_target, runtimes
    from nas.runs.certificate import MODEL
    from nas.runs.trained import folder_of

    certificate = certificate_in_lower_precision(options)
    if certificate is None:
        return
    folder, graph = folder_of(options.architecture), runtimes.reads_graphs(parse_target(certificate.latency.target))
    where = f": {folder / MODEL}" if folder is not None and graph else ""
    common.say(f"note: this is in full precision; what is certified is {certificate.form}{where}")
