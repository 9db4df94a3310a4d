"""Damage of cuts: how much a network's predictions change when channels of a group are cut, or a block is removed.

Scores rank the channels of a group, but they are not a scale on which to weigh one group against another or against a
block, since they do not add up: of two channels with the same content either can be cut, but not both. Damage is
therefore observed: some channels of a group, or a block, are left out, and the predictions on real images are compared
with those of the whole network. Batch norms use the statistics of these images, as they would after re-estimation, so
that damage which is repaired without training does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pruning.depth import removable_blocks, remove_blocks
from pruning.importance import ChannelScores
from pruning.surgery import Cutter, Mask
from space.channels import parametric
from space.network import Network, lone_values_kept

SHARES = (0.5, 0.25, 0.125)  # shares of a group's channels that are kept when its damage is observed


@dataclass(frozen=True, kw_only=True, eq=False)
class Damage:
    """Damage of cutting channels and of removing blocks, in one unit.

    Cutting nothing is no damage, and cutting more is never less damage.
    """

    groups: Mapping[str, NDArray[np.float64]]
    """By group, (channels + 1,): damage of keeping that many channels; infinite at index 0."""
    blocks: Mapping[str, float]
    """Damage of removing each removable block, by its name."""


def kept_first(cutter: Cutter, scores: ChannelScores, name: str) -> NDArray[np.int64]:
    """The present channels of a group in the order in which to keep them: granules by their sum of scores, highest
    first.
    """
    members = cutter.map.members(name)
    granules = members[cutter.everything[members]].reshape(-1, cutter.map.granule(name))
    return granules[np.argsort(-scores[granules].sum(axis=1), kind="stable")].reshape(-1)


def observed_damage(
    cutter: Cutter,
    network: Network,
    scores: ChannelScores,
    images: Sequence[Tensor],
    *,
    depth: bool = True,
    guard: Callable[[], AbstractContextManager[object]] = nullcontext,
    count: Callable[[int], None] = lambda images: None,
) -> Damage:
    """Damage observed on `images`, batches (N, 3, H, W) on the network's device.

    Damage is the Kullback-Leibler divergence of the class probabilities from those of the whole network, averaged over
    pixels. Each group is observed at a few counts; damage in between is interpolated by the scores of the channels that
    are cut. Batches are processed one at a time, with batch norm statistics of that batch. The network is not changed.

    `depth`: observe removable blocks too. `guard()` is entered around every pass; `count` is called with the number of
    images of every pass, so all `images` are counted as often as there are `observations`.
    """
    ordered = {name: kept_first(cutter, scores, name) for name in cutter.map.names}
    groups = {name: dict.fromkeys(_observed_counts(cutter, name, len(order)), 0.0) for name, order in ordered.items()}
    blocks = dict.fromkeys(_blocks(network, depth), 0.0)
    total = sum(map(len, images))

    def predicted(observed: Network, batch: Tensor) -> Tensor:
        with guard():
            found = functional.log_softmax(observed(batch), dim=1)
        count(len(batch))
        return found

    with _batch_statistics(network), _Gates(cutter, network) as gates, torch.no_grad():
        for batch in images:
            whole, share = predicted(network, batch), len(batch) / total
            for name, order in ordered.items():
                for kept in groups[name]:
                    keep = cutter.everything.copy()
                    keep[order[kept:]] = False
                    with gates.closed(keep):
                        groups[name][kept] += share * _divergence(predicted(network, batch), whole)
            for block in blocks:
                shorter = remove_blocks(network, [block])
                with _batch_statistics(shorter):
                    blocks[block] += share * _divergence(predicted(shorter, batch), whole)
    curves = {name: _curve(scores[order], groups[name]) for name, order in ordered.items()}
    return Damage(groups=curves, blocks=blocks)


def observations(cutter: Cutter, network: Network, *, depth: bool = True) -> int:
    """Number of passes of the images through the network, or through a cut of it, that observing its damage takes."""
    there = {name: int(cutter.everything[cutter.map.members(name)].sum()) for name in cutter.map.names}
    of_groups = sum(len(_observed_counts(cutter, name, total)) for name, total in there.items())
    return 1 + of_groups + len(_blocks(network, depth))


def _blocks(network: Network, depth: bool) -> Sequence[str]:
    return removable_blocks(network.architecture) if depth else ()


def _observed_counts(cutter: Cutter, name: str, total: int) -> list[int]:
    """The counts of channels at which a group of `total` channels is observed."""
    counts = {cutter.map.whole(name, max(1, math.ceil(share * total))) for share in SHARES}
    return sorted(counts - {total})


def assumed_damage(cutter: Cutter, scores: ChannelScores) -> Damage:
    """Damage estimated from scores alone, without images.

    Each group has a weight proportional to its number of channels; its damage is minus the logarithm of the share of
    its score that is left. No block is removed on such an estimate.
    """
    groups = {}
    for name in cutter.map.names:
        ordered = scores[kept_first(cutter, scores, name)]
        left = np.cumsum(ordered) / max(float(ordered.sum()), 1e-30)
        damage = -len(ordered) * np.log(np.clip(left, 1e-12, 1.0))
        groups[name] = np.concatenate([[math.inf], damage - damage[-1]])
    return Damage(groups=groups, blocks={})


def _curve(scores: ChannelScores, observed: Mapping[int, float]) -> NDArray[np.float64]:
    """Damage at every count, interpolated from the observed counts; `scores`: those of the channels, best first."""
    total = len(scores)
    removed = np.concatenate([np.cumsum(np.maximum(scores, 0)[::-1])[::-1], [0.0]])  # removed score at each count
    removed = removed + np.arange(total, -1, -1) * max(float(removed[0]) * 1e-6 / total, 1e-30)  # strictly monotonic
    counts = np.array([total, *sorted(observed, reverse=True)])
    values = np.maximum.accumulate(np.array([0.0, *(observed[int(count)] for count in counts[1:])]))
    curve: NDArray[np.float64] = np.interp(removed, removed[counts], values)
    if len(counts) > 1:  # extrapolate beyond the last observation with the slope before it
        slope = (values[-1] - values[-2]) / (removed[counts[-1]] - removed[counts[-2]])
        beyond = removed > removed[counts[-1]]
        curve[beyond] = values[-1] + slope * (removed[beyond] - removed[counts[-1]])
    curve[0] = math.inf
    return curve


def _divergence(found: Tensor, wanted: Tensor) -> float:
    return max(0.0, float((wanted.exp() * (wanted - found)).sum(dim=1).mean()))


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms use the statistics of the batch and leave their running statistics; dropout is off."""
    training = network.training
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    tracked = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        with lone_values_kept(network):
            yield
    finally:
        for norm, track in zip(norms, tracked, strict=True):
            norm.track_running_stats = track
        network.train(training)


class _Gates:
    """Hooks that zero some channels in the inputs of all convolutions, as if nothing read these channels."""

    def __init__(self, cutter: Cutter, network: Network) -> None:
        self._positions = {
            node.name: cutter.read_positions(node)
            for node in parametric(cutter.graph)
            if node.kind in ("conv", "deconv")
        }
        self._device = next(network.parameters()).device
        self._gone: dict[str, Tensor] = {}
        self._handles = [network.layer(name).register_forward_pre_hook(self._hook_of(name)) for name in self._positions]

    def __enter__(self) -> _Gates:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def closed(self, keep: Mask) -> Iterator[None]:
        """Inside, the channels outside `keep` are zero in the inputs of all convolutions."""
        for name, positions in self._positions.items():
            gone = np.flatnonzero(~keep[positions])
            if len(gone):
                self._gone[name] = torch.from_numpy(gone).to(self._device)
        yield
        self._gone.clear()

    def _hook_of(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Tensor] | None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
            gone = self._gone.get(name)
            return None if gone is None else (inputs[0].index_fill(1, gone, 0.0),)

        return hook
