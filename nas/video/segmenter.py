"""A trained network that runs on frames, in the runtime of its certificate or in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.quantization.forms import Form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmenter:
    """A network in a runtime, which gives labels."""

    name: str
    """Name of the runtime."""
    open: Callable[[NDArray[np.float32]], Callable[[], NDArray[Any]]]
    """For an image buffer (1, 3, H, W), gives a function that returns labels (1, H, W) for its current content."""


def of_form(form: Form) -> Segmenter:
    """A network in the runtime that it was certified in."""
    return Segmenter(name=str(form.target), open=form.open)


def of_pytorch(network: nn.Module, device: str) -> Segmenter:
    """A network in PyTorch, on the device that it is on."""
    from nas.training.prediction import predicted_labels

    return Segmenter(name=f"PyTorch on {device}", open=lambda image: lambda: predicted_labels(network, image))
