"""The certificate of a finished network: latency and scores, how they were found, and whether the budget is kept."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas import __version__
from nas.data import MEAN, STD
from nas.latency.budget import Budget, Verdict, settling
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.labelling import ARCHITECTURE, WEIGHTS, Labelling
from nas.storage.records import read_record
from nas.training.scores import Scores
from space import Architecture, UserError, multiply_adds, parameters, strict

if TYPE_CHECKING:
    from nas.runs.checked_export import FileCheck

MODEL = "model.onnx"
CERTIFICATE = "certificate.yaml"


@dataclass(frozen=True, kw_only=True)
class ComparedForm:
    """One of the ways to run a network (a graph, a runtime, a precision) that were compared before one was kept."""

    form: str
    p50_milliseconds: float | None
    """Median latency; None, as are its interval and scores, where the runtime refused the form or crashed on it."""
    ci_low_milliseconds: float | None
    ci_high_milliseconds: float | None
    miou: float | None
    """mIoU over the validation images as this runtime computes it; None where the form was not scored, because it was
    not certainly faster or is a search's winner in full precision.
    """
    same_labels: float | None
    """Share of pixels that get the same label as from PyTorch in float32."""
    verdict: str
    """`kept`, or the reason why it was not."""
    flagged: tuple[str, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Why its latency cannot be trusted; empty where it can, and in certificates of earlier versions."""

    @classmethod
    def of(
        cls, form: str, latency: Latency, verdict: str, *, miou: float | None = None, same_labels: float | None = None
    ) -> ComparedForm:
        """A form that was timed."""
        return cls(
            form=form,
            p50_milliseconds=latency.p50_milliseconds,
            ci_low_milliseconds=latency.ci_low_milliseconds,
            ci_high_milliseconds=latency.ci_high_milliseconds,
            miou=miou,
            same_labels=same_labels,
            verdict=verdict,
            flagged=latency.flagged,
        )

    @classmethod
    def refused(cls, form: str, reason: str) -> ComparedForm:
        """A form that its runtime cannot run."""
        return cls(
            form=form,
            p50_milliseconds=None,
            ci_low_milliseconds=None,
            ci_high_milliseconds=None,
            miou=None,
            same_labels=None,
            verdict=reason,
        )


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The form of a network that ships where several were compared, one in lower precision for example."""

    graph: bytes | None
    """ONNX graph with labels as output, which becomes model.onnx. None where the runtime reads no graph and runs the
    network itself: model.onnx is then in full precision.
    """
    form: str
    scored_by: str
    scores: Scores
    """Scores over the validation images, computed by the runtime that is timed."""
    same_labels: float
    miou_float32: float
    fine_tuned_epochs: int = 0
    """Epochs of quantization-aware fine-tuning of the weights in the graph; 0: none."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The measurements and scores of a finished network, the protocol, and the verdict against a budget."""

    architecture: str
    """Key of the architecture."""
    certified: str
    """Date and time of the certificate, UTC."""
    version: str
    """Version of framebudget."""
    budget: str | None
    """The budget; None where there was none, and then `passed` is None too."""
    passed: bool | None
    """Whether the budget is kept: true where the whole 95 % interval is inside it, false where all of it is over, null
    where the interval contains the budget. `verdict` tells the last case from having no budget."""
    latency: Latency
    """The latency, with what was timed (`scope`, input size, batch), where (`environment`), how often and how
    precisely."""
    precision: str
    protocol: str
    """How the latency was measured, in words."""
    miou: float | None
    """mIoU, like all scores a fraction over the validation images; None where there was no data set."""
    pixel_accuracy: float | None
    class_iou: Mapping[str, float | None]
    scored: str
    """How the scores were computed, in words."""
    data: str
    validation_images: int
    num_classes: int
    input_mean: tuple[float, float, float]
    """Input images are normalized to (value - mean) / std, with RGB values in 0..1."""
    input_std: tuple[float, float, float]
    parameters: int
    multiply_adds: int
    onnx_images: int
    """Validation images on which model.onnx was compared with PyTorch. The next fields are the largest difference of
    logits, the allowed difference, and the share of pixels with the same label."""
    onnx_max_abs_difference: float | None
    onnx_tolerance: float | None
    """Allowed difference of logits; None where only labels were compared, as for a quantized graph."""
    onnx_same_labels: float
    sha256: Mapping[str, str]
    """SHA-256 of the files beside the certificate, by name."""
    unsure: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Why the verdict is UNSURE, and the command that would settle it."""
    form: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """How model.onnx, or the network itself, is run where that is not in full precision; `miou` is then the score of
    this form, as `scored` says.
    """
    miou_float32: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """mIoU by PyTorch in float32, before any fine-tuning, where `miou` is that of another form."""
    fine_tuned_epochs: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Epochs of quantization-aware fine-tuning of the weights in model.onnx; 0: none."""
    compared: tuple[ComparedForm, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The forms that it was chosen from."""
    values_sha256: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """SHA-256 of all values above, which reveals later changes; empty in certificates of earlier versions."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "parameters", "multiply_adds", "onnx_images", "fine_tuned_epochs"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}; write the certificate again")
        shares = [self.miou, self.miou_float32, self.pixel_accuracy, self.onnx_same_labels, *self.class_iou.values()]
        shares += [share for each in self.compared for share in (each.miou, each.same_labels)]
        if not all(share is None or 0 <= share <= 1 for share in shares):
            raise UserError("expected scores and shares between 0 and 1; write the certificate again")
        if self.form:
            named, timed = Target.parse(self.form.partition(" ")[0]), Target.parse(self.latency.target)
            if (named.runtime, named.precision) != (timed.runtime, timed.precision):
                raise UserError(
                    f"form: expected one on {timed}, the target that was timed, got {self.form}; write the certificate "
                    "again"
                )
        verdict = self.verdict
        if verdict is None and self.passed is not None:
            raise UserError("passed: expected null, since there is no budget; write the certificate again")
        if (verdict, self.passed) in (("PASS", False), ("FAIL", True)):
            raise UserError(
                f"passed: expected {verdict}, by its latency against {self.budget}, got {str(self.passed).lower()}; "
                "write the certificate again"
            )

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the latency against the budget; None where there is no budget. (Until 0.1.0 `passed` depended
        on the median alone.)
        """
        return None if self.budget is None else Budget.parse(self.budget).verdict(self.latency)

    @property
    def digest(self) -> str:
        """SHA-256 of the values, independent of the layout of their file."""
        values = strict.plain(replace(self, values_sha256=""))
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def runs_on(self) -> str:
        """How the network that was timed is run: `form`, or the target where there is no form."""
        return self.form or self.latency.target


def read_certificate(folder: Path) -> Certificate:
    """The certificate in a winner's folder.

    Raises: UserError when there is none, it cannot be read, or its values were changed since it was written.
    """
    file = folder / CERTIFICATE
    certificate = read_record(file, f"a winner's folder with {CERTIFICATE}", Certificate)
    written, found = certificate.values_sha256, certificate.digest
    if written and written != found:
        raise UserError(
            f"{file}: expected the values that it was written with (SHA-256 {written[:12]}...), got others "
            f"({found[:12]}...): it was changed since; restore the original certificate, or certify anew"
        )
    return certificate


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a network on the validation images, the number of images, and the device that computed them."""

    scores: Scores
    images: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements of a finished network that its certificate is made from."""

    latency: Latency
    scored: Scored | None
    """Scores; None where there was no data set."""
    check: FileCheck
    """The comparison of model.onnx with PyTorch."""
    deployed: Deployed | None = None
    compared: tuple[ComparedForm, ...] = ()
    """The forms that it was chosen from; the chosen one has the certified latency."""


def certify(
    architecture: Architecture, labelling: Labelling, budget: Budget | None, evidence: Evidence, files: Path
) -> Certificate:
    """The certificate of a finished network whose files are in the folder `files`."""
    latency, scored, check, deployed = evidence.latency, evidence.scored, evidence.check, evidence.deployed
    height, width = labelling.size
    num_classes = len(labelling.classes)
    scores = None if scored is None else scored.scores
    class_iou = () if scores is None else zip(labelling.classes, scores.class_iou, strict=True)
    verdict = None if budget is None else budget.verdict(latency)
    words = "not scored: there was no data set"
    if scored is not None:
        by = f"PyTorch in float32 on {scored.device}" if deployed is None else deployed.scored_by
        words = f"validation images at {height}x{width}, by {by}"
    certificate = Certificate(
        architecture=architecture.key,
        certified=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
        budget=None if budget is None else str(budget),
        passed={"PASS": True, "FAIL": False}.get(verdict or ""),
        latency=latency,
        precision=Target.parse(latency.target).precision,
        protocol=_protocol(latency),
        miou=None if scores is None else scores.miou,
        pixel_accuracy=None if scores is None else scores.pixel_accuracy,
        class_iou=dict(class_iou),
        scored=words,
        data=labelling.data,
        validation_images=0 if scored is None else scored.images,
        num_classes=num_classes,
        input_mean=MEAN,
        input_std=STD,
        parameters=parameters(architecture, num_classes),
        multiply_adds=multiply_adds(architecture, labelling.size, num_classes),
        onnx_images=check.images,
        onnx_max_abs_difference=check.max_abs_difference,
        onnx_tolerance=check.tolerance,
        onnx_same_labels=check.same_labels,
        form="" if deployed is None else deployed.form,
        miou_float32=None if deployed is None else deployed.miou_float32,
        fine_tuned_epochs=0 if deployed is None else deployed.fine_tuned_epochs,
        compared=evidence.compared,
        sha256={
            name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in (ARCHITECTURE, WEIGHTS, MODEL)
        },
        unsure=settling(latency, budget, num_classes) if budget is not None and verdict == "UNSURE" else "",
    )
    as_read = strict.parse(strict.dump(certificate), Certificate, CERTIFICATE)  # 9 becomes 9.0, as when it is read
    return replace(as_read, values_sha256=as_read.digest)


def _protocol(latency: Latency) -> str:
    reference = latency.environment.get("reference", "reference")
    processes, several, corrected = "a process of its own", "", ""
    if count := len(latency.processes_milliseconds):
        processes = f"{count} separate processes, one after another"
        several = (
            "; reported are the median process, an interval from the lowest to the highest end of all intervals, and "
            "the highest p90 and p99"
        )
    if latency.corrected != 1:
        corrected = (
            f"; {'its' if several else 'the'} ratios are multiplied by {latency.corrected:.3f}, because on a "
            "busier machine a small network slows down more than the reference"
        )
    return (
        f"{processes}, with no training of ours running; warm-up, then {latency.samples} pairs of calls in "
        f"{len(latency.blocks)} blocks, alternating with the frozen network {reference}; "
        "p50 is the ratio of their medians in undisturbed blocks, times the latency of the reference on this device, "
        f"with a 95 % interval; p90 and p99 are over all pairs{several}{corrected}"
    )
