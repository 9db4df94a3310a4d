"""What a user can get wrong. The command line prints these as one line and exits with code 2.

Every message says what was expected, what came, and what to do next. Our own mistakes are `assert`s.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something a user gave cannot be used; the message is the whole answer."""


class ArchitectureError(UserError):
    """An architecture, or a range of them, that cannot be built."""


class BudgetError(UserError):
    """A budget that is not a latency, or that nothing can reach."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A closing sentence that suggests the closest known name, or lists them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
