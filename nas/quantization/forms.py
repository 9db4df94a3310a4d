"""Forms: the ways to run a network, each a graph and the target that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from nas.errors import TargetError
from nas.latency import runtimes
from nas.latency.target import Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from space.network import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """A network as it would be deployed."""

    target: Target
    """Runtime, device and precision."""
    graph: bytes
    """ONNX graph with labels as output."""
    words: str = ""
    """The parts that are quantized, where the precision alone does not say that."""
    tuned: Network | None = None
    """The fine-tuned network that the graph was made from; None: the original network."""
    epochs: int = 0
    """Epochs of that fine-tuning."""

    def __str__(self) -> str:
        return f"{self.target} ({self.words})" if self.words else str(self.target)

    def open(self, image: NDArray[np.float32]) -> Callable[[], NDArray[Any]]:
        """A function that gives labels (1, H, W) for the current content of `image` (1, 3, H, W)."""
        return cast(runtimes.GraphRuntime, runtimes.require(self.target)).open_graph(self.graph, image, self.target)


def precisions_here(target: Target) -> tuple[Target, ...]:
    """`target` in every precision that its runtime offers here and that could be faster, full precision first.

    Raises: TargetError when its runtime reads no graphs, or is not ready here.
    """
    if not runtimes.reads_graphs(target):
        raise TargetError(
            f"expected a runtime that reads ONNX graphs, got {target}; try onnxruntime@cpu, openvino@cpu or "
            "tensorrt@cuda:0"
        )
    runtimes.require(target)
    offered = runtimes.load(target).PRECISIONS[target.device.partition(":")[0]]
    return tuple(
        each for each in target.in_precisions(offered) if runtimes.load(each).available(each.on_its_host()) is None
    )


def floating(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets in floating point, which need no calibration."""
    return tuple(target for target in targets if target.precision != "int8")
