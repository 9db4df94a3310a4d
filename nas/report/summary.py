"""The figures of a run, as plain values: what report.yaml holds and report.html shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from nas.latency.budget import Budget, Verdict
from nas.latency.record import Latency, Statistic
from nas.latency.target import PRECISIONS, Target
from nas.report.agreement import Agreement, agreement
from nas.report.going import Going, going_of
from nas.report.notes import notes, pretrained_notes
from nas.report.waiting import waited
from nas.report.words import describe
from nas.runs.certificate import CERTIFICATE, Certificate, read_certificate
from nas.runs.folder import RunFolder
from nas.runs.trained import load_architecture
from nas.runs.trial import Origin, Pretrained, Progress, Trial
from nas.terminal import waiting_advice
from space import UserError, strict

Status = Literal["infeasible", "failed", "paused", "stopped", "unfinished", "finished"]
VERDICTS: Mapping[Verdict | None, str] = {"PASS": "passed", "FAIL": "FAILED", "UNSURE": "unsure", None: "none"}
Role = Literal["winner", "published, own width", "published, scaled", "published, pruned", "best random", "best guided"]


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


@dataclass(frozen=True, kw_only=True)
class TrialSummary:
    """A trial, or a published network at its own width, with its mIoU (0..1) after each epoch of both phases.

    `status`: `infeasible` is over the budget and was not trained; `paused` is at the end of a rung below a whole
    training; `stopped` ended in the middle of its schedule, with an earlier version; `unfinished` has epochs to come.
    """

    number: int
    name: str
    key: str
    origin: Origin
    status: Status
    failed: str
    timing: LatencySummary
    parameters: int
    multiply_adds: int
    search: tuple[float, ...]
    finish: tuple[float, ...]
    rungs: tuple[int, ...]
    """The epochs of the search phase after which a schedule had ended; none for one schedule."""
    parent: str  # the published network that it is a scaling of or was cut from, or empty
    pretrained: Pretrained | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What it took of the study's `init`; None where there was none, or an earlier version trained."""

    @property
    def search_miou(self) -> float | None:
        """mIoU after the last epoch of the search phase."""
        return self.search[-1] if self.search else None

    @property
    def finish_miou(self) -> float | None:
        """mIoU after the last epoch of the finish phase."""
        return self.finish[-1] if self.finish else None

    @property
    def miou(self) -> float | None:
        """mIoU after the longest training."""
        return self.search_miou if self.finish_miou is None else self.finish_miou

    @property
    def epochs(self) -> int:
        """Epochs of both phases together."""
        return len(self.search) + len(self.finish)


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


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One row of the leaderboard. `search_miou` compares equal training, `miou` is after all `epochs`."""

    place: Role
    name: str
    timing: LatencySummary
    search_miou: float | None
    miou: float | None
    epochs: int
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Guided beside random search: the best search-phase mIoU inside the budget among the first `compared` of each,
    after the shortest training that all of them have.
    """

    random_trials: int
    guided_trials: int
    compared: int
    epochs: int | None
    """Of that training; None where each is looked at after its last epoch."""
    best_random_miou: float | None
    best_guided_miou: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything that a report says. `notes` are what a reader must know before believing the figures."""

    run: str
    budget: str
    budget_milliseconds: float
    statistic: Statistic
    target: str
    input_size: tuple[int, int]
    data: str
    going: Going
    winner: Winner | None
    leaderboard: tuple[Standing, ...]
    effort: Effort
    agreements: tuple[Agreement, ...]
    trials: tuple[TrialSummary, ...]
    company: tuple[TrialSummary, ...]
    notes: tuple[str, ...]
    waited_for_data: float | None = None
    """Share of the time of all trainings (0..1) that passed waiting for batches; None where none told."""
    waited_for_lane: float | None = None
    """The same of waiting until timings were over."""

    @property
    def measured(self) -> tuple[TrialSummary, ...]:
        """All candidates: trials and company."""
        return (*self.trials, *self.company)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those in which some candidate was the fastest, full precision first."""
        found = {each.timing.precision for each in self.measured}
        return tuple(each for each in PRECISIONS if each in found)


def summarize(run: RunFolder) -> Summary:
    """The figures of a run, finished or not.

    Raises: UserError when a file of the run is damaged.
    """
    study = run.study()
    budget = Budget.parse(study.budget)
    proposed, accompanying = run.trials(), run.company()
    trials = tuple(_candidate(run, trial, trial.latency, budget) for trial in proposed if trial.latency)
    company = tuple(_candidate(run, trial, trial.latency, budget) for trial in accompanying if trial.latency)
    winner = _winner(run, (*proposed, *accompanying), budget)
    latencies = [trial.latency for trial in (*proposed, *accompanying) if trial.latency]
    data, lane = waited(run, (*proposed, *accompanying))
    advice = waiting_advice(data, lane)
    unmeasured = [f"{trial.name} {trial.failed}." for trial in (*proposed, *accompanying) if not trial.latency]
    return Summary(
        run=run.root.resolve().name,
        budget=str(budget),
        budget_milliseconds=budget.milliseconds,
        statistic=budget.statistic,
        target=study.target or (latencies[0].target if latencies else "this machine's fastest"),
        input_size=study.data.size,
        data=study.data.name,
        going=going_of(run, study, proposed, accompanying, answered=_answered(winner, budget)),
        winner=winner,
        leaderboard=_leaderboard(winner, trials, company),
        effort=_effort(trials),
        agreements=_agreements((*trials, *company)),
        trials=trials,
        company=company,
        notes=(
            *notes(run.root, study, None if winner is None else winner.certificate, latencies),
            *pretrained_notes([each.pretrained for each in (*trials, *company) if each.pretrained]),
            *unmeasured,
            *([f"{advice}."] if advice else []),
        ),
        waited_for_data=data,
        waited_for_lane=lane,
    )


def _answered(winner: Winner | None, budget: Budget) -> bool:
    asked = None if winner is None else winner.certificate.budget
    return asked is not None and Budget.parse(asked) == budget


def _candidate(run: RunFolder, trial: Trial, latency: Latency, budget: Budget) -> TrialSummary:
    search, finish = run.progress(trial, "search"), run.progress(trial, "finish")
    timing = _timing(latency, budget)
    return TrialSummary(
        number=trial.number,
        name=trial.name,
        key=trial.architecture.key,
        origin=trial.origin,
        status=_status(trial, timing, search, finish),
        failed=trial.failed,
        timing=timing,
        parameters=trial.parameters,
        multiply_adds=trial.multiply_adds,
        search=tuple(epoch.scores.miou for epoch in search.history),
        finish=tuple(epoch.scores.miou for epoch in finish.history),
        rungs=tuple(rung.epochs for rung in trial.rungs if rung.epochs <= len(search.history)),
        parent=trial.parent,
        pretrained=search.pretrained,
    )


def _status(trial: Trial, timing: LatencySummary, search: Progress, finish: Progress) -> Status:
    if trial.failed:
        return "failed"
    if not (timing.within_budget or search.history or finish.history):
        return "infeasible"
    if trial.paused_after(search):
        return "stopped" if trial.stopped else "paused"
    longest = finish if finish.history else search
    return "finished" if longest.done else "unfinished"


def _timing(latency: Latency, budget: Budget) -> LatencySummary:
    # The run may go on with another budget than the one its trials were proposed for: what counts is today's.
    return LatencySummary(
        precision=Target.parse(latency.target).precision,
        milliseconds=latency.milliseconds(budget.statistic),
        p50_milliseconds=latency.p50_milliseconds,
        ci_low_milliseconds=latency.ci_low_milliseconds,
        ci_high_milliseconds=latency.ci_high_milliseconds,
        within_budget=budget.admits(latency),
        verdict=budget.verdict(latency),
        flagged=latency.flagged,
    )


def _winner(run: RunFolder, candidates: Sequence[Trial], budget: Budget) -> Winner | None:
    if not (run.winner / CERTIFICATE).is_file():
        return None
    certificate = read_certificate(run.winner)
    if certificate.miou is None:
        raise UserError(
            f"{run.winner / CERTIFICATE}: expected the certificate of a search, which has scores, got one without; "
            "go on with nas search --resume"
        )
    architecture = load_architecture(str(run.winner))
    by_key = {trial.architecture.key: trial for trial in candidates}
    origin = by_key.get(architecture.key) or by_key.get(architecture.without_channels().key)
    pruned = bool(architecture.channels) and (origin is None or origin.architecture != architecture)
    name = certificate.architecture if origin is None else origin.name
    return Winner(
        name=f"{name}, pruned" if pruned and origin is not None else name,
        number=None if origin is None else origin.number,
        key=None if origin is None else origin.architecture.key,
        pruned=pruned,
        timing=_timing(certificate.latency, budget),
        miou=certificate.miou,
        description=describe(architecture),
        genotype={} if origin is None else dict(origin.genotype),
        certificate=certificate,
    )


def _leaderboard(
    winner: Winner | None, trials: Sequence[TrialSummary], company: Sequence[TrialSummary]
) -> tuple[Standing, ...]:
    """The winner, then published networks and the best of each way of proposing, best mIoU first."""
    places: list[tuple[Role, TrialSummary]] = [("published, own width", each) for each in company]
    places += [("published, scaled", each) for each in trials if each.origin == "seed"]
    places += [("published, pruned", each) for each in trials if each.origin == "pruned"]
    for place, origin in (("best random", "random"), ("best guided", "guided")):
        best = _best([each for each in trials if each.origin == origin])
        if best is not None:
            places.append((place, best))  # type: ignore[arg-type]
    itself = None if winner is None or winner.pruned else winner.key
    others = [_standing(place, each) for place, each in places if each.key != itself]
    others.sort(key=lambda row: (row.miou is None, -(row.miou or 0), row.timing.milliseconds))
    if winner is None:
        return tuple(others)
    source = next((each for each in (*trials, *company) if each.key == winner.key), None)
    first = Standing(
        place="winner",
        name=winner.name,
        timing=winner.timing,
        search_miou=None if source is None else source.search_miou,
        miou=winner.miou,
        epochs=0 if source is None else source.epochs,
        parameters=winner.certificate.parameters,
        multiply_adds=winner.certificate.multiply_adds,
    )
    return (first, *others)


def _standing(place: Role, candidate: TrialSummary) -> Standing:
    return Standing(
        place=place,
        name=candidate.name,
        timing=candidate.timing,
        search_miou=candidate.search_miou,
        miou=candidate.miou,
        epochs=candidate.epochs,
        parameters=candidate.parameters,
        multiply_adds=candidate.multiply_adds,
    )


def _best(candidates: Sequence[TrialSummary]) -> TrialSummary | None:
    """The highest mIoU inside the budget; after a short training only where none has a longer one."""
    eligible = [each for each in candidates if each.miou is not None and each.timing.within_budget]
    return max(eligible, key=lambda each: (each.status == "finished", each.miou or 0.0), default=None)


def _effort(trials: Sequence[TrialSummary]) -> Effort:
    trained = [each for each in trials if each.search]
    random = [each for each in trained if each.origin == "random"]
    guided = [each for each in trained if each.origin == "guided"]
    compared = min(len(random), len(guided))
    epochs = min((each.rungs[0] for each in trained if each.rungs), default=None)

    def best(candidates: Sequence[TrialSummary]) -> float | None:
        inside = [each.search for each in candidates[:compared] if each.timing.within_budget]
        return max((curve[-1] if epochs is None else curve[:epochs][-1] for curve in inside), default=None)

    return Effort(
        random_trials=len(random),
        guided_trials=len(guided),
        compared=compared,
        epochs=epochs,
        best_random_miou=best(random),
        best_guided_miou=best(guided),
    )


def _agreements(candidates: Sequence[TrialSummary]) -> tuple[Agreement, ...]:
    both = [
        (each.search[-1], each.finish[-1])
        for each in candidates
        if each.search and each.finish and each.status == "finished"
    ]
    ends = sorted({rung for each in candidates for rung in each.rungs})
    return (
        *(_between(lower, higher, candidates) for lower, higher in pairwise(ends)),
        agreement("mIoU after the search phase", "mIoU after the finish", both),
        agreement("multiply-adds", "latency", [(e.multiply_adds, e.timing.p50_milliseconds) for e in candidates]),
        agreement("parameters", "latency", [(e.parameters, e.timing.p50_milliseconds) for e in candidates]),
    )


def _between(lower: int, higher: int, candidates: Sequence[TrialSummary]) -> Agreement:
    """Of two rungs, over the candidates that were trained to both."""
    both = [each.search for each in candidates if {lower, higher} <= set(each.rungs)]
    pairs = [(curve[lower - 1], curve[higher - 1]) for curve in both]
    return agreement(f"mIoU after a schedule of {lower} epochs", f"mIoU after {higher} epochs", pairs)
