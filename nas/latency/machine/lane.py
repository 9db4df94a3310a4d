"""An exclusive lane on one machine: nothing else of ours computes on a device while something is timed on it.

Every training step is taken inside the context that `shared_on` gives for its device, and so is whatever else computes
for long there (scoring, weighing channels); what computes on the cores alone (exporting a network to be timed) inside
`shared()`; every timing inside `exclusive()`. Processes need not know each other. A timing on the CPU has the whole
machine. One on a GPU has that GPU and a core, which those who train on other GPUs leave free: beside it
are steps and timings on other GPUs, and no other steps, which may take all cores.

Files of the user's own folder under the temporary directory are locked with flock. The first two belong to the machine,
and the same two with its name to each GPU:

    turnstile   everybody passes it; whoever times keeps it shut, so that no new step starts and timing is not starved
    lane        held shared by steps and exclusively by a timing, which thus waits only for the steps under way
    cores, gpus held shared by steps that may take all cores, and by timings on GPUs; whoever enters one of them holds
                the other one for a moment, which thus is empty
    door        who enters either passes it one after the other, so that neither is starved

Whoever takes several takes the machine's, then those between the two kinds, then the GPU's: nobody waits in a circle.

The kernel drops a lock when the process that holds it ends, however it ends: nothing is left to clean up. (A process
that forks without exec while holding a lock shares it with its child; do not start workers inside a training step.)
Steps and timings must not be nested in one another: a timing that comes between would shut the turnstile on the inner
one and wait for the outer one, for ever. A thread that tries is refused. Nor may a step wait for another process, or
thread, that enters one: let that one alone enter.

A process that is suspended in the middle of a step, by Ctrl-Z say, keeps its lock. So whoever waits for long says for
whom.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from nas.latency.machine import gpu as gpus
from nas.latency.machine.device import leave_cores_of

TELL_SECONDS = 60.0  # of waiting, after which it is said for whom
_thread = threading.local()  # whether it is in the lane: a lock that the kernel would let it wait for itself for


def shared_on(device: str, *, timed_on: str = "") -> Callable[[], AbstractContextManager[None]]:
    """Gives the context of every training step on a device: cpu, cuda or cuda:N.

    Those on one of several GPUs run beside timings on the others, to each of which this thread, and those that it
    starts from now on, leave a core. `timed_on`: the only one of them that is timed on, which this process may not see.
    Where no core can be left, or no other GPU is seen, they hold all cores.
    """
    if device == "cpu":
        return shared
    others = (timed_on,) if timed_on else gpus.others(device)
    return functools.partial(shared, gpus.name_of(device) if leave_cores_of(others) else "")


@contextlib.contextmanager
def shared(gpu: str = "") -> Iterator[None]:
    """Runs beside other steps, never beside a timing on the CPU, nor on the same GPU. `gpu`: which one alone it
    computes on, by its name (`nas.latency.machine.gpu.name_of`), leaving a core free; without one it is beside no
    timing at all. Costs a tenth of a millisecond or less when nothing is timed.
    """
    folder = _folder()
    with _once(), contextlib.ExitStack() as lane:
        _enter_beside(lane, folder)
        if gpu:
            _enter_beside(lane, folder, gpu)
        else:
            _enter_either(lane, folder, "cores", "gpus")
        yield


@contextlib.contextmanager
def exclusive(gpu: str = "") -> Iterator[None]:
    """Runs beside no training step and no other timing, or beside none but those on other GPUs; waits for the steps
    under way to end.
    """
    folder = _folder()
    with _once(), contextlib.ExitStack() as lane:
        if gpu:
            _enter_beside(lane, folder)
            _enter_either(lane, folder, "gpus", "cores")
        for name in ("turnstile", "lane"):
            lane.enter_context(_locked(_of(folder, name, gpu), fcntl.LOCK_EX))
        yield


def _enter_beside(lane: contextlib.ExitStack, folder: str, gpu: str = "") -> None:
    with _locked(_of(folder, "turnstile", gpu), fcntl.LOCK_EX):
        lane.enter_context(_locked(_of(folder, "lane", gpu), fcntl.LOCK_SH))


def _enter_either(lane: contextlib.ExitStack, folder: str, one: str, other: str) -> None:
    """Into `one`, beside others that are there, when nobody is in the `other`."""
    with _locked(_of(folder, "door"), fcntl.LOCK_EX), _locked(_of(folder, other), fcntl.LOCK_EX):
        lane.enter_context(_locked(_of(folder, one), fcntl.LOCK_SH))


def _of(folder: str, name: str, gpu: str = "") -> str:
    """A file of the machine's, or of a GPU's."""
    return f"{folder}/{name}-{gpu}" if gpu else f"{folder}/{name}"


@contextlib.contextmanager
def _once() -> Iterator[None]:
    held = _thread.__dict__  # this thread's, also where a generator is closed by another one
    assert "entered" not in held, "steps and timings must not be nested in one another"
    held["entered"] = True
    try:
        yield
    finally:
        del held["entered"]


@contextlib.contextmanager
def _locked(path: str, kind: int) -> Iterator[None]:
    # A fresh open file each time: locks belong to it, so that threads of one process exclude each other as well.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor, kind)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for a child that was forked meanwhile and holds it open
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return
    teller = threading.Timer(TELL_SECONDS, _tell)
    teller.daemon = True
    teller.start()
    try:
        fcntl.flock(descriptor, kind)
    finally:
        teller.cancel()


def _tell() -> None:
    if words := waiting():
        print(words, file=sys.stderr, flush=True)


def name() -> str:
    """What tells the lane of this process from all others, on this machine and elsewhere."""
    boot, folder = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(), os.stat(_folder())
    return f"{boot} {folder.st_dev}:{folder.st_ino}"


def waiting(session: int | None = None) -> str:
    """For whom this process, or one of that session of the operating system, waits; empty when it does not."""
    holders, blocked = _locks()
    if session is not None and not any(_session_of(process) == session for process in blocked):
        return ""
    told = []
    for process in holders:
        folder = Path(f"/proc/{process}")
        with contextlib.suppress(OSError):
            if _session_of(process) == session:
                continue
            words = " ".join(
                folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
            )
            state = folder.joinpath("stat").read_text("utf-8", errors="replace").rpartition(") ")[2][:1]
            stopped = f", which is suspended: `kill -CONT {process}` lets it go on" if state in "Tt" else ""
            told.append(f"process {process} ({words[:80]}){stopped}")
    return f"waiting, so that timings are taken alone, for {' and '.join(told)}" if told else ""


def _session_of(process: int) -> int | None:
    try:
        return os.getsid(process)
    except OSError:
        return None


def _locks() -> tuple[list[int], list[int]]:
    """Other processes that hold one of the locks, and those that wait for one, as the kernel tells (proc_locks(5))."""
    files = set()
    for each in Path(_folder()).iterdir():
        with contextlib.suppress(OSError):
            found = each.stat()
            files.add(f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}")
    try:
        lines = Path("/proc/locks").read_text("utf-8").splitlines()
    except OSError:
        return [], []
    holders: set[int] = set()
    blocked: set[int] = set()
    for line in lines:
        words = line.split()[1:]
        waits = words[:1] == ["->"]
        kind, _, _, process, file = words[waits : waits + 5]
        if kind == "FLOCK" and file in files:
            (blocked if waits else holders).add(int(process))
    return sorted(holders - {os.getpid()}), sorted(blocked)


def _folder() -> str:
    """This user's folder of locks; text, for steps are entered thousands of times, and making a Path takes its time.

    Raises: PermissionError when somebody else has put something in its place.
    """
    folder = f"{tempfile.gettempdir()}/framebudget-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode=0o700)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError(f"{folder} is not a folder of yours alone; remove it or set TMPDIR")
    return folder
