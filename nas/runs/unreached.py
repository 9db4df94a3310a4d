"""Budgets that a run gave up, since what it looked at is over them at any width, or known: of several, the others go
on.

It is kept, so that a run which goes on proposes what one that was not interrupted would have. Who asks for such a
budget again gets it tried again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nas.latency.budget import Budget, Budgets
from nas.runs.folder import UNREACHED, RunFolder
from nas.storage.files import write_text
from nas.storage.records import find_record
from nas.study import Study
from space import UserError, strict

MOST_REPEATS = 1000  # more than a search draws in vain before it gives a budget up


@dataclass(frozen=True, kw_only=True)
class Unreached:
    """A budget that was given up."""

    budget: str
    reason: str
    """What was found instead, in words."""
    searched: bool
    """Whether candidates were proposed for it before; they count for what they are inside of."""
    number: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of the step that came next."""
    repeats: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """How many draws of the sampler led to what was known, after the last one that did not."""

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        for name, most in (("number", strict.LARGEST), ("repeats", MOST_REPEATS)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name}: expected 0 to {most}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class AllUnreached:
    """Those of one run."""

    budgets: tuple[Unreached, ...] = ()


def unreached(run: RunFolder) -> dict[Budget, Unreached]:
    """Which budgets a run gave up.

    Raises: UserError when the file is damaged.
    """
    found = find_record(run.root / UNREACHED, "which budgets a run gave up", AllUnreached)
    return {} if found is None else {Budget.parse(each.budget): each for each in found.budgets}


def reachable(run: RunFolder, study: Study) -> Budgets:
    """The budgets that a study asks for; of several, without those that were given up before anything was proposed.

    Raises: UserError when the file that says so is damaged, or leaves none.
    """
    asked = study.asked
    if not asked.several:
        return asked
    left_out = {budget for budget, each in unreached(run).items() if not each.searched}
    if left_out >= set(asked):
        raise UserError(
            f"{run.root / UNREACHED}: expected a budget of {asked} that was not given up, got none; ask for one again: "
            f"{run.resume} --budget '{asked.largest}'"
        )
    return Budgets(each=tuple(budget for budget in asked if budget not in left_out))


def give_up(run: RunFolder, budget: Budget, reason: str, *, searched: bool, number: int = 0, repeats: int = 0) -> None:
    """Nothing more is proposed for a budget; `number` and `repeats` as in `Unreached`."""
    found = Unreached(budget=str(budget), reason=reason, searched=searched, number=number, repeats=repeats)
    _write(run, unreached(run) | {budget: found})


def ask_again(run: RunFolder, budgets: Iterable[Budget]) -> bool:
    """Budgets are tried again that were given up; whether there is one among these."""
    known, wanted = unreached(run), set(budgets)
    found = bool(known.keys() & wanted)
    if found:
        _write(run, {budget: each for budget, each in known.items() if budget not in wanted})
    return found


def _write(run: RunFolder, known: dict[Budget, Unreached]) -> None:
    write_text(run.root / UNREACHED, strict.dump(AllUnreached(budgets=tuple(known.values()))))
