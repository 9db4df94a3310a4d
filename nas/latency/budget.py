"""Budget: the latency that a network may have, as a user writes it: `10ms`, `100fps`, `10ms p90`."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nas.latency.record import STATISTICS, Latency, Statistic
from nas.latency.target import Target
from space.errors import BudgetError, nearest

Verdict = Literal["PASS", "FAIL", "UNSURE"]
"""Verdict on a latency: surely within the budget, surely over it, or not decided by the measurement."""

SETTLING = (0.001, 0.015)  # narrowest and widest `within` to suggest for a latency that settles a verdict

SETTLING_PROCESSES = 9  # timed where fewer leave a verdict open
MOST_PROCESSES = 20  # that `nas measure` times

_AMOUNT = re.compile(
    r"(?P<number>\d+\.?\d*|\.\d+)(?P<exponent>e[+-]?\d+)?\s*(?P<unit>ms|fps)(\s+(?P<statistic>\w+))?", re.I
)
_ACCEPTED = "a positive time or rate such as 10ms, 0.5ms or 100fps (10ms p90 to bound the 90th percentile)"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The largest value in milliseconds that a statistic of the latency may have.

    Raises: BudgetError when `milliseconds` is not positive and finite, or the statistic is not p50, p90 or p99.
    """

    milliseconds: float
    statistic: Statistic = "p50"
    """Statistic of the latency that is compared: the median or a high percentile."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.milliseconds) and self.milliseconds > 0):
            raise BudgetError(f"expected a positive and finite budget, got {self.milliseconds} ms; give {_ACCEPTED}")
        if self.statistic not in STATISTICS:
            raise BudgetError(
                f"expected one of the statistics {', '.join(STATISTICS)}, got {self.statistic!r}; "
                f"{nearest(self.statistic, STATISTICS)}"
            )

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget given as `10ms`, `10 ms`, `100fps` or `10ms p90`.

        Raises: BudgetError when `text` is no budget; the message says what is accepted.
        """
        found = _AMOUNT.fullmatch(text.strip())
        number = float(found["number"] + (found["exponent"] or "")) if found else math.nan
        if found is None or not (math.isfinite(number) and number > 0):
            raise BudgetError(f"cannot read {text!r} as a budget; give {_ACCEPTED}")
        statistic: Any = (found["statistic"] or "p50").lower()
        return cls(milliseconds=number if found["unit"].lower() == "ms" else 1000 / number, statistic=statistic)

    def __str__(self) -> str:
        number = repr(float(self.milliseconds)).removesuffix(".0")
        return f"{number}ms" if self.statistic == "p50" else f"{number}ms {self.statistic}"

    @property
    def name(self) -> str:
        """Folder name: `10ms`, `33.3333ms`, `10ms-p90`. Budgets with the same name are the same."""
        words = f"{self.milliseconds:g}ms"
        return words if self.statistic == "p50" else f"{words}-{self.statistic}"

    def admits(self, latency: Latency) -> bool:
        """Whether the statistic of `latency` is within the budget, without regard to its interval: enough to train the
        network. Whether the budget is surely kept is its `verdict`.
        """
        return latency.milliseconds(self.statistic) <= self.milliseconds

    def verdict(self, latency: Latency) -> Verdict:
        """PASS if the whole 95 % interval is within the budget, FAIL if all of it is over the budget, else UNSURE."""
        low, high = latency.interval(self.statistic)
        if high <= self.milliseconds:
            return "PASS"
        return "FAIL" if low > self.milliseconds else "UNSURE"

    def refutes(self, latency: Latency) -> bool:
        """Whether `latency` proves that a network is over the budget: a FAIL without flags. Disturbances make calls
        slower, so a network with a flagged FAIL may be within the budget.
        """
        return self.verdict(latency) == "FAIL" and not latency.flagged

    def doubts(self, latency: Latency) -> bool:
        """Whether `latency` may be over the budget only because the machine was busy: it is over and flagged, and its
        interval reaches into the budget.
        """
        return bool(latency.flagged) and not self.admits(latency) and self.verdict(latency) != "FAIL"

    def likelier(self, disturbed: Latency, again: Latency) -> Latency:
        """The more credible of two latencies of a network, the first of which was disturbed: the second if it was
        undisturbed, else the lower one, since disturbances make calls slower, never faster.
        """
        if not again.flagged:
            return again
        return min(again, disturbed, key=lambda latency: latency.milliseconds(self.statistic))


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """The budgets of one search: one, or several of one statistic, in ascending order.

    A network made for one of them counts for every budget that it keeps.

    Raises: BudgetError when there is none, or two are the same or of different statistics.
    """

    each: tuple[Budget, ...]

    def __post_init__(self) -> None:
        if not self.each:
            raise BudgetError(f"expected a budget, got none; give {_ACCEPTED}")
        statistics = {budget.statistic for budget in self.each}
        if len(statistics) > 1:
            raise BudgetError(
                f"expected budgets of one statistic, got {', '.join(map(str, self.each))}; search for the others in "
                "separate runs"
            )
        ordered = tuple(sorted(self.each, key=lambda budget: budget.milliseconds))
        for before, after in itertools.pairwise(ordered):
            if before.name == after.name:
                raise BudgetError(f"expected budgets that differ, got {before} twice; leave one of them out")
        object.__setattr__(self, "each", ordered)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Budgets:
        """The budgets given by texts as `Budget.parse` reads them, in any order.

        Raises: BudgetError when a text is no budget, and as the class does.
        """
        return cls(each=tuple(map(Budget.parse, texts)))

    def __iter__(self) -> Iterator[Budget]:
        return iter(self.each)

    def __len__(self) -> int:
        return len(self.each)

    def __str__(self) -> str:
        return ", ".join(map(str, self.each))

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self.each) > 1

    @property
    def largest(self) -> Budget:
        """The largest budget, kept by every network that keeps any of them."""
        return self.each[-1]

    def of(self, milliseconds: float) -> Budget:
        """The budget of this many milliseconds, for which a network was made; the largest one if that budget is no
        longer among these.
        """
        return next((budget for budget in self.each if budget.milliseconds == milliseconds), self.largest)


def unsettled(latency: Latency) -> str:
    """Why a latency may not decide which side of a budget a network is on, and how to go on; empty if it is not
    flagged.
    """
    if not latency.flagged:
        return ""
    low, high = latency.interval()
    return (
        f"the machine was busy ({'; '.join(latency.flagged)}), so the latency measured as "
        f"{latency.p50_milliseconds:.2f} ms may be anything from {low:.2f} to {high:.2f} ms, or less; "
        f"{quieter(latency)}"
    )


def quieter(latency: Latency) -> str:
    """How to get a reliable latency on a machine that was busy."""
    target = Target.parse(latency.target)
    waiting = "wait until nothing else runs there, or allow more time for quiet moments (--patience 5min)"
    if target.on_cuda or target.threads == 1:
        return waiting
    return f"{waiting}, or time with fewer threads (--target {replace(target, threads=1)})"


def settling_in(words: str, folder: str | Path) -> str:
    """The words of `settling` for the network in `folder`, whose name is quoted for a shell."""
    return words.replace("FOLDER", shlex.quote(str(folder)))


def settling(latency: Latency, budget: Budget, num_classes: int) -> str:
    """Why a latency does not decide whether a network keeps a budget, and the command that would. FOLDER in it stands
    for the network's folder.
    """
    low, high = latency.interval(budget.statistic)
    gap = abs(budget.milliseconds / latency.milliseconds(budget.statistic) - 1)
    within = min(max(gap / 2, SETTLING[0]), SETTLING[1])
    why, how = "", ""
    if latency.flagged:
        why, how = ", because the machine was busy", f" ({quieter(latency)})"
    processes = ""
    if timed := latency.processes_milliseconds:
        factor = latency.milliseconds(budget.statistic) / latency.p50_milliseconds
        inside = sum(factor * median <= budget.milliseconds for median in timed)
        differ = 0 < inside < len(timed)
        many = min(MOST_PROCESSES, max(SETTLING_PROCESSES, 3 * len(timed)))
        processes = f" --processes {many if differ else len(timed)}"
        if differ:
            why = f"{why}; {inside} of {len(timed)} processes kept it, and a slightly faster network would be safe"
    return (
        f"{budget} lies within the 95 % interval, {low:.2f} to {high:.2f} ms{why}. To settle it: nas measure FOLDER "
        f"--target {latency.target} --input {latency.height}x{latency.width} --classes {num_classes} "
        f"--budget '{budget}' --within {100 * within:.1f}%{processes} --patience 5min{how}"
    )
