"""The certificate of a finished network: what was measured and scored, how, and whether it keeps its budget."""

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
    """One way to run a network (a graph, a runtime, a precision), as it was found before one was kept."""

    form: str
    p50_milliseconds: float | None
    """None, as are its interval and scores, where the runtime refused the form or crashed at it."""
    ci_low_milliseconds: float | None
    ci_high_milliseconds: float | None
    miou: float | None
    """By that runtime, over the validation images; None where it was not scored by it: it was not surely faster, or is
    a search's winner in full precision.
    """
    same_labels: float | None
    """Share of pixels with PyTorch's label in float32."""
    verdict: str
    """`kept`, or what spoke against it."""
    flagged: tuple[str, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Why its latency is not to be trusted; empty where it is, and in certificates of earlier versions."""

    @classmethod
    def of(
        cls, form: str, latency: Latency, verdict: str, *, miou: float | None = None, same_labels: float | None = None
    ) -> ComparedForm:
        """With what was measured of it."""
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
        """One that its runtime does not run."""
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
    """What is shipped where it was chosen among forms of a network, in lower precision say."""

    graph: bytes | None
    """ONNX with labels as output; it becomes model.onnx. None where the runtime reads none and runs the network itself:
    model.onnx is in full precision then.
    """
    form: str
    scored_by: str
    scores: Scores
    """Over the validation images, by the runtime that is timed."""
    same_labels: float
    miou_float32: float
    fine_tuned_epochs: int = 0
    """Of quantization-aware fine-tuning of the weights that the graph is made of; 0: none."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was measured of a finished network, under which protocol, against which budget."""

    architecture: str
    """Its key."""
    certified: str
    """Date and time, UTC."""
    version: str
    """Of framebudget."""
    budget: str | None
    """None where nothing was asked for; `passed` is None then too."""
    passed: bool | None
    """Whether the budget is kept: true where the whole 95 % interval is inside it, false where all of it is over, null
    where that is unsure. `verdict` tells these apart from no budget."""
    latency: Latency
    """Says what was timed (`scope`, input size, batch), on what (`environment`), how often and how surely."""
    precision: str
    protocol: str
    """How it was timed, in words."""
    miou: float | None
    """Scores are fractions over the validation images; None where there was no data set."""
    pixel_accuracy: float | None
    class_iou: Mapping[str, float | None]
    scored: str
    """How the scores were computed, in words."""
    data: str
    validation_images: int
    num_classes: int
    input_mean: tuple[float, float, float]
    """Images reach the network as (value - mean) / std, RGB values in 0..1."""
    input_std: tuple[float, float, float]
    parameters: int
    multiply_adds: int
    onnx_images: int
    """Of the validation split, on which model.onnx was compared with PyTorch: largest difference of logits, how much
    was allowed, and the share of pixels with the same label."""
    onnx_max_abs_difference: float | None
    onnx_tolerance: float | None
    """None where labels alone were compared, as of a quantized graph."""
    onnx_same_labels: float
    sha256: Mapping[str, str]
    """Of the files beside it."""
    unsure: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Why the verdict is UNSURE, and what would settle it."""
    form: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """How model.onnx, or the network itself, is run where that is not in full precision; `miou` is of it, as `scored`
    says.
    """
    miou_float32: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What PyTorch reaches in float32, where `miou` is of something else; before any fine-tuning."""
    fine_tuned_epochs: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of quantization-aware fine-tuning, where the weights had it that model.onnx is made of."""
    compared: tuple[ComparedForm, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What it was chosen among."""
    values_sha256: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of everything above, by which a change is noticed; empty in certificates of earlier versions."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "parameters", "multiply_adds", "onnx_images", "fine_tuned_epochs"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}; write the certificate again")
        shares = [self.miou, self.miou_float32, self.pixel_accuracy, self.onnx_same_labels, *self.class_iou.values()]
        shares += [share for each in self.compared for share in (each.miou, each.same_labels)]
        if not all(share is None or 0 <= share <= 1 for share in shares):
            raise UserError("expected scores and shares of 0 to 1; write the certificate again")
        if self.form:
            named, timed = Target.parse(self.form.partition(" ")[0]), Target.parse(self.latency.target)
            if (named.runtime, named.precision) != (timed.runtime, timed.precision):
                raise UserError(
                    f"form: expected one on {timed}, which was timed, got {self.form}; write the certificate again"
                )
        verdict = self.verdict
        if verdict is None and self.passed is not None:
            raise UserError("passed: expected null, since there is no budget; write the certificate again")
        if (verdict, self.passed) in (("PASS", False), ("FAIL", True)):
            raise UserError(
                f"passed: expected what its latency says of {self.budget}, {verdict}, got {str(self.passed).lower()}; "
                "write the certificate again"
            )

    @property
    def verdict(self) -> Verdict | None:
        """What the latency says of the budget; None where there is none. (Until 0.1.0 `passed` was said of the median
        alone.)
        """
        return None if self.budget is None else Budget.parse(self.budget).verdict(self.latency)

    @property
    def digest(self) -> str:
        """SHA-256 of its values, which does not depend on how their file is laid out."""
        values = strict.plain(replace(self, values_sha256=""))
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def runs_on(self) -> str:
        """How what was timed is run: `form`, or the target where nothing else is to be said."""
        return self.form or self.latency.target


def read_certificate(folder: Path) -> Certificate:
    """The certificate in a winner's folder.

    Raises: UserError when there is none, it cannot be read, or its values are not those that it was written with.
    """
    file = folder / CERTIFICATE
    certificate = read_record(file, f"a winner's folder with {CERTIFICATE}", Certificate)
    written, found = certificate.values_sha256, certificate.digest
    if written and written != found:
        raise UserError(
            f"{file}: expected the values that it was written with (SHA-256 {written[:12]}...), got others "
            f"({found[:12]}...): it was changed since; bring the certificate back that was there, or certify anew"
        )
    return certificate


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How well a network segments validation images, how many, and where that was computed."""

    scores: Scores
    images: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found out about a finished network."""

    latency: Latency
    scored: Scored | None
    """None where there was no data set."""
    check: FileCheck
    """Of model.onnx against PyTorch."""
    deployed: Deployed | None = None
    compared: tuple[ComparedForm, ...] = ()
    """What it was chosen among, itself with the latency that is certified."""


def certify(
    architecture: Architecture, labelling: Labelling, budget: Budget | None, evidence: Evidence, files: Path
) -> Certificate:
    """The certificate of the finished `files` of a network."""
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
    as_read = strict.parse(strict.dump(certificate), Certificate, CERTIFICATE)  # 9 ms are 9.0 for who reads it
    return replace(as_read, values_sha256=as_read.digest)


def _protocol(latency: Latency) -> str:
    reference = latency.environment.get("reference", "reference")
    processes, several, corrected = "a process of its own", "", ""
    if count := len(latency.processes_milliseconds):
        processes = f"{count} processes one after another, each its own"
        several = (
            "; reported is the median process, between the lowest and the highest end of their intervals, with the "
            "highest p90 and p99"
        )
    if latency.corrected != 1:
        corrected = (
            f"; {'its' if several else 'the'} ratios are multiplied by {latency.corrected:.3f}, for on a "
            "busier machine a small network slows down more than the reference"
        )
    return (
        f"{processes} and nothing of ours training; warm-up, then {latency.samples} pairs of calls in "
        f"{len(latency.blocks)} blocks, alternating with the frozen network {reference}; "
        "p50 is the ratio of their medians in undisturbed blocks times what the reference takes on this device, with a "
        f"95 % interval; p90 and p99 are of all pairs{several}{corrected}"
    )
