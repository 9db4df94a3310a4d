"""Fake quantization: a network that computes in float what its INT8 form computes in integers, to be trained for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.export.grid import Grid
from space.graph import Node
from space.network import Network

LARGEST = 255  # largest integer that an activation can be
SMALLEST_SCALE = 1e-30


class FakeQuantized(nn.Module):
    """A network whose weights and activations are rounded to a grid in the forward pass. Gradients pass the rounding
    unchanged, and are 0 where a value lies outside the grid (the straight-through estimator, arXiv 1712.05877).

    Its weights are the network's own, in floating point. It always computes like the deployed network, with running
    statistics and without dropout, because that is the form whose values are rounded.
    """

    auxiliary_weights: tuple[float, ...] = ()

    def __init__(self, network: Network, grid: Grid) -> None:
        super().__init__()
        assert not network.auxiliary_weights, "a grid numbers the nodes of a network without auxiliary heads"
        self.network = network
        self._grid = grid
        self.eval()

    def train(self, mode: bool = True) -> FakeQuantized:
        """Set the mode of this module; the network in it stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def outputs(self, image: Tensor) -> list[Tensor]:
        """The logits of `forward`, as a list of one."""
        return [self(image)]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        logits: Tensor = torch.func.functional_call(self.network, self._rounded_weights(), (image, self._through))
        return logits

    def _rounded_weights(self) -> dict[str, Tensor]:
        """Weights of convolutions, each output channel rounded to its own grid that ends at its largest weight."""
        rounded = {}
        for name, largest in self._grid.weights.items():
            layer = self.network.layer(name)
            assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
            axis = int(isinstance(layer, nn.ConvTranspose2d))
            weight = layer.weight.float()
            others = [each for each in range(weight.ndim) if each != axis]
            scale = (weight.detach().abs().amax(others) / largest).clamp(min=SMALLEST_SCALE)
            whole = torch.zeros_like(scale, dtype=torch.int32)
            rounded[f"{name}.weight"] = torch.fake_quantize_per_channel_affine(
                weight, scale, whole, axis, -largest, largest
            )
        return rounded

    def _through(self, node: Node, value: Tensor) -> Tensor:
        steps = self._grid.values.get(node.index)
        if steps is None:
            return value
        return torch.fake_quantize_per_tensor_affine(value.float(), steps.scale, steps.zero_point, 0, LARGEST)
