"""Finds out why a training failed: because of its candidate, which is a verdict on it, or because of its surroundings.

A loss of NaN, a layer that its batches do not fit and a need for more memory than the machine has are faults of the
candidate: trying again would end the same way. A full disk, memory held by other processes, a file that cannot be read,
a node without the data and a killed process say nothing about the candidate: the run halts, and trains it again when it
is resumed. A bug in this program halts the run too, and is reported with its traceback. A lost node says nothing about
the candidate either; other nodes go on with its trainings.
"""

from __future__ import annotations

import re
import resource
import traceback
from dataclasses import dataclass

from nas.errors import BusyError, TrainingError
from nas.host.room import is_shortage, line_of_shortage, resident_bytes, virtual_bytes, whole_bytes
from nas.host.words import counted
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
"""What `faulthandler` writes when a process crashes. A bus error is left out: a disk filled up under a mapped file."""
KILLED = re.compile(r"(actor|worker|raylet)\w*( is)? ?(died|crashed|dead|unavailable)|worker process has died", re.I)
"""Words or error names of Ray for a process that ended for an unknown reason."""
LOST = re.compile(r"node has died|node was terminated|node it was running on is dead|node has crashed", re.I)
"""Words of Ray for an actor or a task whose node is gone."""
ADDRESS = re.compile(r"\b(?:ip|Node IP): ([0-9A-Fa-f.:]*[0-9A-Fa-f])")
FAULTS = (AssertionError, LookupError, TypeError, AttributeError, NameError)
"""Exceptions that are bugs in this program, whatever the state of the disk or the candidate."""
ROOM = "make room on the disk, or fix that error"
FREE = (
    "free memory, or lower `search.concurrent` (on GPUs `search.trials_per_gpu`) or the recipe's `batch_size` in the "
    "run's study.yaml"
)
REJOIN = "have a node join with `ray start --address HOST:PORT`, see `ray status`"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why a training failed."""

    words: str
    """The last line of the exception."""
    advice: str = ""
    """What to do before resuming the run; empty where the candidate is the reason."""
    fault: str = ""
    """The traceback, where the reason is a bug in this program."""


def cause_of(error: BaseException) -> Cause:
    """The cause behind an exception."""
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


def cause_of_death(ray_message: str, last_words: str, deaths: int) -> Cause:
    """Why a worker process of Ray died `deaths` times. `ray_message` is Ray's message about the last death, and
    `last_words` what `faulthandler` wrote.
    """
    if node := lost_node(ray_message):
        return Cause(words=f"{node} that trained it is lost", advice=REJOIN)
    crash = CRASH.search(last_words)
    if crash:
        return Cause(words=f"its process crashed {counted(deaths, 'time')}: {crash[1]}")
    if "unavailable" in ray_message:
        died = f"its process died {counted(deaths, 'time')}"
        words = f"{died}: it was killed, most often for lack of memory, or with its node"
        return Cause(words=words, advice=f"see `ray status`, {FREE}")
    if "OutOfMemory" in ray_message:
        return Cause(words="its process was killed because the machine ran out of memory", advice=FREE)
    lines = [line.strip() for line in ray_message.splitlines() if line.strip()]
    if not lines or KILLED.search(ray_message):
        words = f"its process was killed {counted(deaths, 'time')}, most often for lack of memory"
        return Cause(words=words, advice=FREE)
    return Cause(words=lines[-1][-LONGEST:], advice=ROOM)


def lost_node(ray_message: str) -> str:
    """Names the lost node of the cluster, where Ray's message says that one is lost; else empty."""
    if not LOST.search(ray_message):
        return ""
    address = ADDRESS.search(ray_message)
    return f"the cluster's node {address[1]}" if address else "a node of the cluster"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = lines[-1] if lines else ""
    if isinstance(error, UserError):
        return words[:LONGEST]
    words = line_of_shortage(str(error)) or words  # the line about memory may not be the last
    return f"{type(error).__name__}: {words}"[:LONGEST]


def _is_own_need(error: BaseException, words: str) -> bool:
    """Whether this process alone would need more memory than the machine has."""
    found = ASKED.search(words)
    asked = float(found[1].rstrip(".")) * UNITS[found[2].lower()] if found else 0.0
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return torch.cuda.memory_allocated() + asked > 0.95 * whole_bytes("cuda")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and virtual_bytes() + asked > limit:
        return True
    return resident_bytes() + asked > 0.95 * whole_bytes()
