"""Convolutions whose weights range so widely that 8 bits represent most of them poorly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nas.export.quantized import FEWEST_CHANNELS, weight_steps
from nas.host.words import counted
from space.network import Network

FEWEST_STEPS = 2.5  # grid steps in a channel's typical weight at which rounding changes it by 10 % on average
LOSSY_SHARE = 0.25  # share of a convolution's channels from which on the user is warned
NAMED = 5


@dataclass(frozen=True, kw_only=True)
class WideLayer:
    """A convolution whose weights range too widely for INT8."""

    name: str
    channels: float
    """Share of its output channels whose typical weight (the median of the magnitudes) is fewer than `FEWEST_STEPS`
    steps of their grid."""
    folded: bool
    """Whether it was folded from several paths. The identity path makes one weight of a channel far larger than the
    others (arXiv 2212.01593)."""


def wide_layers(network: Network, *, on_gpu: bool = False, elsewhere: bool = False) -> tuple[WideLayer, ...]:
    """The convolutions of a network whose weights range too widely for INT8, the worst first. `on_gpu` and `elsewhere`
    are as in `weight_steps`.
    """
    steps = weight_steps(on_gpu=on_gpu, elsewhere=elsewhere)
    nodes = network.architecture.graph(network.num_classes).nodes
    layers = {node.name: node for node in nodes if node.kind in ("conv", "deconv")}
    found = []
    for name, node in layers.items():
        weight = network.layer(name).get_parameter("weight").detach()
        if on_gpu and node.kind == "conv" and weight.shape[1] < FEWEST_CHANNELS:
            continue  # it stays in floating point
        by_channel = (weight if node.kind == "conv" else weight.transpose(0, 1)).flatten(1).abs()
        share = float((steps * _typical_share(by_channel) < FEWEST_STEPS).float().mean())
        if share >= LOSSY_SHARE:
            found.append(WideLayer(name=name, channels=share, folded=bool(node.paths)))
    return tuple(sorted(found, key=lambda layer: -layer.channels))


def wide_words(layers: tuple[WideLayer, ...]) -> str:
    """A warning to the user about such layers; empty where there are none."""
    if not layers:
        return ""
    names = [f"{each.name} (re-parameterised)" if each.folded else each.name for each in layers[:NAMED]]
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return (
        f"note: weights of {counted(len(layers), 'convolution')} range so widely that INT8 rounds most of them by "
        f"10 % or more: {', '.join(names)}{more}"
    )


def _typical_share(magnitudes: Tensor) -> Tensor:
    """For each channel of (C, N) magnitudes, the median of the nonzero ones as a share of the largest; (C)."""
    typical = torch.where(magnitudes > 0, magnitudes, torch.nan).nanmedian(1).values
    return (typical / magnitudes.amax(1)).nan_to_num(torch.inf)  # rounding does not change a channel of zeros
