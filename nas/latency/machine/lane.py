"""The lane: locks that keep a timing alone on its device, undisturbed by anything else that this package computes.

A holder of the lane is either shared or exclusive. An exclusive holder is a timing. A shared holder is any other work
that computes for long: a training step, a batch that is scored, the ranking of channels, the export of a network.
Shared holders run beside each other; an exclusive holder runs alone on its device. Holders may be in different
processes and need not know of each other.

- `shared_on(device)` gives the context in which work on a device is done: one entry per training step, so that a timing
  waits no longer than that.
- `shared()` is the context of work on CPU cores alone.
- `exclusive()` is the context of a timing. On the CPU it has the whole machine. On a GPU it has that GPU and one core,
  which shared holders on other GPUs leave free: they and timings on other GPUs run beside it, but no shared holder that
  may use all cores.

The locks are files in this user's own folder under the temporary directory, locked with flock. The first two exist
once for the machine and once for each GPU, whose name is then part of theirs:

    turnstile   every holder passes it; an exclusive one keeps it shut, so that no new shared holder enters and timings
                are not starved
    lane        held shared by shared holders and exclusively by an exclusive one, which therefore only waits for shared
                holders that are already inside
    cores, gpus `cores` is held by shared holders that may use all cores, `gpus` by timings on GPUs; to enter one of
                them, a holder locks the other for a moment, which succeeds only while nobody holds it
    door        passed one at a time on the way into `cores` or `gpus`, so that neither is starved

A holder that needs several of them takes those of the machine first, then `cores` or `gpus`, then those of the GPU, so
there is no deadlock.

The kernel drops a lock when the process that holds it ends, however it ends: nothing is left to clean up. (A process
that forks without exec while it holds a lock shares the lock with its child; do not start workers inside the lane.)

A thread must not enter the lane twice: a timing that arrives in between would close the turnstile to the inner entry
and wait forever for the outer one. A thread that tries is refused. Nor may a shared holder wait for another thread or
process that enters the lane: let only that one enter.

A process that is suspended inside the lane, for example by Ctrl-Z, keeps its lock. A process that waits for long
therefore prints which processes it waits for.
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

from nas.host.words import one_line
from nas.latency.machine import gpu as gpus
from nas.latency.machine.device import leave_cores_of
from nas.storage.locks import lock_under_tmpdir

TELL_SECONDS = 60.0  # of waiting, after which the processes that hold the lane are printed
_thread = threading.local()  # whether this thread is in the lane: the kernel would let it wait for itself


def shared_on(device: str, *, timed_on: str = "") -> Callable[[], AbstractContextManager[None]]:
    """Returns a function that makes the context for a piece of work on a device: `cpu`, `cuda` or `cuda:N`.

    Work on one of several GPUs runs beside timings on the others. To allow that, the calling thread and threads that it
    starts from now on leave one core free for each of the others. `timed_on`: the only other GPU that timings run on,
    if known; this process need not see it. If no core can be left free or no other GPU is visible, the work holds all
    cores.
    """
    if device == "cpu":
        return shared
    others = (timed_on,) if timed_on else gpus.others(device)
    return functools.partial(shared, gpus.name_of(device) if leave_cores_of(others) else "")


@contextlib.contextmanager
def shared(gpu: str = "") -> Iterator[None]:
    """Hold the lane beside other shared holders, but not beside a timing on the CPU or on the same GPU.

    `gpu`: name (`nas.latency.machine.gpu.name_of`) of the only GPU that the work uses while it leaves a core free;
    without it, the work runs beside no timing at all. Costs at most a tenth of a millisecond when nothing is timed.
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
    """Hold the lane alone: on the whole machine, or on the GPU named `gpu` and a core. Waits for holders that are
    already inside to leave.
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
    """Enter `one`, beside others that hold it, once nobody holds the `other`."""
    with _locked(_of(folder, "door"), fcntl.LOCK_EX), _locked(_of(folder, other), fcntl.LOCK_EX):
        lane.enter_context(_locked(_of(folder, one), fcntl.LOCK_SH))


def _of(folder: str, name: str, gpu: str = "") -> str:
    """Path of a lock of the machine, or of a GPU."""
    return f"{folder}/{name}-{gpu}" if gpu else f"{folder}/{name}"


@contextlib.contextmanager
def _once() -> Iterator[None]:
    held = _thread.__dict__  # looked up here: another thread may close the generator
    assert "entered" not in held, "a thread must not enter the lane twice: shared and exclusive cannot be nested"
    held["entered"] = True
    try:
        yield
    finally:
        del held["entered"]


@contextlib.contextmanager
def _locked(path: str, kind: int) -> Iterator[None]:
    # Opened anew each time: a lock belongs to the open file, so that threads of one process exclude each other as well.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor, kind)
        yield
    finally:
        with contextlib.suppress(OSError):  # without locks, none is held
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile still has it open
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> None:
    with contextlib.suppress(BlockingIOError):
        lock_under_tmpdir(descriptor, kind | fcntl.LOCK_NB)
        return
    teller = threading.Timer(TELL_SECONDS, _tell)
    teller.daemon = True
    teller.start()
    try:
        lock_under_tmpdir(descriptor, kind)
    finally:
        teller.cancel()


def _tell() -> None:
    if words := awaited():
        print(words, file=sys.stderr, flush=True)


def name() -> str:
    """An identifier of this process's lane, unlike that of any other lane on this machine or elsewhere."""
    boot, folder = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(), os.stat(_folder())
    return f"{boot} {folder.st_dev}:{folder.st_ino}"


def awaited(session: int | None = None) -> str:
    """Which processes this one, or one in a session of the operating system, waits for, in words; empty if for none."""
    holders, blocked = _locks()
    if session is not None and not any(_session_of(process) == session for process in blocked):
        return ""
    found = []
    for process in holders:
        folder = Path(f"/proc/{process}")
        with contextlib.suppress(OSError):
            if _session_of(process) == session:
                continue
            command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = folder.joinpath("stat").read_text("utf-8", errors="replace").rpartition(") ")[2][:1]
            stopped = f", which is suspended: `kill -CONT {process}` lets it go on" if state in "Tt" else ""
            found.append(f"process {process} ({one_line(command, 80)}){stopped}")
    return f"timings run alone: waiting for {' and '.join(found)}" if found else ""


def _session_of(process: int) -> int | None:
    try:
        return os.getsid(process)
    except OSError:
        return None


def _locks() -> tuple[list[int], list[int]]:
    """Other processes that hold one of the locks, and processes that wait for one, from /proc/locks (proc_locks(5))."""
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
    """This user's folder of locks, as text: it is needed for thousands of training steps, and making a Path takes time.

    Raises: PermissionError when its place is taken by something that other users can write to.
    """
    folder = f"{tempfile.gettempdir()}/framebudget-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode=0o700)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError(f"expected {folder} to be a folder that only you can write to; remove it or set TMPDIR")
    return folder
