"""Meter: measures architectures on one target in a process of its own.

In a process of its own a candidate is timed with the target's cores and thread pools and nothing else, and a runtime
that crashes ends only that process. It can run on another host: ssh starts it there and carries its lines. For a
runtime that reads ONNX graphs that host needs Python, NumPy and the runtime: the measuring agent is sent there, and
networks are exported here (`nas.latency.worker.sender`). Any other runtime needs this package there. Where the host's
`python3` is not the one that has them, set FRAMEBUDGET_PYTHON there (in `~/.ssh/environment`, or by `SetEnv` in the ssh
configuration here).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from nas.errors import HaltedError, TargetError
from nas.latency import runtimes
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.record import Latency
from nas.latency.scope import scope_of
from nas.latency.target import Target
from nas.latency.worker.connection import Connection
from nas.latency.worker.installed import Installed
from nas.latency.worker.replies import LostError, WorkerError
from nas.latency.worker.sender import Sender
from space import strict
from space.errors import UserError

if TYPE_CHECKING:
    from space.architecture import Architecture

MOST_STRETCHED = 4.0  # times what is waited, for the blocks and repetitions that patience allows
LIMIT_SECONDS = 900.0  # for one network; of waiting for others, so that it is timed alone, an hour does not count here
NOT_FOUND = 127  # what a shell ends with that finds no such program
PYTHON = "install Python 3.10 or later there, and set FRAMEBUDGET_PYTHON there where it is not called python3"


class MeasuresOne(Protocol):
    """What times an architecture, here or elsewhere."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """See `Meter.measure`."""


class Measures(MeasuresOne, Protocol):
    """What times architectures, alone and in turns."""

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """See `Meter.measure_together`."""


class MeasuresFinished(Measures, Protocol):
    """What times finished networks too, whichever form they are deployed in."""

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        """See `Meter.measure_graph`."""


MeterOf = Callable[[Target, tuple[int, int], int], contextlib.AbstractContextManager[MeasuresFinished]]
"""Makes a meter for a target, an input size (H, W) and a number of classes."""


class Way(Protocol):
    """How the process that measures is reached, and what is said to it."""

    advice: str
    """What to check on `{host}` when the process cannot be started there."""

    def connect(self) -> Connection:
        """A process that has been started.

        Raises: TargetError when there is nothing to start it by.
        """

    def set_up(self, connection: Connection, limit_seconds: float) -> dict[str, str]:
        """Have it get ready; what latencies will depend on.

        Raises: UserError when the user can put it right, WorkerError when it died or failed.
        """

    def measure(
        self,
        connection: Connection,
        networks: Sequence[tuple[Architecture, str | None]],
        within: float,
        limit_seconds: float,
    ) -> list[str]:
        """Latencies as YAML (JSON is that too) of architectures, with their weights (safetensors in base64) or without.

        Raises: UserError when the user can put it right, WorkerError when it died or failed.
        """

    def measure_graph(self, connection: Connection, graph: bytes, within: float, limit_seconds: float) -> list[str]:
        """The same of one ONNX graph that gives labels."""


class Meter:
    """Measures architectures on `target` at input `size` (H, W). A context manager that owns one worker process.

    `patience_seconds`: how long to wait, for each network, for a machine that is disturbed.

    A worker that died is replaced at the next measurement; a connection that was lost is made again once, and then the
    same is measured again. Not for use by several threads at once, but for `halt`.

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
        self._worker: Connection | None = None
        self._halted = False
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

        Raises: UserError when the user can put it right, HaltedError when the connection to another host is lost again
        and again, WorkerError when the process died or failed.
        """
        return self._ask([(architecture, weights)], within)[0]

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """Latencies of untrained networks that take turns, so that each meets the machine in the same states.

        Raises: UserError when the user can put it right, WorkerError when the process died or failed.
        """
        return self._ask([(architecture, None) for architecture in architectures], within)

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        """Latency of an ONNX graph from `image` (1, 3, H, W) to labels, such as a quantized network, by a runtime that
        reads graphs. Which labels it gives is not looked at.

        Raises: UserError when the user can put it right, WorkerError when the process died or failed.
        """
        return self._heard(lambda worker, limit: self._way.measure_graph(worker, graph, within, limit), 1)[0]

    def halt(self) -> None:
        """End what another thread measures, which gets a HaltedError, as it does from then on."""
        self._halted = True
        if (worker := self._worker) is not None:
            worker.kill()

    def _ask(self, networks: Sequence[tuple[Architecture, Path | None]], within: float) -> list[Latency]:
        asked = [(architecture, None if path is None else _text_of(path)) for architecture, path in networks]
        found = self._heard(lambda worker, limit: self._way.measure(worker, asked, within, limit), len(asked))
        pairs = zip(found, networks, strict=True)
        return [replace(latency, scope=scope_of(architecture)) for latency, (architecture, _) in pairs]

    def _heard(self, ask: Callable[[Connection, float], list[str]], networks: int) -> list[Latency]:
        try:
            found = self._answers(ask, networks)
        except LostError as error:
            print(f"note    lost the connection to {self.target.host} and makes it again: {error}", file=sys.stderr)
            try:
                found = self._answers(ask, networks)
            except LostError as again:
                raise HaltedError(
                    f"expected to time on {self.target}, but the connection to {self.target.host} was lost, and lost "
                    f"again: {again}; nothing finished is lost: {self._way.advice.format(host=self.target.host)}, then "
                    "try again, a search with --resume"
                ) from again
        latencies = [strict.parse(text, Latency, "the measuring process") for text in found]
        return [replace(latency, target=str(self.target)) for latency in latencies]  # there it is called without a host

    def _answers(self, ask: Callable[[Connection, float], list[str]], networks: int) -> list[str]:
        worker = self._worker or self._start()
        try:
            return ask(worker, self._limit_seconds * networks)
        except LostError:
            self._stop()
            raise
        except WorkerError as error:
            if error.code is None:  # it lives, and failed at this
                raise
            self._stop()
            self._require_going()
            raise WorkerError(
                f"the process measuring on {self.target} {error}", ended=error.ended, code=error.code
            ) from None
        except (UserError, OSError):  # its answer
            raise
        except BaseException:  # interrupted: its answer would be taken for that of the next question
            self._stop()
            raise

    @functools.cached_property
    def _way(self) -> Way:
        asked = self.target, self.size, self.num_classes, self._patience_seconds
        reader = runtimes.reader(self.target)
        return Sender(*asked, reader) if self.target.host and reader else Installed(*asked)

    def _require_going(self) -> None:
        if self._halted:
            raise HaltedError(f"the measuring on {self.target} was ended with the rest")

    def _start(self) -> Connection:
        host = self.target.host
        self._worker = self._way.connect()
        try:
            self._require_going()
            self.environment = self._way.set_up(self._worker, self._limit_seconds)
        except WorkerError as error:
            self._stop()
            self._require_going()
            if not host or (self.environment and isinstance(error, LostError)):  # it did answer before
                raise
            advice = self._way.advice if error.code != NOT_FOUND else PYTHON
            raise TargetError(
                f"{self.target} cannot be timed: the process on {host} {error}; {advice.format(host=host)}"
            ) from None
        except TargetError as error:
            self._stop()
            if not host:
                raise
            raise TargetError(f"{self.target} cannot be timed on {host}: {error}") from None
        except BaseException:
            self._stop()
            raise
        return self._worker

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()


def _text_of(weights: Path) -> str:
    try:
        return base64.b64encode(weights.read_bytes()).decode("ascii")
    except OSError as error:
        raise UserError(
            f"expected weights as safetensors in {weights}: {error.strerror}; train the network first"
        ) from None
