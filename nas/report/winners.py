"""The finished networks of a run, and latencies compared with its budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas.latency.budget import Budget, Budgets, Verdict
from nas.latency.record import Latency, OtherPrecision
from nas.latency.target import Target
from nas.report.words import describe
from nas.runs.certificate import CERTIFICATE, Certificate, read_certificate
from nas.runs.trained import load_architecture
from nas.runs.trial import Trial
from space import UserError, strict


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """A latency compared with the run's budget. `milliseconds` is the statistic that the budget limits."""

    precision: str
    milliseconds: float
    p50_milliseconds: float
    ci_low_milliseconds: float
    ci_high_milliseconds: float
    within_budget: bool
    """Whether `milliseconds` is inside the budget, regardless of the interval."""
    verdict: Verdict
    """The verdict by the whole 95 % interval."""
    flagged: tuple[str, ...]
    budget: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The budget that it is compared with, of several: a winner's own, otherwise the smallest one that `milliseconds`
    is inside of, or the largest."""
    other_precisions: tuple[OtherPrecision, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Latencies in the other precisions, where the network was timed in several."""


@dataclass(frozen=True, kw_only=True)
class Winner:
    """A finished network of a run. `number` and `key` are those of the candidate it came from; None without one."""

    name: str
    number: int | None
    key: str | None
    pruned: bool
    timing: LatencySummary
    miou: float
    description: Mapping[str, str]
    genotype: Mapping[str, str | int | float | bool]
    certificate: Certificate

    @property
    def parameters(self) -> int:
        """Parameters of the certified network."""
        return self.certificate.parameters

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the certified network at the size that it was timed at."""
        return self.certificate.multiply_adds


def timing_of(latency: Latency, budgets: Budgets) -> LatencySummary:
    """A latency compared with the smallest budget that it is inside of, or else the largest."""
    # Not necessarily the budgets that the trials were proposed for: a run may be resumed with others.
    budget = next((each for each in budgets if each.admits(latency)), budgets.largest)
    return timing_against(latency, budget, of_several=budgets.several)


def timing_against(latency: Latency, budget: Budget, *, of_several: bool) -> LatencySummary:
    """A latency compared with one budget, which is named where it is one of several."""
    return LatencySummary(
        precision=Target.parse(latency.target).precision,
        milliseconds=latency.milliseconds(budget.statistic),
        p50_milliseconds=latency.p50_milliseconds,
        ci_low_milliseconds=latency.ci_low_milliseconds,
        ci_high_milliseconds=latency.ci_high_milliseconds,
        within_budget=budget.admits(latency),
        verdict=budget.verdict(latency),
        flagged=latency.flagged,
        budget=str(budget) if of_several else "",
        other_precisions=latency.other_precisions,
    )


def winner_in(folder: Path, candidates: Sequence[Trial], budget: Budget, *, of_several: bool) -> Winner | None:
    """The winner in a folder, with the candidate that it came from; None where there is none.

    Raises: UserError when one of its files is damaged.
    """
    if not (folder / CERTIFICATE).is_file():
        return None
    certificate = read_certificate(folder)
    if certificate.miou is None:
        raise UserError(
            f"{folder / CERTIFICATE}: expected the certificate of a search, which has scores, got one without; "
            "go on with nas search --resume"
        )
    architecture = load_architecture(str(folder))
    by_key = {trial.architecture.key: trial for trial in candidates}
    origin = by_key.get(architecture.key) or by_key.get(architecture.without_channels().key)
    pruned = bool(architecture.channels) and (origin is None or origin.architecture != architecture)
    name = certificate.architecture if origin is None else origin.name
    return Winner(
        name=f"{name}, pruned" if pruned and origin is not None else name,
        number=None if origin is None else origin.number,
        key=None if origin is None else origin.architecture.key,
        pruned=pruned,
        timing=timing_against(certificate.latency, budget, of_several=of_several),
        miou=certificate.miou,
        description=describe(architecture),
        genotype={} if origin is None else dict(origin.genotype),
        certificate=certificate,
    )
