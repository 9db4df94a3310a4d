"""Runtimes: one file each, found by its name. A new runtime is a new file here, nothing else.

Another package can bring one too: a module of it, named by an entry point of the group `framebudget.runtimes`
(`space.extensions`). A runtime is a module with

    PRECISIONS: dict[str, tuple[str, ...]]     kind of device ("cpu", "cuda") -> precisions it runs there
    available(target) -> str | None            None when it can run here, else what to install or change
    versions() -> dict[str, str]               versions of the libraries that do the work
    settle(target)                             what a process that only measures does first, once
    prepare(network, image, target) -> call    call() -> labels (1, H, W); one call is what is timed
    WATCH: Watch (optional)                    how time passes on it, where that is not the time of this machine
    NOTE: str (optional)                       what else to know of it, in a few words

A runtime that reads ONNX graphs also has

    LIBRARY: str                               the library that reads them, named in `versions` with its __version__
    open_graph(graph, image, target) -> call   call() -> labels (1, H, W) as a NumPy array, of a graph (bytes) whose
                                               output they are, and an image (1, 3, H, W) float32 as a NumPy array
    hold_graph(graph, image, target) -> call   on a GPU: what is timed, for an image that lies there already, where
                                               `open_graph` brings it there and the labels back in every call

and a `prepare` that exports the network and calls `open_graph` or `hold_graph`. Over ssh such a runtime on a CPU needs
nothing of ours on the other host: its module is sent there (`nas.latency.worker.parcel`), `settle` and `open_graph` are
called there, and what the module imports at its top is the standard library, NumPy and `nas.latency.target` only.

`prepare` holds `image` (1, 3, H, W) statically, includes upsampling and arg-max, and `call` returns only when the
labels exist (it synchronises with the device). No runtime imports its heavy library before it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from nas.errors import TargetError
from nas.latency.machine import device
from nas.latency.machine.watch import THIS_MACHINE, Watch
from nas.latency.target import Target
from space import extensions
from space.errors import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

GROUP = "framebudget.runtimes"
NEEDS = ("PRECISIONS", "available", "versions", "settle", "prepare")
NEEDS_FOR_GRAPHS = ("LIBRARY", "open_graph")
FIRST = {"cpu": "cpu", "cuda": "cuda:0"}  # device of each kind


class GraphRuntime(Protocol):
    """What a runtime that reads ONNX graphs offers, on a host that has nothing of ours too."""

    LIBRARY: str

    def settle(self, target: Target) -> None:
        """See `Runtime`."""

    def open_graph(self, graph: bytes, image: NDArray[np.float32], target: Target) -> Callable[[], NDArray[Any]]:
        """The timed call: from the held image (1, 3, H, W) to labels (1, H, W), by the graph."""


class Runtime(Protocol):
    """What every runtime offers."""

    PRECISIONS: dict[str, tuple[str, ...]]

    def available(self, target: Target) -> str | None:
        """None when `target` can be timed here, else what is missing and how to get it."""

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that do the work."""

    def settle(self, target: Target) -> None:
        """What a process that only measures on `target` does once, before anything is prepared."""

    def prepare(self, network: nn.Module, image: Tensor, target: Target) -> Callable[[], Tensor]:
        """The timed call: from the held image to labels (1, H, W)."""


def names() -> tuple[str, ...]:
    """Every runtime that could be asked for, its library installed or not; the file a_b.py is the runtime a-b."""
    return tuple(extensions.modules(__name__, GROUP))


def targets(name: str) -> tuple[Target, ...]:
    """Every precision of a runtime, on the first device of each kind that it knows; they need not be there.

    Raises: UserError when there is no such runtime, or another package's cannot be imported.
    """
    offers = _module(name).PRECISIONS.items()
    return tuple(
        Target(runtime=name, precision=each, device=FIRST[kind]) for kind, precisions in offers for each in precisions
    )


def load(target: Target) -> Runtime:
    """The runtime of `target`, which may still be missing its library (see `available`).

    Raises: TargetError when there is no such runtime, or it does not run at that precision on that device; UserError
    when another package's cannot be imported.
    """
    runtime = _module(target.runtime)
    kind = target.device.partition(":")[0]
    if target.precision not in runtime.PRECISIONS.get(kind, ()):
        offers = [f"{target.runtime}:{p}@{device}" for device, ps in runtime.PRECISIONS.items() for p in ps]
        raise TargetError(
            f"{target.runtime} does not run {target.precision} on {kind}; choose one of {', '.join(offers)}"
        )
    return runtime


def _module(name: str) -> Runtime:
    if name not in names():
        raise TargetError(f"expected a runtime of {', '.join(names())}, got {name!r}; {nearest(name, names())}")
    return cast(Runtime, extensions.load(__name__, GROUP, name, needs=NEEDS))


def require(target: Target) -> Runtime:
    """The runtime of `target`, ready to run here.

    Raises: TargetError when it is unknown or not installed, or the device is absent; the message says what to do.
    """
    runtime = load(target)
    missing = runtime.available(target)
    if missing is not None:
        raise TargetError(f"{target} cannot be timed here: {missing}")
    target.thread_count()
    return runtime


def require_one(targets: Sequence[Target]) -> None:
    """Refuse targets of which none can be timed here, before anything that takes long; what other hosts can do is not
    known before they are asked.

    Raises: TargetError as `require` does, for the first of them.
    """
    refused: list[TargetError] = []
    for target in targets:
        try:
            if not target.host:
                require(target)
            return
        except TargetError as error:
            refused.append(error)
    raise refused[0]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Where a runtime that reads ONNX graphs is, and what it needs."""

    module: str
    """Of the runtime, such as `nas.latency.runtimes.onnxruntime`."""
    library: str
    """That reads them, such as `onnxruntime`."""


def reads_graphs(target: Target) -> bool:
    """Whether the runtime of `target` reads ONNX graphs.

    Raises: TargetError and UserError as `load` does.
    """
    runtime = load(target)
    return all(hasattr(runtime, each) for each in NEEDS_FOR_GRAPHS)


def reader(target: Target) -> Reader | None:
    """What reads ONNX graphs on `target` where nothing else of ours is; None where its runtime does not, or on a GPU.

    Raises: TargetError and UserError as `load` does.
    """
    if target.on_cuda or not reads_graphs(target):
        return None
    library = cast(GraphRuntime, load(target)).LIBRARY
    return Reader(module=extensions.modules(__name__, GROUP)[target.runtime], library=library)


def timed_graph(runtime: GraphRuntime) -> Callable[[bytes, NDArray[np.float32], Target], Callable[[], object]]:
    """What opens a graph to be timed: the call that it gives leaves labels on the device."""
    found: Callable[[bytes, NDArray[np.float32], Target], Callable[[], object]]
    found = getattr(runtime, "hold_graph", runtime.open_graph)
    return found


def environment(target: Target) -> dict[str, str]:
    """What a latency on `target` depends on: the device, precision and threads, and the versions of the runtime."""
    return device.describe(target) | load(target).versions()


def watch(runtime: Runtime) -> Watch:
    """The clock and counters of a runtime: those of this machine, unless it has its own."""
    found: Watch = getattr(runtime, "WATCH", THIS_MACHINE)
    return found


def note(runtime: Runtime) -> str:
    """What a runtime says of itself; empty when it says nothing."""
    found: str = getattr(runtime, "NOTE", "")
    return found
