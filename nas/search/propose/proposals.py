"""Proposes what is trained next: seeds, random draws and guided candidates, each at the width that fills a budget."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import space
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.runs.earlier import read_earlier
from nas.runs.shares import Shares
from nas.runs.steps import Step, before, begin_at, go_on_to, rungs_for, steps_of
from nas.runs.trial import Origin, Rung, Trial
from nas.runs.unreached import give_up, unreached
from nas.runs.warm_start import read_warm_start
from nas.search.propose.candidates import Filling, draw, filling_of, sampler_of
from nas.search.propose.deadline import Deadline
from nas.search.propose.guidance import Guidance
from nas.search.propose.journal import Journal
from nas.search.propose.limits import nothing_inside
from nas.search.propose.outcomes import Trainings
from nas.search.propose.promotions import best_paused, missing_finalists, seed_to_go_on
from nas.search.propose.sampler import Outcome
from nas.search.propose.solving import Solved, Solver
from nas.search.search import Candidate, Search, ahead_of
from space.architecture import Architecture
from space.choices import Genotype
from space.errors import BudgetError

MOST_ATTEMPTS = 25  # draws in a row that are over the budget at any width or already known, before a budget is given up
STARTUP = 2  # candidates the sampler has to know; it is asked only after the seeds and the random draws


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A drawn architecture, before its width is solved."""

    architecture: Architecture
    genotype: Genotype
    until: int
    """The epoch that it is to be trained to."""
    number: int | None = None
    """The sampler's number of the proposal; None for a random draw."""


class Proposals:
    """Candidates in order: those that an interrupted run left unfinished, seeds, random draws, guided ones.

    Every candidate is measured and written to the run's folder before it is returned for training. A candidate that no
    width brings inside the budget, or that the target cannot time, is written but not returned. Candidates that may be
    over the budget only because the machine was busy are timed once more when all others have been proposed, so that
    proposals do not depend on it. A known architecture is returned again only to go on to another rung. A proposal
    depends on nothing but the steps before it, in their order, with their latencies and scores: a resumed run proposes
    the same as one that was never interrupted (`nas.search.propose.guidance`).

    Candidates pause at rungs if the sampler supports that. The plan's number of trials is then an effort in whole
    trainings; when it is spent, the best paused candidates go on to the end until there are enough finalists. With a
    time limit they also go on where workers would idle.

    With several budgets each candidate is made for one of them, in turns (`nas.runs.shares`). A budget for which no
    new candidate is found is given up, and the others go on. In a search with a time limit, `deadline` decides when
    proposals end, whatever is left of the plan.
    """

    def __init__(
        self, search: Search, meter: Measures, table: LatencyTable | None, deadline: Deadline | None = None
    ) -> None:
        """`table` is the latency table of the device that `meter` times on, if there was one when the run began."""
        plan = search.study.search
        self._search = search
        self._run = search.run
        self._plan = plan
        self._table = table
        self._budgets = search.budgets
        self._epochs = search.study.recipe.epochs
        self._space = search.study.architectures()
        self._ahead = ahead_of(search)
        self._deadline = deadline
        given_up = {budget: each for budget, each in unreached(search.run).items() if each.searched}
        for budget in (each for each in self._budgets if each in given_up):
            search.console.gives_up(budget, given_up[budget].reason, others=self._budgets.several)
        self._shares = Shares.of(search.study, self._budgets, given_up)
        self._trials = {trial.architecture.key: self._judged(trial) for trial in search.run.trials()}
        self._trainings = Trainings(search.run, self._epochs)
        self._trainings.over |= {key for key, trial in self._trials.items() if self._trainings.settled(trial)}
        # A run that was begun for another budget counts as one for several: its candidates fill the earlier budget.
        made_for = {step.trial.budget_milliseconds for step in steps_of(self._in_order())}
        apart = len(made_for | {budget.milliseconds for budget in self._budgets}) > 1
        sampler = sampler_of(
            self._space,
            kind=plan.sampler,
            startup=STARTUP,
            seed=plan.seed,
            rungs=tuple(each / self._epochs for each in rungs_for(plan, self._epochs)),
            filling=filling_of(self._budgets.largest, search.num_classes, table),
            filling_at=self._filling_at if apart else None,
        )
        self._first = round(sampler.begins_at * self._epochs)
        self._guidance = Guidance(
            sampler,
            self._budgets,
            apart=apart,
            ahead=self._ahead,
            epochs=self._epochs,
            trained=self._trainings.outcome,
            point=lambda trial: trial.answers_in(self._space),
        )
        self._solver = Solver(search, meter, table)
        for trial in search.run.company():
            self._solver.learn(trial)
        self._learn_earlier_runs()
        for trial in self._trials.values():
            self._solver.learn(trial)
        unfinished = [trial for key, trial in self._trials.items() if key not in self._trainings.over]
        self._unfinished = sorted(unfinished, key=lambda trial: trial.last_number)
        self._doubts_timed = False
        self._guidance.replay(self._in_order(), given_up if self._budgets.several else {})
        self._journal = Journal(search.run, self._space, self._last_outcome, search.console.step)
        over = (step for step in steps_of(self._in_order()) if self._trainings.is_over(step))
        self._journal.hold_to(step.as_it_ended for step in over)

    def _learn_earlier_runs(self) -> None:
        """Pass the results of earlier runs to the estimates and the sampler; the same ones whenever the run resumes."""
        self._guidance.warm_start(read_warm_start(self._run).inside(self._space))
        earlier = read_earlier(self._run).trials
        for trial in (known for known in earlier if known.latency is not None):
            self._solver.learn_earlier(trial)
        for trial in earlier:
            if trial.genotype and self._space.point(trial.genotype) is not None:
                milliseconds = self._solver.learn_earlier(trial)
                over = trial.over is not False and milliseconds > self._budgets.largest.milliseconds
                if trial.miou is not None or over:
                    self._guidance.add_earlier(trial, milliseconds)

    def waits(self) -> bool:
        """Whether the next candidate depends on trainings under way."""
        self._end_in_time()
        if self._shares.closed and not self._unfinished:
            return self._under_way >= self._search.workers.concurrent
        number = self._unfinished[0].last_number if self._unfinished else self._next_number()
        known = [step for step in before(self._in_order(), number, self._ahead) if step.trial.disturbed is None]
        if not all(map(self._trainings.is_over, known)):
            return True
        trials, under_way = self._in_order(), self._under_way
        blind = self._deadline is not None and self._deadline.is_blind(trials, self._shares, under_way)
        return bool(under_way) and not self._unfinished and (blind or not self._shares.proposes(trials))

    def next(self) -> Trial | None:
        """The next candidate to train; None when the plan is done or the rest depends on trainings under way.

        Raises: BudgetError when, with a single budget, no draw can be brought inside it and no candidate was before.
        """
        if self._unfinished:
            return self._unfinished.pop(0)
        for name, budget in self._shares.seeds_left(self._in_order()):
            if (trial := self._seed(name, budget)) is not None:
                return trial
        known = before(self._in_order(), self._next_number(), self._ahead)
        if (trial := seed_to_go_on(self._in_order(), known, self._shares, self._trainings)) is not None:
            return self._resume(self._with_rung(trial, self._epochs))
        while (turn := self._shares.turn(self._in_order())) is not None:
            origin, budget = turn
            try:
                return self._new(origin, budget)
            except BudgetError as error:
                if not (self._budgets.several or any(each.feasible and not each.failed for each in self._in_order())):
                    raise
                self._give_up(budget, str(error))
        if (trial := self._for_idle_worker()) is not None:
            return trial
        if self._under_way:  # `waits` counted on a candidate that was not found
            return None
        if not self._doubts_timed:
            self._doubts_timed = True
            self._time_doubted()
        if not self._unfinished:
            left = missing_finalists(self._in_order(), self._shares, self._trainings)
            self._unfinished = [self._resume(self._with_rung(trial, self._epochs)) for trial in left]
        return self._unfinished.pop(0) if self._unfinished else None

    def finished(self, trial: Trial, *, failed: str) -> None:
        """Record that a candidate's training ended or paused; `failed` says why it failed."""
        ended = replace(self._trials[trial.architecture.key], failed=failed)  # the record may hold more budgets by now
        self._record(ended)
        self._trainings.ends(trial)
        self._journal.ended(ended)

    def _end_in_time(self) -> None:
        trials, shares = self._in_order(), replace(self._shares, closed=False)
        if self._deadline is not None and shares.proposes(trials):
            late = self._deadline.passed(trials, shares)
            if late and not self._shares.closed:
                self._search.console.ends_in_time(self._deadline.epochs_left(trials, shares))
            self._shares = replace(shares, closed=late)

    def _give_up(self, budget: Budget, reason: str) -> None:
        """Propose nothing more for a budget."""
        number, duplicates = self._next_number(), self._guidance.pop_duplicates()
        give_up(self._run, budget, reason, searched=True, number=number, repeats=duplicates)
        self._shares = self._shares.without(budget)
        self._search.console.gives_up(budget, reason, others=self._budgets.several)

    def _for_idle_worker(self) -> Trial | None:
        """The best paused candidate, to be trained to the end by a worker that would idle because no more candidates
        are proposed. None where that would end the search later.
        """
        if self._deadline is None or not self._shares.closed or self._under_way >= self._search.workers.concurrent:
            return None
        trials = self._in_order()
        for paused in best_paused(trials, self._shares, self._trainings):
            longer = self._with_rung(paused, self._epochs)
            if self._deadline.has_room(trials, longer, self._shares):
                self._resume(longer)
                self._search.console.expects(self._deadline.epochs_left(self._in_order(), self._shares))
                return longer
        return None

    def _filling_at(self, milliseconds: float) -> Filling | None:
        budget = Budget(milliseconds=milliseconds, statistic=self._budgets.largest.statistic)
        return filling_of(budget, self._search.num_classes, self._table)

    def _with_rung(self, trial: Trial, until: int, *, guided: bool = False) -> Trial:
        """A paused candidate with one more rung, at epoch `until`; `guided`: whether the sampler chose it."""
        rung = Rung(
            epochs=until,
            number=self._next_number(),
            budget_milliseconds=self._shares.home(trial).milliseconds,
            guided=guided,
            in_vain=self._guidance.in_vain if guided else None,
        )
        return go_on_to(trial, rung, self._trainings.epochs(trial))

    def _resume(self, trial: Trial) -> Trial:
        """Record that a paused candidate goes on to its last rung."""
        self._trainings.goes_on(trial)
        self._record(trial)
        self._search.console.goes_on(trial)
        return trial

    @property
    def _under_way(self) -> int:
        """Number of candidates in training or to be trained."""
        return len(self._trials.keys() - self._trainings.over)

    def _in_order(self) -> list[Trial]:
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def _next_number(self) -> int:
        return max((trial.last_number for trial in self._trials.values()), default=0) + 1

    def _time_doubted(self) -> None:
        """Time candidates again that may be over the budget only because the machine was busy; those inside the budget
        now are to be trained.
        """
        for trial in self._in_order():
            if trial.origin == "pruned" or trial.failed or trial.latency is None:
                continue
            budget = self._shares.bound(trial)
            if not budget.doubts(trial.latency) or (again := self._solver.time_again(trial, budget)) is None:
                continue
            self._record(again)
            self._search.console.timed_again(again)
            if not self._trainings.settled(again):
                self._trainings.goes_on(again)
                self._unfinished.append(again)

    def _seed(self, name: str, budget: Budget) -> Trial | None:
        published = space.load(name)
        solved = self._solver.solve(published, budget)
        known = self._trials.get(solved.architecture.key)
        if known is not None and (known.origin, known.parent) == ("seed", name):
            return self._share_seed(known, budget)
        genotype: Genotype = self._space.closest_genotype(published) or {}  # without one, samplers are not told of it
        candidate = Candidate(
            name=f"{name} x{solved.factor:.2f}{'+' if solved.adjusted else ''}",
            origin="seed",
            architecture=solved.architecture,
            genotype=genotype,
            parent=name,
        )
        return self._admit(candidate, budget, solved, self._first)

    def _share_seed(self, seed: Trial, budget: Budget) -> Trial | None:
        """Count a seed for one more budget, where its width cannot be made other than for an earlier one. Returns it if
        it is to be trained for this budget.
        """
        if seed.feasible or not seed.inside(budget):
            self._record(replace(seed, also_milliseconds=(*seed.also_milliseconds, budget.milliseconds)))
            return None
        also = (*seed.also_milliseconds, seed.budget_milliseconds)
        seed = replace(seed, budget_milliseconds=budget.milliseconds, also_milliseconds=also, feasible=True)
        seed = begin_at(seed, self._epochs, self._first)
        self._trainings.goes_on(seed)
        self._record(seed)
        return seed

    def _new(self, origin: Origin, budget: Budget) -> Trial:
        """The first draw that is new and can be brought inside a budget, or that is a paused candidate to train on.

        A random draw depends on the number of duplicates before it, since the last candidate was recorded.
        """
        draw = self._random if origin == "random" else self._guided
        earlier = [trial for each in self._budgets for trial in self._shares.ours(self._in_order(), origin, each)]
        name = f"{origin} {len(earlier) + 1}"
        lowest: Latency | None = None
        duplicates = 0
        for _ in range(MOST_ATTEMPTS):
            drawn = draw(budget, duplicates)
            if drawn.number is not None and (paused := self._paused(drawn, budget)) is not None:
                resumed = self._resume(self._with_rung(paused, drawn.until, guided=True))
                self._guidance.record_step(drawn.number, resumed.last_number)
                return resumed
            solved = self._solver.solve(drawn.architecture, budget)
            timed = [each for each in (lowest, solved.latency) if each is not None]
            lowest = min(timed, key=lambda latency: latency.milliseconds(budget.statistic), default=None)
            if solved.architecture.key in self._trials:
                duplicates += 1
                if drawn.number is not None:
                    self._guidance.reject_duplicate(drawn.number)
                continue
            duplicates = 0
            trial = self._admit(
                Candidate(name=name, origin=origin, architecture=solved.architecture, genotype=drawn.genotype),
                budget,
                solved,
                drawn.until,
                drawn.number,
            )
            if trial is not None:
                return trial
        raise nothing_inside(budget, MOST_ATTEMPTS, lowest)

    def _random(self, budget: Budget, duplicates: int) -> _Drawn:
        rng = random.Random(f"{self._plan.seed}/{self._next_number() - 1}/{duplicates}")
        drawn, genotype = draw(self._space, rng, self._filling_at(budget.milliseconds))
        return _Drawn(architecture=drawn, genotype=genotype, until=self._first)

    def _guided(self, budget: Budget, duplicates: int) -> _Drawn:
        proposal = self._guidance.propose(self._in_order(), self._next_number(), budget)
        return _Drawn(
            architecture=proposal.built,
            genotype=proposal.genotype,
            until=round(proposal.fidelity * self._epochs),
            number=proposal.number,
        )

    def _paused(self, drawn: _Drawn, budget: Budget) -> Trial | None:
        """The candidate with the genotype of a draw, if it paused before the rung that the draw is to be trained to. As
        for the sampler, only steps count whose results may be known here, however early others ended.
        """
        steps = [step for step in before(self._in_order(), self._next_number(), self._ahead) if step.last]
        ended = {step.trial.architecture.key for step in steps if step.trial.disturbed is None}
        over = [trial for trial in reversed(self._in_order()) if trial.architecture.key in ended and trial.feasible]
        left = [trial for trial in over if trial.budget_milliseconds == budget.milliseconds and not trial.failed]
        paused = (trial for trial in left if 0 < self._trainings.epochs(trial) < drawn.until)
        return next((trial for trial in paused if trial.answers_in(self._space) == dict(drawn.genotype)), None)

    def _admit(
        self, candidate: Candidate, budget: Budget, solved: Solved, until: int, number: int | None = None
    ) -> Trial | None:
        """Record a candidate; returns it, to be trained up to epoch `until`, if it is inside the budget that it was
        made for. `number` is its number in the sampler.
        """
        trial = self._search.trial(self._next_number(), candidate, solved.latency, solved.reason, budget)
        trial = replace(trial, in_vain=None if number is None else self._guidance.in_vain)
        if trial.feasible:
            trial = begin_at(trial, self._epochs, until)
        self._solver.keep(solved)
        self._record(trial)
        if number is not None:
            self._guidance.record_step(number, trial.number)
        self._search.console.proposed(trial)
        if trial.feasible:
            return trial
        self._trainings.ends(trial)
        self._journal.ended(trial)
        return None

    def _record(self, trial: Trial) -> None:
        self._trials[trial.architecture.key] = trial
        self._run.write_trial(trial)

    def _judged(self, trial: Trial) -> Trial:
        """A trial as judged by the present budgets."""
        feasible = trial.inside(self._shares.bound(trial))
        if feasible != trial.feasible:
            trial = replace(trial, feasible=feasible)
            self._run.write_trial(trial)
        if trial.budget_milliseconds != self._shares.home(trial).milliseconds:
            # Under another budget its latest latency counts, as if it had been the first.
            trial = replace(trial, disturbed=None)
        return trial

    def _last_outcome(self, trial: Trial) -> Outcome:
        """The result of the last step of a trial, under the present budgets."""
        step = Step(number=trial.last_number, trial=trial, place=max(0, len(trial.rungs) - 1))
        return self._guidance.outcome(step, self._shares.home(trial).milliseconds)
