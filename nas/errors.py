"""Errors that a user may meet beyond those of `space.errors`: data, targets, damaged files, trainings and measurements.

The command line prints each as one line and exits with code 2 (`nas.cli`).
"""

from __future__ import annotations

from space.errors import UserError


class DataError(UserError):
    """Images or labels are missing, unreadable or inconsistent."""


class TargetError(UserError):
    """A runtime or device is unknown, is not available here or does not compute a network correctly."""


class DamagedError(UserError):
    """A file is damaged, for example cut short or overwritten."""


class TrainingError(UserError):
    """A training failed because of its network or recipe: the same training would fail again."""


class HaltedError(UserError):
    """Work was interrupted from outside, by a disk, memory, files or machines. Nothing finished is lost."""


class BusyError(UserError):
    """A network would fit into memory, but not beside what other processes hold: the network itself is not at fault."""


class ExportError(UserError):
    """A network cannot be exported, or its exported form does not compute what PyTorch computes."""


class UnmeasuredError(UserError):
    """A target cannot time or run a network, although it can time or run others."""
