"""The latency of each layer, measured in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import space
from nas.latency.layers import layer_milliseconds
from space.scale import scale_width

SIZE = (64, 96)


class Repeats(TorchFunctionMode):
    """Records the types of repeated values."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        given: tuple[object, ...] = (),
        named: Mapping[str, object] | None = None,
    ) -> object:
        if function is Tensor.repeat_interleave:
            assert isinstance(given[0], Tensor)
            self.types.add(given[0].dtype)
        return function(*given, **(named or {}))


@pytest.mark.parametrize(("stride", "types"), [(1, set()), (4, {torch.int64})])
def test_every_layer_has_a_time_and_labels_are_repeated_not_logits(stride: int, types: set[torch.dtype]) -> None:
    architecture = replace(scale_width(space.load("fast-scnn"), 0.25), label_stride=stride)
    with Repeats() as repeats:
        times = layer_milliseconds(architecture, SIZE, 5)
    assert len(times) == len(space.layers(architecture, SIZE, 5))
    assert min(times) > 0
    assert repeats.types == types
