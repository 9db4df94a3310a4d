"""Budgets, of several, that a run gave up because all that its sampler drew was over them at any width, or known.

They are recorded so that a resumed run makes the same proposals as an uninterrupted one. Asking for such a budget again
makes the run try it again.
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

MOST_REPEATS = 1000  # a search gives a budget up after fewer fruitless draws


@dataclass(frozen=True, kw_only=True)
class Unreached:
    """A budget that was given up."""

    budget: str
    reason: str
    """What was found instead, in words."""
    searched: bool
    """Whether candidates were proposed for it before; they count for the budgets that they are inside of."""
    number: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Number of the next step at that time."""
    repeats: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Number of the sampler's last draws, all of which led to known networks."""

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        for name, most in (("number", strict.LARGEST), ("repeats", MOST_REPEATS)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name}: expected 0 to {most}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class AllUnreached:
    """All budgets that a run gave up."""

    budgets: tuple[Unreached, ...] = ()


def unreached(run: RunFolder) -> dict[Budget, Unreached]:
    """The budgets that a run gave up.

    Raises: UserError when the file is damaged.
    """
    found = find_record(run.root / UNREACHED, "a record of the budgets that a run gave up", AllUnreached)
    return {} if found is None else {Budget.parse(each.budget): each for each in found.budgets}


def reachable(run: RunFolder, study: Study) -> Budgets:
    """The budgets that a study asks for, without those, of several, that were given up before anything was proposed.

    Raises: UserError when the record is damaged, or no budget is left.
    """
    asked = study.asked
    if not asked.several:
        return asked
    left_out = {budget for budget, each in unreached(run).items() if not each.searched}
    if left_out >= set(asked):
        raise UserError(
            f"{run.root / UNREACHED}: expected a budget among {asked} that was not given up, got none; ask for one "
            f"again: {run.resume} --budget '{asked.largest}'"
        )
    return Budgets(each=tuple(budget for budget in asked if budget not in left_out))


def give_up(run: RunFolder, budget: Budget, reason: str, *, searched: bool, number: int = 0, repeats: int = 0) -> None:
    """Record that nothing more is proposed for a budget; for `number` and `repeats` see `Unreached`."""
    found = Unreached(budget=str(budget), reason=reason, searched=searched, number=number, repeats=repeats)
    _write(run, unreached(run) | {budget: found})


def ask_again(run: RunFolder, budgets: Iterable[Budget]) -> bool:
    """Drop the records of these budgets, so that they are tried again. Returns whether there were any."""
    known, wanted = unreached(run), set(budgets)
    found = bool(known.keys() & wanted)
    if found:
        _write(run, {budget: each for budget, each in known.items() if budget not in wanted})
    return found


def _write(run: RunFolder, known: dict[Budget, Unreached]) -> None:
    write_text(run.root / UNREACHED, strict.dump(AllUnreached(budgets=tuple(known.values()))))
