"""Quick gradients, which are computed in another way than PyTorch's, are the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import space
from space.gradients import resized, with_quick_gradient

Function = Callable[..., Tensor]


def differences(ours: Function, theirs: Function, inputs: list[Tensor]) -> list[str]:
    """The values and gradients in which two functions differ: values by a bit, gradients by more than rounding."""
    values, gradients = [], []
    for each in (ours, theirs):
        fresh = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in inputs]
        value = each(*fresh)
        (value * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        values.append(value)
        gradients.append([tensor.grad for tensor in fresh])
    found = [] if torch.equal(*values) else ["values"]
    for index, (mine, other) in enumerate(zip(*gradients, strict=True)):
        if not torch.allclose(mine, other, rtol=1e-4, atol=1e-4):
            found.append(f"gradient of input {index}")
    return found


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("of", "size"), [((5, 7), (40, 56)), ((6, 8), (41, 39)), ((1, 1), (8, 9))])
def test_enlarging_has_the_values_and_gradients_of_interpolation(of, size, align_corners) -> None:
    x = torch.randn(2, 3, *of, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    found = differences(
        lambda x: resized(x, size, align_corners, training=True),
        lambda x: functional.interpolate(x, size, mode="bilinear", align_corners=align_corners),
        [x],
    )
    assert found == []


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "dilation", "size"),
    [((3, 3), (2, 2), (7, 9)), ((1, 3), (1, 8), (6, 13)), ((3, 3), (1, 4), (5, 3)), ((5, 5), (3, 2), (8, 8))],
)
def test_quick_dilated_depthwise_convolutions_have_the_values_and_gradients_of_usual_ones(
    kernel, dilation, size, bias
) -> None:
    padding = (kernel[0] // 2 * dilation[0], kernel[1] // 2 * dilation[1])
    layers = [nn.Conv2d(4, 4, kernel, padding=padding, dilation=dilation, groups=4, bias=bias) for _ in range(2)]
    layers[0] = copy.deepcopy(with_quick_gradient(layers[0]))
    layers[1].load_state_dict(layers[0].state_dict())
    ours, theirs = (
        lambda x, *weights, layer=layer: torch.func.functional_call(
            layer, dict(zip(layer.state_dict(), weights, strict=True)), (x,)
        )
        for layer in layers
    )
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    assert type(layers[0](x.requires_grad_()).grad_fn).__name__ == "_DilatedBackward"
    assert differences(ours, theirs, [x, *layers[0].state_dict().values()]) == []


def test_networks_use_the_quick_gradients() -> None:
    network = space.load("ndnet45-ende").build(3)
    dilated = [each for each in network.modules() if isinstance(each, nn.Conv2d) and each.dilation == (2, 2)]
    assert len(dilated) == 13
    for each in dilated:
        x = torch.randn(1, each.in_channels, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
        assert type(each(x).grad_fn).__name__ == "_DilatedBackward"
    assert {type(each) for each in dilated} == {nn.Conv2d}, "others look for that layer"
    logits = network(torch.randn(1, 3, 32, 64).to(memory_format=torch.channels_last))
    assert type(logits.grad_fn).__name__ == "_ResizedBackward"
    assert type(network.eval()(torch.randn(1, 3, 32, 64)).grad_fn).__name__ != "_ResizedBackward"
