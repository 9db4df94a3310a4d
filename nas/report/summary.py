"""The figures of a run as plain values, which report.yaml holds and report.html shows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from nas.host.words import counted
from nas.latency.budget import Budget, Budgets, Verdict
from nas.latency.record import Latency, Statistic
from nas.latency.target import PRECISIONS
from nas.report.agreement import Agreement, agreement
from nas.report.effort import Effort, earlier_draws, effort_of
from nas.report.going import Going, going_of
from nas.report.notes import notes, pretrained_notes, shortened_notes, winner_notes
from nas.report.precisions import LowerPrecision, lower_precisions
from nas.report.standings import Standing, Status, TrialSummary, leaderboard
from nas.report.timings import Timings, timings_of
from nas.report.waiting import waited
from nas.report.winners import Winner, timing_of, winner_in
from nas.runs.earlier import read_earlier
from nas.runs.finish_recipe import FinishRecipe, read_finish_recipe
from nas.runs.folder import RunFolder
from nas.runs.trial import Progress, Trial
from nas.runs.unreached import unreached
from nas.study import Study
from nas.terminal import waiting_advice
from space import strict

VERDICTS: Mapping[Verdict | None, str] = {"PASS": "passed", "FAIL": "FAILED", "UNSURE": "unsure", None: "none"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result for one of several budgets."""

    budget: str
    milliseconds: float
    folder: str
    """Folder of the winner, relative to the run's folder."""
    winner: Winner | None
    effort: Effort
    """Random and guided search among the candidates for which this is the smallest sufficient budget."""
    given_up: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Why the budget was given up; otherwise empty."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything that a report contains. `notes` are caveats that a reader must know before trusting the figures.

    With several budgets, `answers` has the result for each; there is no single `winner` then, `budget` names them all,
    and `budget_milliseconds` is the largest.
    """

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
    """Share of the time of all trainings (0..1) spent waiting for batches; None where it was not recorded."""
    waited_for_lane: float | None = None
    """Share of the time of all trainings (0..1) spent waiting for timings; None where it was not recorded."""
    answers: tuple[Answer, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The result for each of several budgets, the smallest first."""
    finish: FinishRecipe | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The recipes tried for the finish of finalists, company and pruned networks, and the chosen one; None where only
    the study's recipe is used, at its full length.
    """
    lower_precisions: tuple[LowerPrecision, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Comparison of lower precisions with the highest, where candidates were timed in several. Pruned networks and
    published networks at their own width do not count as candidates here.
    """
    timings: Timings | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Cost of timing the candidates for these budgets; None in runs of earlier versions."""

    @property
    def winners(self) -> tuple[Winner, ...]:
        """All winners of the run, that of the smallest budget first."""
        found = [each.winner for each in self.answers] or [self.winner]
        return tuple(each for each in found if each is not None)

    @property
    def budgets(self) -> tuple[tuple[str, float], ...]:
        """Each budget with its milliseconds, the smallest first."""
        return tuple((each.budget, each.milliseconds) for each in self.answers) or (
            (self.budget, self.budget_milliseconds),
        )

    def milliseconds_of(self, budget: str) -> float:
        """Milliseconds of one of several budgets by its name; of the only or largest budget for an empty name."""
        return dict(self.budgets).get(budget, self.budget_milliseconds)

    @property
    def measured(self) -> tuple[TrialSummary, ...]:
        """All candidates: trials and company."""
        return (*self.trials, *self.company)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions in which some candidate was the fastest, full precision first."""
        found = {each.timing.precision for each in self.measured}
        return tuple(each for each in PRECISIONS if each in found)


def summarize(run: RunFolder) -> Summary:
    """The figures of a run, finished or not.

    Raises: UserError when a file of the run is damaged.
    """
    study, finish = run.study(), read_finish_recipe(run)
    budgets = study.asked
    proposed, accompanying = run.trials(), run.company()
    trials = tuple(_candidate(run, trial, trial.latency, budgets) for trial in proposed if trial.latency)
    company = tuple(_candidate(run, trial, trial.latency, budgets) for trial in accompanying if trial.latency)
    folders, everything = run.winners(study), (*proposed, *accompanying)
    winners = {
        budget: winner_in(folder, everything, budget, of_several=bool(study.budgets))
        for budget, folder in folders.items()
    }
    answers = _answers(run, study, winners, trials)
    winner = None if answers else winners[budgets.largest]
    latencies = [trial.latency for trial in everything if trial.latency]
    data, lane = waited(run, everything)
    advice = waiting_advice(data, lane)
    unmeasured = [f"{trial.name} {trial.failed}." for trial in everything if not trial.latency]
    return Summary(
        run=run.root.resolve().name,
        budget=str(budgets),
        budget_milliseconds=budgets.largest.milliseconds,
        statistic=budgets.largest.statistic,
        target=study.target or (latencies[0].target if latencies else "this machine's fastest"),
        input_size=study.data.size,
        data=study.data.name,
        going=going_of(run, study, proposed, accompanying, answered=_answered(winners, answers)),
        winner=winner,
        leaderboard=leaderboard(winners.values(), trials, company, budgets),
        effort=effort_of(trials, study.recipe.epochs, earlier_draws(read_earlier(run), budgets.largest)),
        agreements=_agreements((*trials, *company)),
        trials=trials,
        company=company,
        notes=(
            *winner_notes(
                [
                    (folders[budget] if answers else run.root, budget, each.certificate)
                    for budget, each in winners.items()
                    if each is not None
                ],
                of_several=bool(answers),
            ),
            *(f"{each.budget} was given up: {each.given_up}." for each in answers if each.given_up),
            *notes(study, latencies),
            *pretrained_notes([each.pretrained for each in (*trials, *company) if each.pretrained]),
            *unmeasured,
            *shortened_notes(finish),
            *([f"{advice}."] if advice else []),
        ),
        waited_for_data=data,
        waited_for_lane=lane,
        answers=answers,
        finish=finish,
        lower_precisions=lower_precisions(
            [each for each in trials if each.origin != "pruned"], budgets.largest.statistic
        ),
        timings=timings_of(run, proposed, budgets),
    )


def _answers(
    run: RunFolder, study: Study, winners: Mapping[Budget, Winner | None], trials: Sequence[TrialSummary]
) -> tuple[Answer, ...]:
    """The result for each of several budgets; empty where there is one budget."""
    if not study.budgets:
        return ()
    given_up, folders, earlier = unreached(run), run.winners(study), read_earlier(run)
    return tuple(
        Answer(
            budget=str(budget),
            milliseconds=budget.milliseconds,
            folder=str(folders[budget].relative_to(run.root)),
            winner=winner,
            effort=effort_of(
                [each for each in trials if each.timing.within_budget and _fills(each, budget, study.asked)],
                study.recipe.epochs,
                earlier_draws(earlier, budget),
            ),
            given_up=given_up[budget].reason if budget in given_up else "",
        )
        for budget, winner in winners.items()
    )


def _fills(candidate: TrialSummary, budget: Budget, budgets: Budgets) -> bool:
    """Whether a budget is the smallest one that a candidate is inside of."""
    inside = (each for each in budgets if candidate.timing.milliseconds <= each.milliseconds)
    return next(inside, None) == budget


def _answered(winners: Mapping[Budget, Winner | None], answers: Sequence[Answer]) -> bool:
    """Whether a winner is certified for every budget that is asked for and was not given up."""
    given_up = {each.milliseconds for each in answers if each.given_up}
    asked = {
        budget: None if winner is None else winner.certificate.budget
        for budget, winner in winners.items()
        if winner is not None or budget.milliseconds not in given_up
    }
    return all(text is not None and Budget.parse(text) == budget for budget, text in asked.items())


def _candidate(run: RunFolder, trial: Trial, latency: Latency, budgets: Budgets) -> TrialSummary:
    search, finish = run.progress(trial, "search"), run.progress(trial, "finish")
    timing = timing_of(latency, budgets)
    return TrialSummary(
        number=trial.number,
        name=trial.name,
        key=trial.architecture.key,
        origin=trial.origin,
        status=_status(trial, budgets, search, finish),
        failed=trial.failed,
        timing=timing,
        parameters=trial.parameters,
        multiply_adds=trial.multiply_adds,
        search=tuple(None if epoch.encoder else epoch.miou for epoch in search.history),
        finish=tuple(epoch.miou for epoch in finish.history),
        rungs=tuple(rung.epochs for rung in trial.rungs if rung.epochs <= len(search.history)),
        parent=trial.parent,
        pretrained=search.pretrained,
    )


def _status(trial: Trial, budgets: Budgets, search: Progress, finish: Progress) -> Status:
    """The status of a trial. One over the budget that it was made for is not trained, even if inside a larger one."""
    if trial.failed:
        return "failed"
    inside = trial.feasible and trial.inside(budgets.of(trial.budget_milliseconds))
    if not (inside or search.history or finish.history):
        return "infeasible"
    if trial.paused_after(search):
        return "stopped" if trial.stopped else "paused"
    longest = finish if finish.history else search
    return "finished" if longest.done else "unfinished"


def _agreements(candidates: Sequence[TrialSummary]) -> tuple[Agreement, ...]:
    both = [
        (each.timing.budget, each.search_miou, each.finish_miou)
        for each in candidates
        if each.search_miou is not None and each.finish_miou is not None and each.status == "finished"
    ]
    ends = sorted({rung for each in candidates for rung in each.rungs})
    return (
        *(_between(lower, higher, candidates) for lower, higher in pairwise(ends)),
        agreement("mIoU after the search phase", "mIoU after the finish", _levelled(both)),
        agreement("multiply-adds", "latency", [(e.multiply_adds, e.timing.p50_milliseconds) for e in candidates]),
        agreement("parameters", "latency", [(e.parameters, e.timing.p50_milliseconds) for e in candidates]),
    )


def _between(lower: int, higher: int, candidates: Sequence[TrialSummary]) -> Agreement:
    """The agreement between the scores at two rungs, over the candidates that were trained to both."""
    both = [each for each in candidates if {lower, higher} <= set(each.rungs)]
    pairs = [
        (each.timing.budget, low, high)
        for each in both
        if (low := each.search[lower - 1]) is not None and (high := each.search[higher - 1]) is not None
    ]
    return agreement(
        f"mIoU after a schedule of {counted(lower, 'epoch')}",
        f"mIoU after {counted(higher, 'epoch')}",
        _levelled(pairs),
    )


def _levelled(found: Sequence[tuple[str, float, float]]) -> list[tuple[float, float]]:
    """Pairs of scores from triples of (budget, proxy, truth). With several budgets, scores are relative to the medians
    of their budget: that slow networks score higher than fast ones by either figure is no news.
    """
    budgets = {budget for budget, _, _ in found}
    if len(budgets) < 2:
        return [(proxy, truth) for _, proxy, truth in found]
    medians = {
        budget: (
            statistics.median(proxy for each, proxy, _ in found if each == budget),
            statistics.median(truth for each, _, truth in found if each == budget),
        )
        for budget in budgets
    }
    return [(proxy - medians[budget][0], truth - medians[budget][1]) for budget, proxy, truth in found]
