"""`nas quantize`: a trained network in lower precision, kept only where it is faster and accurate enough."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from nas.commands.shared import common, ending, output, trained_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nas.latency import MeterOf
    from nas.latency.budget import Budget, Verdict
    from nas.latency.target import Target
    from nas.quantization.fine_tuning import QuantizationAwareTuning
    from nas.quantization.quantizer import QuantizationPlan
    from nas.quantization.verdicts import Loss, TimedForm
    from nas.quantization.workflow import Quantized

MOST_IMAGES = 300
LONGEST_REASON = 100  # characters in the table
EPILOG = """\
Every precision that the runtime has on this device is timed, and scored on the validation images by the runtime itself
(INT8 only where it is faster). INT8 is calibrated on training images. A form in lower precision is eligible if it is
significantly faster than full precision and loses at most --points; the highest precision that no other significantly
beats is kept. If no form is eligible, the fastest one in full precision is kept, and the table says why. With --epochs,
INT8 is fine-tuned where it loses more: the network learns to reproduce its full-precision output. Nothing is trained
otherwise.

examples:
  nas quantize runs/night --target openvino@cpu:1
  nas quantize erfnet --weights w.safetensors --data camvid:~/camvid --points 1 --budget 20ms
  nas quantize runs/night --points 0.3 --epochs 5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    common.add_trained(parser)
    common.add_data(parser, default=None)
    parser.add_argument(
        "--target",
        metavar="TARGET",
        action="append",
        help="runtime and device to time on, in every precision that it has here, or in full precision and the one "
        "that is named; may be given several times (default: the deployment runtimes of this device)",
    )
    parser.add_argument("--budget", metavar="TIME", help="budget for the certificate: 10ms, 100fps or '10ms p90'")
    parser.add_argument(
        "--points",
        metavar="POINTS",
        default="0.5",
        help="points of mIoU that may be lost against float32 (default: 0.5)",
    )
    parser.add_argument(
        "--images",
        metavar="N",
        type=common.whole_number,
        default=100,
        help=f"number of training images to calibrate INT8 on, at most {MOST_IMAGES} (default: 100)",
    )
    parser.add_argument(
        "--epochs",
        metavar="N",
        type=common.whole_number,
        default=0,
        help="epochs of fine-tuning where INT8 loses more than --points, kept only where it helps (default: 0)",
    )
    parser.add_argument(
        "--recipe",
        default="quick",
        metavar="NAME",
        type=common.path,
        help="recipe of fine-tuning, used at a twentieth of its learning rate (default: quick)",
    )
    common.add_device(parser)
    common.add_within(parser)
    common.add_patience(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=common.path,
        default="quantized",
        help="folder for the network (default: quantized)",
    )


def run(options: argparse.Namespace) -> Verdict | None:
    """Time and score every form, keep one and certify it. Returns the certificate's verdict on the budget, if any.

    Raises: UserError for weights and data that do not fit, and for targets that have no other precision here.
    """
    from functools import partial
    from pathlib import Path

    from nas.latency import Meter
    from nas.latency.budget import Budget
    from nas.terminal import answering

    budget = None if options.budget is None else Budget.parse(options.budget)
    common.say(f"quantizing {options.architecture}")
    out, plan = Path(options.out), _plan(options)
    meter_of = partial(Meter, patience_seconds=common.patience(options))
    lost = ending.begins_anew("what was timed, scored and fine-tuned")
    with ending.told(lambda: lost), output.owned_folder(out):
        found = _quantized(options, out, budget, plan, meter_of)
    with answering():
        _print_result(out, found)
    return found.certificate.verdict


def _plan(options: argparse.Namespace) -> QuantizationPlan:
    from nas.quantization.quantizer import QuantizationPlan  # with PyTorch

    within, targets = common.within(options), _targets(options)
    return QuantizationPlan(
        targets=targets,
        points=_points(options.points),
        images=_images(options.images),
        within=within,
        tuning=_tuning(options, targets),
    )


def _quantized(
    options: argparse.Namespace, out: Path, budget: Budget | None, plan: QuantizationPlan, meter_of: MeterOf
) -> Quantized:
    """The forms of the network that ARCH names, the best of which was written to `out`."""
    from nas.quantization.workflow import Quantization
    from nas.runs.data_seen import seen_by
    from nas.runs.trained import load_trained
    from nas.terminal import ProgressLine

    trained = load_trained(options.architecture, options.weights)
    output.require_other_folder(out, options.architecture, trained.weights)
    output.require_same_network(out, trained.architecture.key)
    dataset, spec = trained_on.data_of(options, trained)
    findings = common.looked_at(dataset)
    common.say_notes(findings)
    return Quantization(
        trained=trained,
        dataset=dataset,
        plan=plan,
        folder=out,
        said=common.say,
        budget=budget,
        seen=seen_by(out, spec, findings.fingerprint),
        meter_of=meter_of,
        progress=ProgressLine(),
    ).run()


def _print_result(out: Path, found: Quantized) -> None:
    """Print the table of all forms, and the certificate."""
    certificate = found.certificate
    print(f"\n{table_of(found.timed_forms, found.chosen, found.loss, found.refused)}\n")
    print(f"kept: {found.chosen.form}, mIoU {100 * (certificate.miou or 0):.2f} %")
    output.say_certificate(certificate, out)
    print(f"network in {out}")


def _targets(options: argparse.Namespace) -> tuple[Target, ...]:
    """The targets to try, each once."""
    from dataclasses import replace

    from nas.errors import TargetError
    from nas.latency import default, parse_target, runtimes
    from nas.quantization.forms import precisions_here

    found: dict[Target, None] = {}
    for target in map(parse_target, options.target) if options.target else default.ready_on_cpu():
        if target.host:
            raise TargetError(f"forms are scored on this machine only, got {target}; leave out 'ssh:{target.host}'")
        here = precisions_here(replace(target, precision="fp32"))
        if options.target and target.precision != "fp32":
            runtimes.require(target)
            here = (here[0], target)
        found.update(dict.fromkeys(here))
    return tuple(found)


def _tuning(options: argparse.Namespace, targets: Sequence[Target]) -> QuantizationAwareTuning | None:
    """The fine-tuning that --epochs, --recipe and --device ask for; None without --epochs.

    Raises: UserError where no target is in INT8, or for an unknown recipe or device.
    """
    from nas.quantization.fine_tuning import QuantizationAwareTuning
    from nas.training import load_recipe
    from space.errors import UserError

    if options.epochs < 0:
        raise UserError(f"--epochs: expected 0 or more, got {options.epochs}; 0 means no fine-tuning")
    if options.epochs == 0:
        return None
    if not any(target.precision == "int8" for target in targets):
        raise UserError(
            f"--epochs: expected a target in INT8 to fine-tune for, got {', '.join(map(str, targets))}; leave --epochs "
            "out, or give a target such as onnxruntime:int8@cpu"
        )
    return QuantizationAwareTuning(
        epochs=options.epochs, recipe=load_recipe(options.recipe), device=common.device(options)
    )


def _points(text: str) -> float:
    from space.errors import UserError

    if not re.fullmatch(r"\d{1,2}(\.\d{1,3})?", text.strip()):
        raise UserError(f"--points: expected points of mIoU such as 0.5, got {text!r}; leave it out for 0.5")
    return float(text)


def _images(count: int) -> int:
    from space.errors import UserError

    if not 1 <= count <= MOST_IMAGES:
        raise UserError(f"--images: expected 1 to {MOST_IMAGES}, got {count}; leave it out for 100")
    return count


def table_of(timed_forms: Sequence[TimedForm], chosen: TimedForm, loss: Loss, refused: Mapping[str, str]) -> str:
    """The table of all forms, from the fastest to the slowest; last those that were `refused`, with the reason."""
    import textwrap

    from nas.quantization.verdicts import verdict
    from nas.terminal import table

    rows = [
        (
            str(timed.form),
            f"{timed.latency.p50_milliseconds:.2f}{'?' if timed.latency.flagged else ''}",
            "-" if timed.scored is None else f"{100 * timed.scored.scores.miou:.2f}",
            "-" if timed.scored is None else loss.words(timed.scored),
            "-" if timed.scored is None else f"{100 * timed.scored.same_labels:.2f}",
            verdict(timed, chosen, timed_forms, loss),
        )
        for timed in sorted(timed_forms, key=lambda timed: timed.latency.p50_milliseconds)
    ]
    rows += [
        (form, "-", "-", "-", "-", f"left out: {textwrap.shorten(reason, LONGEST_REASON)}")
        for form, reason in refused.items()
    ]
    text = table(rows, ("target", "ms", "mIoU", "points lost", "same labels %", "verdict"))
    if any(timed.latency.flagged for timed in timed_forms):
        text += "\n\n? timed while the machine was disturbed: `flagged` in the certificate says why"
    return text
