"""Errors for a user's mistakes. The command line prints the message on one line and exits with code 2.

Every message says what was expected, what was given, and what to do next. Mistakes of our own are `assert`s. Errors
about data, devices, files and trainings are in `nas.errors`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Input of the user that cannot be used; the message is all that is printed."""


class ArchitectureError(UserError):
    """An architecture that cannot be built, or a space without any that can."""


class BudgetError(UserError):
    """A budget that is not a latency, or that no network can reach."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message: suggests the closest known name, or lists all of them if none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
