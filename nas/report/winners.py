"""The finished networks of a run, and how a latency stands against its budgets."""

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
    """A latency against the run's budget. `milliseconds` is the statistic that the budget bounds."""

    precision: str
    milliseconds: float
    p50_milliseconds: float
    ci_low_milliseconds: float
    ci_high_milliseconds: float
    within_budget: bool
    """Whether `milliseconds` is inside the budget, whatever the interval."""
    verdict: Verdict
    """Whether the whole interval is inside it."""
    flagged: tuple[str, ...]
    budget: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of several budgets the one that is meant: a winner's own, else the smallest that `milliseconds` is inside of, or
    the largest."""
    other_precisions: tuple[OtherPrecision, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Where the network was timed in several, what it took in those in which it does not count."""


@dataclass(frozen=True, kw_only=True)
class Winner:
    """What leaves the run. `number` and `key` are those of the candidate it came from, None when there is none."""

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
        """Of the network that was certified."""
        return self.certificate.parameters

    @property
    def multiply_adds(self) -> int:
        """Of the network that was certified, at the size that it was timed at."""
        return self.certificate.multiply_adds


def timing_of(latency: Latency, budgets: Budgets) -> LatencySummary:
    """A latency against the smallest budget that it is inside of, or else the largest."""
    # The run may go on with another budget than the one its trials were proposed for: what counts is today's.
    budget = next((each for each in budgets if each.admits(latency)), budgets.largest)
    return timing_against(latency, budget, of_several=budgets.several)


def timing_against(latency: Latency, budget: Budget, *, of_several: bool) -> LatencySummary:
    """A latency against one budget, which is named where it is one of several."""
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
    """The winner in a folder, which came from one of the candidates; None where there is none.

    Raises: UserError when a file of it is damaged.
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
