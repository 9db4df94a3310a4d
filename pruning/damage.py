"""What cuts do to a network's answers: how much narrower each group of channels may get, and which blocks may go.

Scores rank channels; they are no scale to weigh a group against another one or against a whole block, since they add
up what does not add (two channels that say the same are both superfluous, and only one can go). So damage is observed:
some channels of a group, or a block, are left out and the answers compared with the whole network's, on real images.
Batch norms use the statistics of these images, as re-estimating them after the cut would, so that what is repaired
without training is not counted.
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

SHARES = (0.5, 0.25, 0.125)  # of a group's channels that are kept when its damage is observed


@dataclass(frozen=True, kw_only=True, eq=False)
class Damage:
    """Damage of keeping so many channels of a group (index 0 of its array: infinite), and of removing a block.

    All in one unit; nothing removed is no damage, and more removed is never less.
    """

    groups: Mapping[str, NDArray[np.float64]]
    """By group, (channels + 1,): at each count."""
    blocks: Mapping[str, float]
    """Of each block that may go."""


def kept_first(cutter: Cutter, scores: ChannelScores, name: str) -> NDArray[np.int64]:
    """The channels of a group that are there, in the order in which they are kept: highest score first. Those that go
    together follow each other, the granule with the highest sum of scores first.
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
    """Damage observed on `images`, batches (N, 3, H, W) on the network's device. Answers to one batch are held at a
    time, and batch norms see no more. `depth`: blocks may go too.

    It is the divergence (Kullback and Leibler's, mean over pixels) of the classes' probabilities from those of the
    whole network. Each group is observed at a few counts; in between it is shared out by the scores of the channels
    that go. The network is left as it was. `guard()` is entered around every batch, and `count` is told of its
    images: of all `images`, as often as there are `observations`.
    """
    ordered = {name: kept_first(cutter, scores, name) for name in cutter.map.names}
    groups = {name: dict.fromkeys(_observed_counts(cutter, name, len(order)), 0.0) for name, order in ordered.items()}
    blocks = dict.fromkeys(_blocks(network, depth), 0.0)
    total = sum(map(len, images))

    def answers(observed: Network, batch: Tensor) -> Tensor:
        with guard():
            found = functional.log_softmax(observed(batch), dim=1)
        count(len(batch))
        return found

    with _batch_statistics(network), _Gates(cutter, network) as gates, torch.no_grad():
        for batch in images:
            whole, share = answers(network, batch), len(batch) / total
            for name, order in ordered.items():
                for kept in groups[name]:
                    keep = cutter.everything.copy()
                    keep[order[kept:]] = False
                    with gates.closed(keep):
                        groups[name][kept] += share * _divergence(answers(network, batch), whole)
            for block in blocks:
                shorter = remove_blocks(network, [block])
                with _batch_statistics(shorter):
                    blocks[block] += share * _divergence(answers(shorter, batch), whole)
    curves = {name: _curve(scores[order], groups[name]) for name, order in ordered.items()}
    return Damage(groups=curves, blocks=blocks)


def observations(cutter: Cutter, network: Network, *, depth: bool = True) -> int:
    """How often the images pass through the network, or through what is left of it, to observe its damage."""
    there = {name: int(cutter.everything[cutter.map.members(name)].sum()) for name in cutter.map.names}
    of_groups = sum(len(_observed_counts(cutter, name, total)) for name, total in there.items())
    return 1 + of_groups + len(_blocks(network, depth))


def _blocks(network: Network, depth: bool) -> Sequence[str]:
    return removable_blocks(network.architecture) if depth else ()


def _observed_counts(cutter: Cutter, name: str, total: int) -> list[int]:
    """At how many channels a group that has a `total` is observed."""
    counts = {cutter.map.whole(name, max(1, math.ceil(share * total))) for share in SHARES}
    return sorted(counts - {total})


def assumed_damage(cutter: Cutter, scores: ChannelScores) -> Damage:
    """Damage that scores alone let one expect, where there are no images: each group counts by its channels, and a
    group that loses nearly all of its score, nearly without limit. Blocks are not removed on an assumption.
    """
    groups = {}
    for name in cutter.map.names:
        ordered = scores[kept_first(cutter, scores, name)]
        left = np.cumsum(ordered) / max(float(ordered.sum()), 1e-30)
        damage = -len(ordered) * np.log(np.clip(left, 1e-12, 1.0))
        groups[name] = np.concatenate([[math.inf], damage - damage[-1]])
    return Damage(groups=groups, blocks={})


def _curve(scores: ChannelScores, observed: Mapping[int, float]) -> NDArray[np.float64]:
    """Damage at every count from what was observed at some; `scores` are the channels', best first."""
    total = len(scores)
    removed = np.concatenate([np.cumsum(np.maximum(scores, 0)[::-1])[::-1], [0.0]])  # at each count
    removed = removed + np.arange(total, -1, -1) * max(float(removed[0]) * 1e-6 / total, 1e-30)  # so that it rises
    counts = np.array([total, *sorted(observed, reverse=True)])
    values = np.maximum.accumulate(np.array([0.0, *(observed[int(count)] for count in counts[1:])]))
    curve: NDArray[np.float64] = np.interp(removed, removed[counts], values)
    if len(counts) > 1:  # beyond the last observation, as steeply as before it
        slope = (values[-1] - values[-2]) / (removed[counts[-1]] - removed[counts[-2]])
        beyond = removed > removed[counts[-1]]
        curve[beyond] = values[-1] + slope * (removed[beyond] - removed[counts[-1]])
    curve[0] = math.inf
    return curve


def _divergence(found: Tensor, wanted: Tensor) -> float:
    return max(0.0, float((wanted.exp() * (wanted - found)).sum(dim=1).mean()))


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch that they see, and keep what they had; dropout is off."""
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
    """Lets a network run as if nothing read some of its channels."""

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
        """Inside, nothing reads the channels outside `keep`."""
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
