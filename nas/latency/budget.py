"""Budget: the latency that a network may have, as a user writes it: `10ms`, `100fps`, `10ms p90`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from nas.latency.record import STATISTICS, Latency, Statistic
from space.errors import BudgetError, nearest

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

    def admits(self, latency: Latency) -> bool:
        """Whether the statistic of `latency` is within the budget."""
        return latency.milliseconds(self.statistic) <= self.milliseconds
