"""Several processes of one machine that do one work together, and end together.

Each has its share (`nas.data.share`), and they tell each other what `nas.training.together` has words for. Where one
ends before its time the others would wait for it for ever: then all are ended, and what the first one said is raised.
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

GRACE_SECONDS = 2.0  # for the others to end too, so that it can be told which one was the first
PATIENCE = datetime.timedelta(days=30)  # with each other: timings and large scorings are waited for


@dataclass(frozen=True, kw_only=True, eq=False)
class _Member:
    """One of the processes, and where it says why it failed."""

    process: SpawnProcess
    said: Connection


@dataclass(frozen=True, kw_only=True, eq=False)
class _Failure:
    """What a process says at its end."""

    at: float
    """time.monotonic(), which all processes share."""
    error: BaseException


def work_together(work: Work, count: int, *, on_gpus: bool) -> None:
    """Do `work` in `count` processes, each with its share, and wait for all; where it is one, here. What `work` holds
    is sent to them. `on_gpus`: each has the GPU of its rank.

    Raises: what the first that failed has raised, if it is a UserError, an OSError or a MemoryError; WorkerError for
    anything else; HaltedError when one was killed.
    """
    if count == 1:
        work(WHOLE)
        return
    with scratch_folder() as folder, _members(work, count, folder / "meeting", on_gpus=on_gpus) as members:
        running = list(members)
        while running:
            wait([member.process.sentinel for member in running])
            codes = [member.process.exitcode for member in running]  # asked for once: one may end between two questions
            if any(codes):
                raise _first_failure(members)
            running = [member for member, code in zip(running, codes, strict=True) if code is None]


@contextlib.contextmanager
def _members(work: Work, count: int, meeting: Path, *, on_gpus: bool) -> Iterator[list[_Member]]:
    """The processes, which end with the context."""
    spawning = multiprocessing.get_context("spawn")  # a GPU cannot be used after a fork
    members: list[_Member] = []
    try:
        for rank in range(count):
            heard, said = spawning.Pipe(duplex=False)
            share = Share(rank=rank, count=count)
            process = spawning.Process(target=_take_part, args=(work, share, meeting, os.getpid(), said, on_gpus))
            with _no_interrupts():
                process.start()
            said.close()
            members.append(_Member(process=process, said=heard))
        yield members
    finally:
        for member in members:
            member.process.kill()
            member.process.join()
            member.said.close()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """What is started inside never hears of Ctrl-C: that is for its parent, which ends all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first_failure(members: Sequence[_Member]) -> BaseException:
    """Why they cannot go on. One that lost another one fails too, which is not the reason."""
    until = time.monotonic() + GRACE_SECONDS
    for member in members:
        member.process.join(max(0.0, until - time.monotonic()))
    failures = sorted((found for member in members if (found := _heard(member))), key=lambda failure: failure.at)
    for failure in failures:
        if not isinstance(failure.error, WorkerError):
            return failure.error
    for rank, member in enumerate(members):
        code = member.process.exitcode or 0
        if code < 0:
            return HaltedError(
                f"process {rank + 1} of {len(members)} was ended by {signal.Signals(-code).name}, for want of memory "
                "perhaps, and the others with it; nothing finished is lost: go on with --resume"
            )
    if failures:
        return failures[0].error
    return WorkerError(f"a process ended with exit codes {[member.process.exitcode for member in members]}")


def _heard(member: _Member) -> _Failure | None:
    with contextlib.suppress(EOFError, OSError):
        if member.said.poll():
            said = member.said.recv()
            assert isinstance(said, _Failure)
            return said
    return None


def _take_part(work: Work, share: Share, meeting: Path, parent: int, said: Connection, on_gpus: bool) -> None:
    """What each process does. They find each other by a file at `meeting`."""
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
        told = error if known else WorkerError("".join(traceback.format_exception(error)))
        said.send(_Failure(at=time.monotonic(), error=told))
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(1)  # to take leave of the others would be to wait for them


def work_in_group(work: Work, share: Share, store: Store, *, on_gpus: bool) -> None:
    """Do `work` as one of the processes that meet at `store`; the first one speaks for all."""
    import torch.distributed as dist

    from nas.training.together import meet

    speak_for_all(share)
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=share.rank, world_size=share.count, timeout=PATIENCE)
    work(share)
    meet(share)
    dist.destroy_process_group()


def speak_for_all(share: Share) -> None:
    """Have the first process tell what all do, and the others nothing but errors."""
    logging.basicConfig(format="%(message)s", level=logging.ERROR if share.rank else logging.WARNING, force=True)
    if not share.rank:
        logging.getLogger("nas").setLevel(logging.INFO)


def interfaces(name: str) -> dict[str, str]:
    """The environment of processes that meet on that network interface only; on `lo` nobody outside this machine can
    join them.
    """
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}  # exactly that one
