"""What a user meets beyond `space.errors`: data, devices, and what happens to a training or a measurement.

The command line prints each as one line and exits with code 2 (`nas.cli`).
"""

from __future__ import annotations

from space.errors import UserError


class DataError(UserError):
    """Images or labels that are missing, unreadable or contradict each other."""


class TargetError(UserError):
    """A runtime or device that is unknown or not installed here."""


class DamagedError(UserError):
    """A file of ours that was cut short or overwritten."""


class TrainingError(UserError):
    """A training that its own network or recipe ends: trying it again would end the same way."""


class HaltedError(UserError):
    """Work that its surroundings broke off: a disk, memory, files, machines. Nothing finished is lost by it."""


class BusyError(UserError):
    """A network that does not fit into the memory that others leave, and would fit into all of it: no verdict on it."""


class ExportError(UserError):
    """A network that cannot be written as a graph that gives what PyTorch gives."""


class UnmeasuredError(UserError):
    """A network that a target cannot time or run, although it does others."""
