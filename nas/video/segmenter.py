"""A trained network as it runs on frames: in the runtime of its certificate, or in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.latency import runtimes
from nas.latency.target import Target
from nas.quantization.forms import Form
from nas.runs.trained import certificate_of, certified_graph
from space.errors import TargetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmenter:
    """What gives labels."""

    name: str
    """Of the runtime."""
    open: Callable[[NDArray[np.float32]], Callable[[], NDArray[Any]]]
    """From a held image (1, 3, H, W), to the call that gives labels (1, H, W) for what it holds at that moment."""


def certified_form(name_or_path: str, size: tuple[int, int]) -> Form:
    """What the certificate of a network in a winner's or a run's folder is about, if it runs here at height and width
    `size`.

    Raises: TargetError that says why it does not; UserError for a certificate or a graph that cannot be read, or is not
    what was certified.
    """
    certificate = certificate_of(name_or_path)
    if certificate is None:
        raise TargetError(f"{name_or_path} has no certificate")
    latency = certificate.latency
    target = Target.parse(latency.target)
    if target.host:
        raise TargetError(f"it is certified on another host, {target}")
    if not runtimes.reads_graphs(target):
        raise TargetError(f"it is certified on {target}, which reads no ONNX graphs")
    if size != (latency.height, latency.width):
        raise TargetError(f"it is certified at {latency.height}x{latency.width}, not at {size[0]}x{size[1]}")
    runtimes.require(target)
    return Form(target=target, graph=certified_graph(name_or_path))


def of_form(form: Form) -> Segmenter:
    """A network in the runtime that it was certified in."""
    return Segmenter(name=str(form.target), open=form.open)


def labels_of_pictures(segmenter: Segmenter, size: tuple[int, int]) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """What gives the classes, uint8 (H, W), of a picture, uint8 (H, W, 3) of any size, that the network sees at height
    and width `size`, as `nas.training.prediction.predict` does.
    """
    import numpy as np

    from nas.training.prediction import fitted, network_input

    held = np.zeros((1, 3, *size), dtype=np.float32)
    call = segmenter.open(held)

    def labels(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        held[...] = network_input(picture, size)
        return fitted(call()[0].astype(np.uint8), picture.shape[:2])

    return labels


def of_pytorch(network: nn.Module, device: str) -> Segmenter:
    """A network in PyTorch, on the device that it is on."""
    from nas.training.prediction import labels_of

    return Segmenter(name=f"PyTorch on {device}", open=lambda image: lambda: labels_of(network, image))
