"""Runtimes: one module each, found by its name. A new runtime is a new file here and nothing else.

Another package can provide one too: a module of it, named by an entry point of the group `framebudget.runtimes`
(`space.extensions`). A runtime is a module with

    PRECISIONS: dict[str, tuple[str, ...]]     kind of device ("cpu", "cuda") -> precisions that it runs there
    available(target) -> str | None            None if it can run here, else what to install or change
    versions() -> dict[str, str]               versions of the libraries that execute networks
    settle(target)                             prepares a process that only measures; called once, before all else
    prepare(network, image, target) -> call    call() -> labels (1, H, W); one call is what is timed
    WATCH: Watch (optional)                    its own clock, if time does not pass as on this machine
    NOTE: str (optional)                       a remark of a few words, shown beside its name

A runtime that reads ONNX graphs also has

    LIBRARY: str                               the library that reads them, as `versions` names it; it has __version__
    open_graph(graph, image, target) -> call   call() -> labels (1, H, W) as a NumPy array. `graph` (bytes) outputs
                                               labels; `image` (1, 3, H, W) float32 is a NumPy array
    hold_graph(graph, image, target) -> call   on a GPU: the call that is timed, with the image already on the GPU. A
                                               call of `open_graph` copies the image there and the labels back

and a `prepare` that exports the network and calls `open_graph` or `hold_graph`. To time such a runtime on a CPU over
ssh, this package need not be installed on the other host: the runtime's module is sent there
(`nas.latency.worker.parcel`) and `settle` and `open_graph` are called there. At its top such a module imports only the
standard library, NumPy and `nas.latency.target`.

`prepare` holds `image` (1, 3, H, W) statically and includes upsampling and arg-max; `call` returns only when the labels
exist (it synchronises with the device). No runtime imports its heavy library before it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from nas.errors import TargetError
from nas.host.room import is_shortage
from nas.host.words import one_line
from nas.latency.machine import device
from nas.latency.machine.watch import THIS_MACHINE, Watch
from nas.latency.target import Target
from space import extensions
from space.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

GROUP = "framebudget.runtimes"
NEEDS = ("PRECISIONS", "available", "versions", "settle", "prepare")
NEEDS_FOR_GRAPHS = ("LIBRARY", "open_graph")
FIRST = {"cpu": "cpu", "cuda": "cuda:0"}  # the first device of each kind
LONGEST_REASON = 300  # characters of a library's message


class GraphRuntime(Protocol):
    """Functions of a runtime that reads ONNX graphs, which also work on a host without this package."""

    LIBRARY: str

    def settle(self, target: Target) -> None:
        """See `Runtime`."""

    def open_graph(self, graph: bytes, image: NDArray[np.float32], target: Target) -> Callable[[], NDArray[Any]]:
        """The timed call, which runs the graph from the held image (1, 3, H, W) to labels (1, H, W)."""


class Runtime(Protocol):
    """Functions of every runtime."""

    PRECISIONS: dict[str, tuple[str, ...]]

    def available(self, target: Target) -> str | None:
        """None if `target` can be timed here, else what is missing and how to get it."""

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that execute networks."""

    def settle(self, target: Target) -> None:
        """Set up a process that only measures on `target`; called once, before anything is prepared."""

    def prepare(self, network: nn.Module, image: Tensor, target: Target) -> Callable[[], Tensor]:
        """The timed call, from the held image to labels (1, H, W)."""


def names() -> tuple[str, ...]:
    """Names of all runtimes, whether or not their libraries are installed; the file a_b.py is the runtime a-b."""
    return tuple(extensions.modules(__name__, GROUP))


def targets(name: str) -> tuple[Target, ...]:
    """Every precision of a runtime on the first device of each kind that it supports, available here or not.

    Raises: UserError when there is no such runtime, or its module in another package cannot be imported.
    """
    offers = _module(name).PRECISIONS.items()
    return tuple(
        Target(runtime=name, precision=each, device=FIRST[kind]) for kind, precisions in offers for each in precisions
    )


def load(target: Target) -> Runtime:
    """The runtime of `target`, whose library may be missing (see `available`).

    Raises: TargetError when there is no such runtime, or it does not run this precision on this device; UserError when
    its module in another package cannot be imported.
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

    Raises: TargetError when it is unknown, not installed or broken, or the device is missing; the message says what to
    do.
    """
    if (reason := missing(target)) is not None:
        raise TargetError(f"{target} cannot be timed here: {reason}")
    target.thread_count()
    return load(target)


def missing(target: Target) -> str | None:
    """None when `target` can be timed here, else what is missing or broken and how to get it. Loads its libraries.

    Raises: TargetError and UserError as `load` does.
    """
    return broken(target) or load(target).available(target)


def broken(target: Target) -> str | None:
    """Why the installed libraries of a target's runtime cannot be loaded; None if they can be, or are not installed.

    Raises: TargetError and UserError as `load` does.
    """
    runtime = load(target)
    try:
        if runtime.available(target) is None:
            runtime.versions()
    except UserError:  # the runtime's own answer
        raise
    except Exception as error:  # a broken library may raise anything, for example a TypeError with another protobuf
        if is_shortage(error):
            raise
        words = one_line(error, LONGEST_REASON) or type(error).__name__
        return f"its libraries do not load: {words}; install them again"
    return None


def require_one(targets: Sequence[Target]) -> None:
    """Check, before any long work, that at least one of the targets can be timed. Targets on other hosts are taken
    to be ready, since that is only known after connecting.

    Raises: TargetError as `require` does, for the first target.
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
    """Module and library of a runtime that reads ONNX graphs."""

    module: str
    """Module of the runtime, such as `nas.latency.runtimes.onnxruntime`."""
    library: str
    """Library that reads the graphs, such as `onnxruntime`."""


def reads_graphs(target: Target) -> bool:
    """Whether the runtime of `target` reads ONNX graphs.

    Raises: TargetError and UserError as `load` does.
    """
    runtime = load(target)
    return all(hasattr(runtime, name) for name in NEEDS_FOR_GRAPHS)


def reader(target: Target) -> Reader | None:
    """The reader of ONNX graphs on a host without this package; None if the runtime reads none, and for a GPU.

    Raises: TargetError and UserError as `load` does.
    """
    if target.on_cuda or not reads_graphs(target):
        return None
    library = cast(GraphRuntime, load(target)).LIBRARY
    return Reader(module=extensions.modules(__name__, GROUP)[target.runtime], library=library)


def timed_graph(runtime: GraphRuntime) -> Callable[[bytes, NDArray[np.float32], Target], Callable[[], object]]:
    """The function that opens a graph to be timed: `hold_graph`, which leaves labels on the GPU, else `open_graph`."""
    found: Callable[[bytes, NDArray[np.float32], Target], Callable[[], object]]
    found = getattr(runtime, "hold_graph", runtime.open_graph)
    return found


def environment(target: Target) -> dict[str, str]:
    """What a latency on `target` depends on: device, precision and threads, and the runtime's versions."""
    return device.describe(target) | load(target).versions()


def watch(runtime: Runtime) -> Watch:
    """Clock and counters of a runtime: those of this machine, unless it has its own."""
    found: Watch = getattr(runtime, "WATCH", THIS_MACHINE)
    return found


def note(runtime: Runtime) -> str:
    """The runtime's remark about itself; empty if it has none."""
    found: str = getattr(runtime, "NOTE", "")
    return found
