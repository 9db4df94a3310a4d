"""Meter: measures architectures on one target in a process of its own.

In a process of its own a candidate is timed with the target's cores and thread pools and nothing else, and a runtime
that crashes ends only that process. The same process can run on another host: ssh starts it there and carries its
lines. That host needs this package; where its `python3` is not the one that has it, set FRAMEBUDGET_PYTHON there (in
`~/.ssh/environment`, or by `SetEnv` in the ssh configuration here).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from nas.latency import runtimes
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.latency.worker.replies import PROGRAM, WorkerError, accept
from space import strict
from space.errors import TargetError, UserError

if TYPE_CHECKING:
    from space.architecture import Architecture

MOST_STRETCHED = 4.0  # times what is waited, for the blocks and repetitions that patience allows
LIMIT_SECONDS = 900.0  # for one network, the wait for training steps to end included
# No questions; a host that is not there is told after 10 s, and a connection that has dropped after 15 s.
SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3")


class MeasuresOne(Protocol):
    """What times an architecture, here or elsewhere."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """See `Meter.measure`."""


class Measures(MeasuresOne, Protocol):
    """What times architectures, alone and in turns."""

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """See `Meter.measure_together`."""


MeterOf = Callable[[Target, tuple[int, int], int], contextlib.AbstractContextManager[Measures]]
"""Makes a meter for a target, an input size (H, W) and a number of classes."""


class Meter:
    """Measures architectures on `target` at input `size` (H, W). A context manager that owns one worker process.

    `patience_seconds`: how long to wait, for each network, for a machine that is disturbed.

    A worker that died is replaced at the next measurement. Not for use by several threads at once.

    Raises: TargetError when it is entered and the target cannot be timed here; the message says what to change.
    """

    def __init__(
        self,
        target: Target,
        size: tuple[int, int],
        num_classes: int,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        limit_seconds: float = LIMIT_SECONDS,
    ) -> None:
        self.target = target
        self.size = size
        self.num_classes = num_classes
        self._patience_seconds = patience_seconds
        self._limit_seconds = limit_seconds + MOST_STRETCHED * max(0.0, patience_seconds - PATIENCE_SECONDS)
        self._worker: _Worker | None = None
        self.environment: dict[str, str] = {}  # device, versions and threads, known when the process runs

    def __enter__(self) -> Self:
        runtimes.load(self.target)  # a wrong name needs no process
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """Latency of `architecture` with its trained `weights` (safetensors), or with untrained ones.

        `within` is the half of its 95 % interval, as a share of it, that is asked for. Nothing of ours trains on this
        machine meanwhile (`nas.latency.machine.lane`): do not call it inside a training step.

        Raises: UserError when the user can put it right, WorkerError when the process died or failed.
        """
        return self._ask([(architecture, weights)], within)[0]

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """Latencies of untrained networks that take turns, so that each meets the machine in the same states.

        Raises: UserError when the user can put it right, WorkerError when the process died or failed.
        """
        return self._ask([(architecture, None) for architecture in architectures], within)

    def _ask(self, networks: Sequence[tuple[Architecture, Path | None]], within: float) -> list[Latency]:
        worker = self._worker or self._start()
        asked = [
            {"architecture": architecture.to_yaml(), "weights": None if path is None else _text_of(path)}
            for architecture, path in networks
        ]
        try:
            worker.say({"networks": asked, "within": within})
            reply = worker.hear(self._limit_seconds * len(networks))
        except WorkerError as error:
            self._stop()
            raise WorkerError(f"the process measuring on {self.target} {error}", ended=error.ended) from None
        except BaseException:  # interrupted: its answer would be taken for that of the next question
            self._stop()
            raise
        latencies = [strict.parse(text, Latency, "the measuring process") for text in accept(reply)["latencies"]]
        return [replace(latency, target=str(self.target)) for latency in latencies]  # there it is called without a host

    def _start(self) -> _Worker:
        size = [str(length) for length in self.size]
        self._worker = _Worker(self.target, [*size, str(self.num_classes), str(self._patience_seconds)])
        try:
            started = accept(self._worker.hear(self._limit_seconds))
        except WorkerError as error:
            self._stop()
            if not self.target.host:
                raise
            raise TargetError(
                f"{self.target} cannot be timed: the process on {self.target.host} {error}; check that "
                f"`ssh {self.target.host} python3 -m nas.latency.worker` finds this package there (FRAMEBUDGET_PYTHON "
                "names another python3), and that ssh asks for no password"
            ) from None
        except BaseException:
            self._stop()
            raise
        there = started.get("program", "an earlier version")
        if there != PROGRAM:
            self._stop()
            raise TargetError(
                f"{self.target} cannot be timed: {self.target.host} has {there}, this is {PROGRAM}, whose latencies do "
                "not compare; install the same there"
            )
        self.environment = dict(started["environment"])
        return self._worker

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()


class _Worker:
    """The process and its pipes."""

    def __init__(self, target: Target, arguments: list[str]) -> None:
        # -P: what lies about in the current folder is no module of ours (random.py, onnx.py)
        words = ["-P", "-m", "nas.latency.worker", str(target.on_its_host()), *arguments]
        if target.host:
            # The words are joined by spaces and read by a shell over there; none of them needs quoting.
            options = [word for option in SSH_OPTIONS for word in ("-o", option)]
            command = ["ssh", *options, target.host, "${FRAMEBUDGET_PYTHON:-python3}", *words]
        else:
            command = [sys.executable, *words]
        source = str(Path(__file__).parents[2])  # the worker runs this very code, however it was imported here
        # An empty entry is the current folder: PYTHONPATH=$PYTHONPATH:/more makes one by accident.
        paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._words = os.fdopen(os.memfd_create("words"), "w+b")  # a pipe nobody reads would block the worker
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for us, who then end it
            )
        except FileNotFoundError:
            raise TargetError(f"{target} cannot be timed: there is no {command[0]} here; install it") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout

    def say(self, request: dict[str, Any]) -> None:
        """Ask.

        Raises: WorkerError when the process has died.
        """
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except BrokenPipeError:
            raise self._died() from None

    def hear(self, limit_seconds: float) -> dict[str, Any]:
        """The reply.

        Raises: WorkerError when the process died, or gave none within `limit_seconds` and was therefore ended.
        """
        ready, _, _ = select.select([self._replies], [], [], limit_seconds)
        if not ready:
            self._process.kill()
            raise self._died(f"gave no answer within {limit_seconds:.0f} s and was ended")
        line = self._replies.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def stop(self) -> None:
        """Close its requests, on which it ends; end it when it does not."""
        with contextlib.suppress(BrokenPipeError):  # it is gone, and a request was still on its way
            self._requests.close()
        try:
            self._process.wait(timeout=5 if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:  # in the middle of a measurement
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._words.close()

    def _died(self, how: str = "") -> WorkerError:
        code = self._process.wait()
        self._words.seek(0)
        last = self._words.read()[-2000:].decode(errors="replace").strip()
        ended = code == -signal.SIGKILL and not how  # not by us
        how = how or (f"was killed by signal {-code}" if code < 0 else f"ended with code {code}")
        return WorkerError(f"{how}; its last words: {last or '(none)'}", ended=ended)


def _text_of(weights: Path) -> str:
    try:
        return base64.b64encode(weights.read_bytes()).decode("ascii")
    except OSError as error:
        raise UserError(
            f"expected weights as safetensors in {weights}: {error.strerror}; train the network first"
        ) from None
