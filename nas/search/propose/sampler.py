"""Has Optuna answer the questions of a space: `propose` gives a candidate, `tell` takes its result.

Every axis is a parameter of an Optuna study. Ordered numbers are searched on a logarithmic scale and answered with the
nearest option that is possible at that point. A choice whose options depend on earlier answers is a separate parameter
for each set of options. A training that paused is recorded as pruned with the score that it reached, a broken one as
failed, and a candidate over a budget as a violated constraint without a value.

A proposal states how far it is to be trained: a new point to the lowest rung in use, and a point that paused at a rung
to the next one (`nas.surrogate.rungs`). Where the questions have no rungs, each point is trained whole.

With several budgets, one study holds the results for all of them. Each proposal is for one budget, which is stored with
its answers (`nas.surrogate.candidates.BUDGET`), and the questions are those at this budget.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from nas.surrogate.candidates import (
    ANSWERS,
    BUDGET,
    ELSEWHERE,
    FIDELITY,
    FORGOTTEN,
    OTHER_DATA,
    STEPS,
    WITHDRAWN,
    Candidates,
    rungs_of,
    step_of,
)
from nas.surrogate.encoding import key
from nas.surrogate.rungs import ladder
from nas.surrogate.told import known_of
from space.choices import Ask, Choice, Genotype, answer_of
from space.errors import ArchitectureError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

MOST_TRIES = 200  # sets of answers in a row that fail because narrow ranges leave a question without options

Built = TypeVar("Built", covariant=True)
Of = TypeVar("Of")


class Questions(Protocol[Built]):
    """What is searched: questions whose answers build something, and points that may be worth trying."""

    @property
    def rungs(self) -> tuple[float, ...]:
        """The shares of a whole training at which a training can pause, ascending; the last is 1."""

    def choose(self, ask: Ask) -> Built:
        """Build from the answers of `ask`, which is called for every question with the options that are left."""

    def around(self, best: Sequence[Genotype], rng: random.Random) -> Sequence[Genotype]:
        """Hundreds of points: random draws, and points near the `best` ones."""

    def kind(self, point: Genotype) -> Hashable:
        """What distinguishes a point in kind, and not by degrees, from others; the same for all where nothing does."""

    def facts(self, point: Genotype) -> Mapping[str, float]:
        """Numbers that are known about a point before it is trained."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a proposal's training, or that there was none."""

    miou: float | None
    """The score; None where there is none."""
    fidelity: float = 1.0
    """Share of a whole training after which the score was taken."""
    violations: Mapping[str, float] = field(default_factory=dict)
    """Overshoot of each budget as a share of it, by the budget's name; 0 or less is inside."""

    def __post_init__(self) -> None:
        assert 0 < self.fidelity <= 1, f"expected a share of a whole training, got {self.fidelity}"


@dataclass(frozen=True, kw_only=True)
class Proposal(Generic[Of]):
    """A candidate to train."""

    number: int
    """The number under which to `tell` its outcome."""
    built: Of
    genotype: Genotype
    fidelity: float
    """Share of a whole training to train it to, including its training so far."""
    in_vain: int
    """Number of sets of answers before it that led to nothing."""


class Sampler(Generic[Built]):
    """Proposes candidates with one Optuna study; all that it knows comes through `propose`, `enter` and `tell`."""

    def __init__(
        self,
        questions: Questions[Built],
        make: Callable[[Candidates], optuna.samplers.BaseSampler],
        at: Callable[[float], Questions[Built]] | None = None,
        *,
        stateless: bool = False,
    ) -> None:
        """`make` makes the Optuna sampler. With several budgets, `at` gives the questions at one of them, in
        milliseconds. `stateless`: whether proposals depend on nothing but the results told and the trial's number.
        """
        import optuna

        self.stateless = stateless
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._questions = questions
        self._points = _Points(questions, at)
        self._study = optuna.create_study(direction="maximize", sampler=make(self._points))
        self._running: dict[int, optuna.trial.Trial] = {}

    @property
    def begins_at(self) -> float:
        """The share of a whole training that a candidate gets first, while no results are known."""
        return ladder((), rungs_of(self._points)).rungs[0]

    def propose(self, budget: float | None = None) -> Proposal[Built]:
        """A new candidate, or a paused one to train on; with several budgets, for this one in milliseconds.

        Raises: ArchitectureError when no set of answers leads to an architecture.
        """
        before = len(self._study.get_trials(deepcopy=False))
        trial, built, answers = self._ask(budget)
        fidelity = self._next_rung(trial.number, trial.user_attrs[ANSWERS])
        trial.set_user_attr(FIDELITY, fidelity)
        in_vain = trial.number - before
        return Proposal(number=trial.number, built=built, genotype=answers, fidelity=fidelity, in_vain=in_vain)

    def enter(self, genotype: Genotype, fidelity: float = 1.0, budget: float | None = None) -> int:
        """Begin a training that this sampler did not propose (a seed, a random draw, a trial of an earlier run), up to
        a share `fidelity` of a whole one. Returns the number under which to `tell` its outcome.

        Raises: ArchitectureError when no answers lead to it, as where the space was narrowed since.
        """
        self._study.enqueue_trial({name: value for name, (_, value) in self._points.parameters(genotype).items()})
        trial, _, _ = self._ask(budget)  # gives exactly these answers
        trial.set_user_attr(FIDELITY, fidelity)
        return trial.number

    def add_earlier(self, genotype: Genotype, outcome: Outcome, budget: float | None = None) -> None:
        """Add the result of another search for a candidate, before any proposal."""
        self._add(genotype, outcome, budget, (ELSEWHERE,))

    def warm_start(self, genotype: Genotype, score: float, budget: float | None = None) -> None:
        """Add a network's mIoU on other data, as the difference to the median there, before any proposal."""
        self._add(genotype, Outcome(miou=score, fidelity=1 / STEPS), budget, (ELSEWHERE, OTHER_DATA))

    def _add(self, genotype: Genotype, outcome: Outcome, budget: float | None, marks: Sequence[str]) -> None:
        number = self.enter(genotype, outcome.fidelity, budget)
        for mark in marks:
            self._running[number].set_user_attr(mark, True)
        self.tell(number, outcome)

    def _ask(self, budget: float | None) -> tuple[optuna.trial.Trial, Built, Genotype]:
        import optuna

        self._points.budget = budget
        reason = ""
        for _ in range(MOST_TRIES):
            trial = self._study.ask()
            answers: dict[str, Choice] = {}
            try:
                built = self._questions.choose(functools.partial(_answer, trial, answers))
            except ArchitectureError as error:
                reason = str(error)
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            trial.set_user_attr(ANSWERS, _marked(answers, budget))
            self._running[trial.number] = trial
            return trial, built, answers
        raise ArchitectureError(f"{reason} (all {MOST_TRIES} proposals failed; this is the last error)")

    def _next_rung(self, number: int, point: Genotype) -> float:
        if len(self._questions.rungs) == 1:
            return 1.0
        results = known_of(self._study, but=number).told
        same_point = [each for each in results if key(each.point) == key(point) and not each.elsewhere]
        reached = [each.fidelity for each in same_point if each.score is not None]
        return ladder(results, rungs_of(self._points)).after(max(reached, default=0.0))

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record the outcome of a proposal, or of an entered training."""
        import optuna

        trial = self._running.pop(number)
        for name, violation in outcome.violations.items():
            trial.set_constraint(name, violation)
        if outcome.miou is not None:
            trial.report(outcome.miou, step_of(outcome.fidelity))
        if outcome.miou is not None and outcome.fidelity == 1:
            self._study.tell(trial, outcome.miou)
        elif outcome.miou is not None or any(violation > 0 for violation in outcome.violations.values()):
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def withdraw(self, number: int) -> None:
        """Withdraw a proposal that led to nothing new. It has no result, and is not proposed again; except that a point
        which is under way may be proposed again once it pauses.
        """
        import optuna

        trial = self._running.pop(number)
        trial.set_user_attr(WITHDRAWN, True)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if key(trial.user_attrs[ANSWERS]) in {key(each.user_attrs[ANSWERS]) for each in self._running.values()}:
            self.forget([number])

    def forget(self, numbers: Sequence[int]) -> None:
        """Forget withdrawn proposals, so that their points may be proposed as if for the first time."""
        self._study.set_user_attr(FORGOTTEN, [*self._study.user_attrs.get(FORGOTTEN, ()), *numbers])


class _Points(Generic[Built]):
    """Genotypes as parameters of the Optuna study."""

    def __init__(self, questions: Questions[Built], at: Callable[[float], Questions[Built]] | None = None) -> None:
        self._questions = questions
        self._at = at
        self._known: dict[float, Questions[Built]] = {}  # by budget
        self.budget: float | None = None
        """The budget of the present proposal in milliseconds, where there are several."""

    @property
    def rungs(self) -> tuple[float, ...]:
        return self._questions.rungs

    def around(self, best: Sequence[Genotype], rng: random.Random) -> Sequence[Genotype]:
        if self.budget is None:
            return self._questions.around(best, rng)
        found = self._questions_at(self.budget).around([_plain(each) for each in best], rng)
        return [_marked(each, self.budget) for each in found]

    def kind(self, point: Genotype) -> Hashable:
        return self._questions.kind(_plain(point))

    def facts(self, point: Genotype) -> Mapping[str, float]:
        budget = point.get(BUDGET)
        return (
            self._questions.facts(point) if budget is None else self._questions_at(float(budget)).facts(_plain(point))
        )

    def _questions_at(self, budget: float) -> Questions[Built]:
        if self._at is None:
            return self._questions
        if budget not in self._known:
            self._known[budget] = self._at(budget)
        return self._known[budget]

    def parameters(self, point: Genotype) -> Mapping[str, tuple[BaseDistribution, float | int]]:
        """See `parameters_of`.

        Raises: ArchitectureError when an answer is not among the options.
        """
        found: dict[str, tuple[BaseDistribution, float | int]] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            value = answer_of(point, name, options)
            if len(options) > 1:
                parameter, distribution = _parameter(name, options)
                found[parameter] = distribution, _place(value) if _ordered(options) else options.index(value)
            return value

        self._questions.choose(ask)
        return found


def _marked(genotype: Genotype, budget: float | None) -> Genotype:
    """A genotype as stored in the study: with its budget, where there are several."""
    return genotype if budget is None else {**genotype, BUDGET: budget}


def _plain(point: Genotype) -> Genotype:
    return {name: answer for name, answer in point.items() if name != BUDGET}


def parameters_of(
    questions: Questions[Built], genotype: Genotype
) -> Mapping[str, tuple[BaseDistribution, float | int]]:
    """The parameters of a genotype in an Optuna study: the distribution and value of each, by name.

    Raises: ArchitectureError when an answer is not among the options.
    """
    return _Points(questions).parameters(genotype)


def _answer(trial: optuna.trial.Trial, answers: dict[str, Choice], name: str, options: Sequence[Choice]) -> Choice:
    answers[name] = _suggest(trial, name, options)
    return answers[name]


def _suggest(trial: optuna.trial.Trial, name: str, options: Sequence[Choice]) -> Choice:
    if len(options) == 1:
        return options[0]
    if _ordered(options):
        places = [_place(option) for option in options]
        answer = trial.suggest_float(name, min(places), max(places))
        return min(options, key=lambda option: abs(_place(option) - answer))
    index = trial.suggest_categorical(_categorical_name(name, options), list(range(len(options))))
    return options[index]


def _parameter(name: str, options: Sequence[Choice]) -> tuple[str, BaseDistribution]:
    """The name and the distribution of the parameter that `_suggest` asks for."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if _ordered(options):
        places = [_place(option) for option in options]
        return name, FloatDistribution(min(places), max(places))
    return _categorical_name(name, options), CategoricalDistribution(list(range(len(options))))


def _ordered(options: Sequence[Choice]) -> bool:
    return all(isinstance(option, (int, float)) and not isinstance(option, bool) for option in options)


def _place(option: Choice) -> float:
    """Position of a number on its axis: logarithmic, since widths and depths differ by ratios, but defined for 0."""
    return math.copysign(math.log2(1 + abs(float(option))), float(option))


def _categorical_name(name: str, options: Sequence[Choice]) -> str:
    """A parameter name for these options: Optuna requires one set of categories per name."""
    return f"{name} of {','.join(str(option) for option in options)}"
