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


class DataError(UserError):
    """Images or labels that are missing, unreadable or contradict each other."""


class TargetError(UserError):
    """A runtime or device that is unknown or not installed here."""


class BudgetError(UserError):
    """A budget that is not a latency, or that nothing can reach."""


class DamagedError(UserError):
    """A file of ours that was cut short or overwritten."""


class TrainingError(UserError):
    """A training that its own network or recipe ends: trying it again would end the same way."""


class HaltedError(UserError):
    """Work that its surroundings broke off: a disk, memory, files, machines. Nothing finished is lost by it."""


class BusyError(UserError):
    """A network that would fit into memory, did others not hold it now: that says nothing about the network."""


class ExportError(UserError):
    """A network that cannot be written as a graph that gives what PyTorch gives."""


class UnmeasuredError(UserError):
    """A network that a target cannot time or run, although it does others."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A closing sentence that suggests the closest known name, or lists them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
