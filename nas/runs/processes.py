"""Several processes on one machine that train together and end together.

Each has its share (`nas.data.share`) and communicates with the others through `nas.training.together`. If one ended
early, the others would wait for it forever: all are ended then, and the error of the first that failed is raised.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.share import WHOLE, Share
from nas.errors import HaltedError
from nas.host.parent import end_with
from nas.latency.worker.replies import WorkerError
from nas.storage.scratch import scratch_folder
from space.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

Work = Callable[[Share], None]

GRACE_SECONDS = 2.0  # for the others to end too, so that the first failure can be found
PATIENCE = datetime.timedelta(days=30)  # timeout of collective operations; some wait for timings or long scoring


@dataclass(frozen=True, kw_only=True, eq=False)
class _Member:
    """One of the processes, and the pipe through which it reports a failure."""

    process: SpawnProcess
    reports: Connection


@dataclass(frozen=True, kw_only=True, eq=False)
class _Failure:
    """The error that ended a process."""

    at: float
    """Time of the failure by time.monotonic(), which all processes share."""
    error: BaseException


def work_together(work: Work, count: int, *, on_gpus: bool) -> None:
    """Run `work` in `count` processes, each with its share, and wait for all; a single one runs in this process. `work`
    is pickled for them. `on_gpus`: each process uses the GPU of its rank.

    Raises: the error of the first process that failed, if it is a UserError, an OSError or a MemoryError; WorkerError
    for any other error; HaltedError when a process was killed.
    """
    if count == 1:
        work(WHOLE)
        return
    with scratch_folder() as folder, _members(work, count, folder / "meeting", on_gpus=on_gpus) as members:
        running = list(members)
        while running:
            wait([member.process.sentinel for member in running])
            codes = [member.process.exitcode for member in running]  # read once: a process may end at any moment
            if any(codes):
                raise _first_failure(members)
            running = [member for member, code in zip(running, codes, strict=True) if code is None]


@contextlib.contextmanager
def _members(work: Work, count: int, meeting: Path, *, on_gpus: bool) -> Iterator[list[_Member]]:
    """The processes, which are ended with the context."""
    spawning = multiprocessing.get_context("spawn")  # a GPU cannot be used after a fork
    members: list[_Member] = []
    try:
        for rank in range(count):
            receiver, sender = spawning.Pipe(duplex=False)
            share = Share(rank=rank, count=count)
            process = spawning.Process(target=_take_part, args=(work, share, meeting, os.getpid(), sender, on_gpus))
            with _no_interrupts():
                process.start()
            sender.close()
            members.append(_Member(process=process, reports=receiver))
        yield members
    finally:
        for member in members:
            member.process.kill()
            member.process.join()
            member.reports.close()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C, which is for their parent: it ends them all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first_failure(members: Sequence[_Member]) -> BaseException:
    """The error that ended the work. Processes that fail only because they lost another one are not the cause."""
    until = time.monotonic() + GRACE_SECONDS
    for member in members:
        member.process.join(max(0.0, until - time.monotonic()))
    reported = (failure for member in members if (failure := _reported_failure(member)))
    failures = sorted(reported, key=lambda failure: failure.at)
    for failure in failures:
        if not isinstance(failure.error, WorkerError):
            return failure.error
    for rank, member in enumerate(members):
        code = member.process.exitcode or 0
        if code < 0:
            return HaltedError(
                f"process {rank + 1} of {len(members)} was ended by {signal.Signals(-code).name}, perhaps for lack of "
                "memory, and the others with it; nothing finished is lost: go on with --resume"
            )
    if failures:
        return failures[0].error
    return WorkerError(f"a process ended with exit codes {[member.process.exitcode for member in members]}")


def _reported_failure(member: _Member) -> _Failure | None:
    with contextlib.suppress(EOFError, OSError):
        if member.reports.poll():
            failure = member.reports.recv()
            assert isinstance(failure, _Failure)
            return failure
    return None


def _take_part(work: Work, share: Share, meeting: Path, parent: int, reports: Connection, on_gpus: bool) -> None:
    """The main function of each process. The processes find each other through a file at `meeting`."""
    end_with(parent)
    os.environ |= interfaces("lo")
    try:
        import torch
        from torch.distributed import FileStore  # type: ignore[attr-defined]

        if on_gpus:
            torch.cuda.set_device(share.rank)
        work_in_group(work, share, FileStore(str(meeting), share.count), on_gpus=on_gpus)
    except BaseException as error:
        known = isinstance(error, (UserError, OSError, MemoryError))
        sent = error if known else WorkerError("".join(traceback.format_exception(error)))
        reports.send(_Failure(at=time.monotonic(), error=sent))
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(1)  # an orderly exit would wait for the other processes


def work_in_group(work: Work, share: Share, store: Store, *, on_gpus: bool) -> None:
    """Run `work` as one of the processes that meet at `store`; only the first process logs progress."""
    import torch.distributed as dist

    from nas.training.together import meet

    speak_for_all(share)
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=share.rank, world_size=share.count, timeout=PATIENCE)
    work(share)
    meet(share)
    dist.destroy_process_group()


def speak_for_all(share: Share) -> None:
    """Let the first process log progress for all, and the others only errors."""
    logging.basicConfig(format="%(message)s", level=logging.ERROR if share.rank else logging.WARNING, force=True)
    if not share.rank:
        logging.getLogger("nas").setLevel(logging.INFO)


def interfaces(name: str) -> dict[str, str]:
    """Environment variables for processes that communicate over one network interface only; over `lo` no other machine
    can join them.
    """
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}  # "=": an exact name, not a prefix
