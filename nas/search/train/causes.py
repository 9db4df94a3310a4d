"""Why a training broke: for a reason of its candidate's, which is a verdict, or of its surroundings', which is none.

A loss that is no number, a layer that its batches do not fit and a need for more memory than the machine has are the
candidate's: trying again ends the same way. A full disk, memory that others hold, a file that cannot be read, a node
without the data and a process that was killed say nothing about it: the run halts, and tries again when it goes on. So
does a mistake of ours, which is told as one. A node that is lost says nothing either; others go on with its trainings.
"""

from __future__ import annotations

import re
import resource
import traceback
from dataclasses import dataclass

from nas.errors import BusyError, TrainingError
from nas.host.room import is_shortage, line_of_shortage, resident_bytes, virtual_bytes, whole_bytes
from space.errors import ArchitectureError, UserError

LONGEST = 400
SURROUNDINGS = re.compile(
    r"CUDA error|CUDA driver|cuDNN error|NCCL|NVML|no kernel image|mmap|No space left|Too many open files|"
    r"Input/output error|No such file|file write failed|Permission denied|Connection",
    re.I,
)
ASKED = re.compile(r"allocate ([\d.]+) ?(bytes|[KMGT]iB)", re.I)
UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
CRASH = re.compile(r"Fatal Python error: (?!Bus error)(.+)")
"""What `faulthandler` writes when a process breaks of itself. A bus error is a disk that filled under a mapped file."""
KILLED = re.compile(r"(actor|worker|raylet)\w*( is)? ?(died|crashed|dead|unavailable)|worker process has died", re.I)
"""What Ray says, or calls it, where a process ended and it does not know why."""
LOST = re.compile(r"node has died|node was terminated|node it was running on is dead|node has crashed", re.I)
"""What Ray says of an actor or a task whose node is gone."""
ADDRESS = re.compile(r"\b(?:ip|Node IP): ([0-9A-Fa-f.:]*[0-9A-Fa-f])")
FAULTS = (AssertionError, LookupError, TypeError, AttributeError, NameError)
"""Mistakes of ours, whatever the disk or the candidate is like."""
ROOM = "make room on the disk, or put right what is said there"
FREE = (
    "free memory, or lower `search.concurrent` (on GPUs `search.trials_per_gpu`) or the recipe's `batch_size` in the "
    "run's study.yaml"
)
REJOIN = "have a node join with `ray start --address HOST:PORT`, see `ray status`"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why a training broke."""

    words: str
    """The last line of the exception."""
    advice: str = ""
    """What to do before going on; empty where the candidate is the reason."""
    fault: str = ""
    """The traceback where neither is, but a mistake of ours."""


def cause_of(error: BaseException) -> Cause:
    """The cause that an exception tells of."""
    words = _last_line(error)
    if isinstance(error, (TrainingError, ArchitectureError)):
        return Cause(words=words)
    if isinstance(error, BusyError):
        return Cause(words=words, advice=FREE)
    if is_shortage(error):
        return Cause(words=words) if _is_own_need(error, words) else Cause(words=words, advice=FREE)
    if isinstance(error, FAULTS):
        return Cause(words=words, fault="".join(traceback.format_exception(error)))
    if isinstance(error, UserError) or not isinstance(error, (RuntimeError, ValueError, ArithmeticError)):
        return Cause(words=words, advice=ROOM)
    return Cause(words=words, advice=ROOM if SURROUNDINGS.search(words) else "")


def cause_of_death(told: str, last_words: str, deaths: int) -> Cause:
    """Why a process of Ray's died so many times. `told`: what Ray says of the last time; `last_words`: what
    `faulthandler` wrote.
    """
    if node := lost_node(told):
        return Cause(words=f"{node} that trained it is lost", advice=REJOIN)
    crash = CRASH.search(last_words)
    if crash:
        return Cause(words=f"its process crashed {deaths} times: {crash[1]}")
    if "unavailable" in told:
        words = f"its process died {deaths} times: killed, most often that is for want of memory, or with its node"
        return Cause(words=words, advice=f"see `ray status`, {FREE}")
    if "OutOfMemory" in told:
        return Cause(words="its process was ended since the machine ran out of memory", advice=FREE)
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    if not lines or KILLED.search(told):
        words = f"its process was killed {deaths} times, most often that is for want of memory"
        return Cause(words=words, advice=FREE)
    return Cause(words=lines[-1][-LONGEST:], advice=ROOM)


def lost_node(told: str) -> str:
    """Which node of the cluster is lost, in words, where that is what Ray says of an actor or a task; else empty."""
    if not LOST.search(told):
        return ""
    address = ADDRESS.search(told)
    return f"the cluster's node {address[1]}" if address else "a node of the cluster"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = lines[-1] if lines else ""
    if isinstance(error, UserError):
        return words[:LONGEST]
    words = line_of_shortage(str(error)) or words  # of several lines the one that says so
    return f"{type(error).__name__}: {words}"[:LONGEST]


def _is_own_need(error: BaseException, words: str) -> bool:
    """Whether this process alone would need more memory than there is."""
    found = ASKED.search(words)
    asked = float(found[1].rstrip(".")) * UNITS[found[2].lower()] if found else 0.0
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return torch.cuda.memory_allocated() + asked > 0.95 * whole_bytes("cuda")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and virtual_bytes() + asked > limit:
        return True
    return resident_bytes() + asked > 0.95 * whole_bytes()
