"""Optuna's answers to `Space.choose`.

Every axis is a parameter of the study. Ordered numbers are searched on a logarithmic scale and answered with the
nearest option that is possible at that point; a choice whose options depend on earlier answers is a parameter of
its own for each set of options. A candidate that no width brings inside the budget is told as a violated constraint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas import samplers
from space import Architecture, Space
from space.choices import Choice, Genotype

if TYPE_CHECKING:
    import optuna

INFEASIBLE_MIOU = 0.0


class Sampler:
    """A conversation with one Optuna study; everything it knows comes through `propose`, `tell` and `learn`."""

    def __init__(self, space: Space, *, kind: str, startup: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._study = optuna.create_study(direction="maximize", sampler=samplers.make(kind, seed=seed, startup=startup))
        self._running: dict[int, optuna.trial.Trial] = {}

    def propose(self) -> tuple[int, Architecture, Genotype]:
        """An architecture worth trying, its genotype, and the number to `tell` the outcome under."""
        trial = self._study.ask()
        answers: dict[str, Choice] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            answers[name] = _suggest(trial, name, options)
            return answers[name]

        architecture = self._space.choose(ask)
        self._running[trial.number] = trial
        return trial.number, architecture, answers

    def tell(self, number: int, *, miou: float | None, violation: float) -> None:
        """The outcome of a proposal: its mIoU (None if it was not trained to one), and by what share of the budget it
        is over (0 or less: inside).
        """
        trial = self._running.pop(number)
        trial.set_constraint("latency", violation)
        if miou is None and violation <= 0:
            import optuna

            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, INFEASIBLE_MIOU if miou is None else miou)

    def learn(self, genotype: Genotype, *, miou: float | None, violation: float) -> None:
        """The outcome of a candidate that was not proposed here: a seed, a random draw, a trial of an earlier run."""
        if not genotype:
            return
        parameters: dict[str, float | int] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            value = genotype[name] if genotype.get(name) in options else options[0]
            if len(options) > 1:
                ordered = _ordered(options)
                parameters[name if ordered else _categorical_name(name, options)] = (
                    _place(value) if ordered else options.index(value)
                )
            return value

        self._space.choose(ask)
        self._study.enqueue_trial(parameters)  # the next proposal gives exactly these answers
        number, _, _ = self.propose()
        self.tell(number, miou=miou, violation=violation)


def _suggest(trial: optuna.trial.Trial, name: str, options: Sequence[Choice]) -> Choice:
    if len(options) == 1:
        return options[0]
    if _ordered(options):
        places = [_place(option) for option in options]
        answer = trial.suggest_float(name, min(places), max(places))
        return min(options, key=lambda option: abs(_place(option) - answer))
    index = trial.suggest_categorical(_categorical_name(name, options), list(range(len(options))))
    return options[index]


def _ordered(options: Sequence[Choice]) -> bool:
    return all(isinstance(option, (int, float)) and not isinstance(option, bool) for option in options)


def _place(option: Choice) -> float:
    """Where a number stands on the axis: widths and depths differ by ratios, and 0 has a place too."""
    return math.log2(1 + float(option))


def _categorical_name(name: str, options: Sequence[Choice]) -> str:
    """Optuna wants one set of categories per name."""
    return f"{name} of {','.join(str(option) for option in options)}"
