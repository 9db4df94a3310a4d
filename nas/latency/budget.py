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
"""Of a latency against a budget: surely inside, surely over, or not told by what was measured."""

SETTLING = (0.001, 0.015)  # how sure a latency is to be that settles a verdict, at the most and the least
MANY_PROCESSES = 9  # to settle it with, where those that were timed lie on both sides

_AMOUNT = re.compile(
    r"(?P<number>\d+\.?\d*|\.\d+)(?P<exponent>e[+-]?\d+)?\s*(?P<unit>ms|fps)(\s+(?P<statistic>\w+))?", re.I
)
_ACCEPTED = "a positive time or rate such as 10ms, 0.5ms or 100fps (10ms p90 to bound the 90th percentile)"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most milliseconds that a statistic of the latency may take.

    Raises: BudgetError when `milliseconds` is not positive and finite, or the statistic is not p50, p90 or p99.
    """

    milliseconds: float
    statistic: Statistic = "p50"
    """Of the latency, that is compared: the median or a high percentile."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.milliseconds) and self.milliseconds > 0):
            raise BudgetError(f"a budget of {self.milliseconds} ms cannot be met; give {_ACCEPTED}")
        if self.statistic not in STATISTICS:
            raise BudgetError(
                f"expected a statistic of {', '.join(STATISTICS)}, got {self.statistic!r}; "
                f"{nearest(self.statistic, STATISTICS)}"
            )

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that `10ms`, `10 ms`, `100fps` or `10ms p90` names.

        Raises: BudgetError when it names none; the message says what is accepted.
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
        """As a folder is called: `10ms`, `33.3333ms`, `10ms-p90`. Budgets of the same name are the same."""
        words = f"{self.milliseconds:g}ms"
        return words if self.statistic == "p50" else f"{words}-{self.statistic}"

    def admits(self, latency: Latency) -> bool:
        """Whether the statistic of `latency` is within the budget, as far as was measured: what is worth a training.
        What is said of a network is its `verdict`.
        """
        return latency.milliseconds(self.statistic) <= self.milliseconds

    def verdict(self, latency: Latency) -> Verdict:
        """PASS where the whole 95 % interval is inside the budget, FAIL where all of it is over, else UNSURE."""
        low, high = latency.interval(self.statistic)
        if high <= self.milliseconds:
            return "PASS"
        return "FAIL" if low > self.milliseconds else "UNSURE"

    def refutes(self, latency: Latency) -> bool:
        """Whether `latency` proves that a network is over: a FAIL that nothing disturbed. What disturbs a machine makes
        calls slower, so a flagged FAIL may be a network inside.
        """
        return self.verdict(latency) == "FAIL" and not latency.flagged

    def doubts(self, latency: Latency) -> bool:
        """Whether `latency`, over the budget, may be over it only since the machine was busy: it is flagged, and its
        interval reaches into the budget.
        """
        return bool(latency.flagged) and not self.admits(latency) and self.verdict(latency) != "FAIL"

    def likelier(self, disturbed: Latency, again: Latency) -> Latency:
        """Which of two latencies of a network to believe, the first of them taken on a busy machine: the second if that
        was quiet, else the lower one, since what disturbs a machine makes calls slower, never faster.
        """
        if not again.flagged:
            return again
        return min(again, disturbed, key=lambda latency: latency.milliseconds(self.statistic))


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What one search is asked for: one budget, or several of one statistic, the smallest first.

    A network that was made for one of them counts for each that it is inside of.

    Raises: BudgetError when there is none, or two are the same or of different statistics.
    """

    each: tuple[Budget, ...]

    def __post_init__(self) -> None:
        if not self.each:
            raise BudgetError(f"expected a budget, got none; give {_ACCEPTED}")
        statistics = {budget.statistic for budget in self.each}
        if len(statistics) > 1:
            raise BudgetError(
                f"expected budgets of one statistic, got {', '.join(map(str, self.each))}: one search counts one; "
                "search for the others in a run of their own"
            )
        ordered = tuple(sorted(self.each, key=lambda budget: budget.milliseconds))
        for before, after in itertools.pairwise(ordered):
            if before.name == after.name:
                raise BudgetError(f"expected budgets that differ, got {before} twice; leave one of them out")
        object.__setattr__(self, "each", ordered)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Budgets:
        """The budgets that such texts name as `Budget.parse` reads them, in any order.

        Raises: BudgetError when one names none, and as the class does.
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
        """The one that is kept wherever one is."""
        return self.each[-1]

    def of(self, milliseconds: float) -> Budget:
        """The budget of so many milliseconds, to which a network counts that was made for it; the largest where it was
        made for one that is asked for no more.
        """
        return next((budget for budget in self.each if budget.milliseconds == milliseconds), self.largest)


def unsettled(latency: Latency) -> str:
    """Why a latency may not tell which side of a budget a network is on, and how to go on; empty where nothing is known
    against it.
    """
    if not latency.flagged:
        return ""
    low, high = latency.interval()
    return (
        f"the machine was busy ({'; '.join(latency.flagged)}), so that {latency.p50_milliseconds:.2f} ms may be "
        f"anything from {low:.2f} to {high:.2f} ms, or less; {quieter(latency)}"
    )


def quieter(latency: Latency) -> str:
    """How to get a latency that can be trusted where the machine was busy."""
    target = Target.parse(latency.target)
    waiting = "wait until nothing else computes there, or longer for quiet moments (--patience 5min)"
    if target.on_cuda or target.threads == 1:
        return waiting
    return f"{waiting}, or time with fewer threads (--target {replace(target, threads=1)})"


def settling_in(words: str, folder: str | Path) -> str:
    """What `settling` says, of the network in a folder, as a shell reads its name."""
    return words.replace("FOLDER", shlex.quote(str(folder)))


def settling(latency: Latency, budget: Budget, num_classes: int) -> str:
    """Why a latency does not tell whether a network is inside a budget, and the command that would; FOLDER stands for
    the network's.
    """
    low, high = latency.interval(budget.statistic)
    gap = abs(budget.milliseconds / latency.milliseconds(budget.statistic) - 1)
    within = min(max(gap / 2, SETTLING[0]), SETTLING[1])
    why, how = "", ""
    if latency.flagged:
        why, how = ", since the machine was busy", f" ({quieter(latency)})"
    processes = ""
    if timed := latency.processes_milliseconds:
        factor = latency.milliseconds(budget.statistic) / latency.p50_milliseconds
        inside = sum(factor * each <= budget.milliseconds for each in timed)
        differ = 0 < inside < len(timed)
        processes = f" --processes {MANY_PROCESSES if differ else len(timed)}"
        if differ:
            why = f"{why}; {inside} of {len(timed)} processes kept it, and a little less latency would be safe"
    return (
        f"{budget} is between {low:.2f} and {high:.2f} ms{why}. To settle it: nas measure FOLDER --target "
        f"{latency.target} --input {latency.height}x{latency.width} --classes {num_classes} --budget '{budget}' "
        f"--within {100 * within:.1f}%{processes} --patience 5min{how}"
    )
