"""Meter: measures architectures on one target, in a separate process.

In a process of its own, a candidate is timed with the target's cores and thread pools and nothing else, and a runtime
that crashes ends only that process. The process can run on another host: ssh starts it there and carries requests and
replies. A runtime that reads ONNX graphs on a CPU needs only Python, NumPy and its own library on that host: the
measuring agent is sent there, and networks are exported here (`nas.latency.worker.sender`). Other runtimes need this
package there. If the host's `python3` is not the one with these packages, set FRAMEBUDGET_PYTHON there (in
`~/.ssh/environment`, or with `SetEnv` in the ssh configuration here).
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

MOST_STRETCHED = 4.0  # seconds added to the limit per second of patience beyond the default, for more blocks
LIMIT_SECONDS = 900.0  # for one network; on this machine up to an hour of waiting to be alone does not count
NOT_FOUND = 127  # exit code of a shell that does not find a program
PYTHON = "install Python 3.10 or later there, and set FRAMEBUDGET_PYTHON there if it is not called python3"


class MeasuresOne(Protocol):
    """Times an architecture, here or elsewhere."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """See `Meter.measure`."""


class Measures(MeasuresOne, Protocol):
    """Times architectures, alone and in turns."""

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """See `Meter.measure_together`."""


class MeasuresFinished(Measures, Protocol):
    """Times finished networks too, in whichever form they are deployed."""

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        """See `Meter.measure_graph`."""


MeterOf = Callable[[Target, tuple[int, int], int], contextlib.AbstractContextManager[MeasuresFinished]]
"""Makes a meter for a target, an input size (H, W) and a number of classes."""


class Way(Protocol):
    """How the measuring process is started, and the requests that it understands."""

    advice: str
    """What to check if the process cannot be started on `{host}`."""

    def connect(self) -> Connection:
        """Start the process.

        Raises: TargetError when the program that starts it is missing.
        """

    def set_up(self, connection: Connection, limit_seconds: float) -> dict[str, str]:
        """Have the process get ready. Returns the environment that latencies will depend on.

        Raises: UserError when the user can correct the cause; WorkerError when the process died or failed.
        """

    def measure(
        self,
        connection: Connection,
        networks: Sequence[tuple[Architecture, str | None]],
        within: float,
        limit_seconds: float,
    ) -> list[str]:
        """Latencies, as YAML or JSON, of architectures with their weights (safetensors in base64) or without.

        Raises: UserError when the user can correct the cause; WorkerError when the process died or failed.
        """

    def measure_graph(self, connection: Connection, graph: bytes, within: float, limit_seconds: float) -> list[str]:
        """The same for one ONNX graph that outputs labels."""


class Meter:
    """Measures architectures on `target` at input `size` (H, W). A context manager that owns one worker process.

    `patience_seconds`: how long to wait, per network, until the machine is undisturbed.

    A worker that died is replaced at the next measurement. A lost connection is established again once, and the same
    networks are measured again. Not thread-safe, except for `halt`.

    Raises: TargetError on entering when the target cannot be timed here; the message says what to change.
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
        self.environment: dict[str, str] = {}  # device, versions and threads, once the process runs

    def __enter__(self) -> Self:
        runtimes.load(self.target)  # a wrong name is found without a process
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """Latency of `architecture` with its trained `weights` (safetensors), or with untrained ones.

        `within`: the requested half of its 95 % interval, as a share of the latency. Nothing else of this package runs
        on the device meanwhile: do not call this inside the lane (`nas.latency.machine.lane`).

        Raises: UserError when the user can correct the cause; HaltedError when the connection to another host is lost
        twice; WorkerError when the process died or failed.
        """
        return self._ask([(architecture, weights)], within)[0]

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """Latencies of untrained networks that take turns, so that each is timed in the same states of the machine.

        Raises: as `measure`.
        """
        return self._ask([(architecture, None) for architecture in architectures], within)

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        """Latency of an ONNX graph from `image` (1, 3, H, W) to labels, such as a quantized network, on a runtime that
        reads graphs. The labels are not checked.

        Raises: as `measure`.
        """
        return self._latencies(lambda worker, limit: self._way.measure_graph(worker, graph, within, limit), 1)[0]

    def halt(self) -> None:
        """End a measurement of another thread; from then on every measurement raises HaltedError."""
        self._halted = True
        if (worker := self._worker) is not None:
            worker.kill()

    def _ask(self, networks: Sequence[tuple[Architecture, Path | None]], within: float) -> list[Latency]:
        sent = [(architecture, None if path is None else _text_of(path)) for architecture, path in networks]
        found = self._latencies(lambda worker, limit: self._way.measure(worker, sent, within, limit), len(sent))
        pairs = zip(found, networks, strict=True)
        return [replace(latency, scope=scope_of(architecture)) for latency, (architecture, _) in pairs]

    def _latencies(self, ask: Callable[[Connection, float], list[str]], networks: int) -> list[Latency]:
        try:
            found = self._answers(ask, networks)
        except LostError as error:
            print(f"note: lost the connection to {self.target.host}, connecting again: {error}", file=sys.stderr)
            try:
                found = self._answers(ask, networks)
            except LostError as again:
                raise HaltedError(
                    f"expected to time on {self.target}, but the connection to {self.target.host} was lost twice: "
                    f"{again}; nothing finished is lost: {self._way.advice.format(host=self.target.host)}, then try "
                    "again, a search with --resume"
                ) from again
        latencies = [strict.parse(text, Latency, "the measuring process") for text in found]
        return [replace(latency, target=str(self.target)) for latency in latencies]  # there it has no host

    def _answers(self, ask: Callable[[Connection, float], list[str]], networks: int) -> list[str]:
        worker = self._worker or self._start()
        try:
            return ask(worker, self._limit_seconds * networks)
        except LostError:
            self._stop()
            raise
        except WorkerError as error:
            if error.code is None:  # the process lives, only this request failed
                raise
            self._stop()
            self._require_going()
            raise WorkerError(
                f"the process measuring on {self.target} {error}", ended=error.ended, code=error.code
            ) from None
        except (UserError, OSError):  # an answer like any other
            raise
        except BaseException:  # interrupted: its answer would be taken for that of the next request
            self._stop()
            raise

    @functools.cached_property
    def _way(self) -> Way:
        options = self.target, self.size, self.num_classes, self._patience_seconds
        reader = runtimes.reader(self.target)
        return Sender(*options, reader) if self.target.host and reader else Installed(*options)

    def _require_going(self) -> None:
        if self._halted:
            raise HaltedError(f"measuring on {self.target} was ended with the rest")

    def _start(self) -> Connection:
        host = self.target.host
        self._worker = self._way.connect()
        try:
            self._require_going()
            self.environment = self._way.set_up(self._worker, self._limit_seconds)
        except WorkerError as error:
            self._stop()
            self._require_going()
            if not host or (self.environment and isinstance(error, LostError)):  # it worked before
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
