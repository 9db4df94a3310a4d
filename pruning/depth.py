"""Removes residual blocks: which blocks can be removed, and the network without them.

A residual block that neither strides nor widens can be replaced by its input: the network without the block is a point
of the space too, with one block less in that stage. The block's last activation is removed with it, and in `fpl` and
`esp` the normalisation of the sum, so that removing a block changes the output even if everything it adds is zero.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pruning.surgery import Mask, rebuilt
from space.architecture import Architecture
from space.channels import ChannelMap, Widths, channel_map, parametric
from space.errors import ArchitectureError, nearest
from space.graph import Graph
from space.network import Network
from space.stage import DecoderStep, Stage

Row = Stage | DecoderStep


def removable_blocks(architecture: Architecture) -> tuple[str, ...]:
    """Names of the removable blocks, in the order of computation ("stage1.block3", "decoder.step0.block1")."""
    return tuple(f"{name}.block{index}" for name, row in architecture.rows().items() for index in row.removable)


def without_blocks(architecture: Architecture, blocks: Collection[str]) -> Architecture:
    """The architecture without the named blocks; the remaining layers keep their widths.

    Raises: ArchitectureError for a name that is not one of `removable_blocks`.
    """
    possible = removable_blocks(architecture)
    for name in blocks:
        if name not in possible:
            raise ArchitectureError(f"expected a block that can be removed, got '{name}'; {nearest(name, possible)}")
    if not architecture.channels:
        return _shorter(architecture, blocks)
    whole = channel_map(architecture.graph(1))
    return shorten(architecture, blocks, whole, 1).narrowed(whole.keep_first(architecture.channels))


def remove_blocks(network: Network, blocks: Collection[str]) -> Network:
    """A copy of `network` without the named blocks; the remaining weights keep their values.

    Raises: ArchitectureError for a name that is not one of `removable_blocks`; UserError for a network in its training
    form.
    """
    shorter = without_blocks(network.architecture, blocks)
    before = _places_before(network.architecture, blocks)
    weights = network.state_dict()
    return rebuilt(network, shorter, lambda name: weights[_name_before(name, before)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Shortened:
    """A graph without some blocks, with the channel of the whole network for each of its atoms."""

    architecture: Architecture
    """The architecture of the graph, before pruning of channels."""
    graph: Graph
    channel_of_atom: NDArray[np.int64]
    """By atom of the graph, the channel in the whole network's map."""

    def widths(self, keep: Mask) -> Widths:
        """Widths of all nodes when the channels in `keep`, a mask over those of the whole network, are kept."""
        counts = np.add.reduceat(keep[self._channels], self._starts, dtype=np.int64)
        return Widths(given=tuple(counts.tolist()))

    @cached_property
    def _channels(self) -> NDArray[np.int64]:
        """The channels of all nodes, concatenated."""
        atoms: NDArray[np.int64] = np.concatenate([node.channels for node in self.graph.nodes])
        channels: NDArray[np.int64] = self.channel_of_atom[atoms]
        return channels

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Start of each node's channels in `_channels`."""
        sizes = [len(node.channels) for node in self.graph.nodes]
        assert min(sizes) > 0, "a sum over nothing would be the next node's first channel"
        return np.cumsum([0, *sizes[:-1]])

    def narrowed(self, keep: Mask) -> Architecture:
        """The architecture whose own groups keep the channels in `keep`, a mask over those of the whole network."""
        own = channel_map(self.graph)
        kept = np.zeros(len(own.group_of_channel), dtype=bool)
        kept[own.channel_of_atom] = keep[self.channel_of_atom]
        left = {name: int(kept[own.members(name)].sum()) for name in own.names}
        full = dict(zip(own.names, own.counts, strict=True))
        return replace(self.architecture, channels={name: n for name, n in left.items() if n < full[name]})


def shorten(architecture: Architecture, blocks: Collection[str], whole: ChannelMap, num_classes: int) -> Shortened:
    """The graph of `architecture`, at its widths before pruning, without the named blocks. `whole`: the channel map of
    the graph with them.
    """
    shorter = _shorter(architecture.without_channels(), blocks)
    graph = shorter.graph(num_classes)
    before = _places_before(architecture, blocks)
    layers = {node.name: node for node in architecture.graph(num_classes).nodes if node.name}
    channel_of_atom = np.empty(graph.atom_count, dtype=np.int64)
    channel_of_atom[graph.image.channels] = whole.channel_of_atom[
        graph.image.channels
    ]  # the image has the first atoms in every graph
    for node in parametric(graph):
        if node.kind in ("conv", "deconv"):
            channel_of_atom[node.channels] = whole.channels(layers[_name_before(node.name, before)])
    return Shortened(architecture=shorter, graph=graph, channel_of_atom=channel_of_atom)


def _kept(name: str, row: Row, blocks: Collection[str]) -> list[int]:
    return [index for index in range(row.depth) if f"{name}.block{index}" not in blocks]


def _shorter(architecture: Architecture, blocks: Collection[str]) -> Architecture:
    rows = {name: row.kept(_kept(name, row, blocks)) for name, row in architecture.rows().items()}
    return architecture.with_rows(rows)


def _places_before(architecture: Architecture, blocks: Collection[str]) -> Mapping[str, str]:
    """By present name, the former name of each block that stays when the named blocks are removed."""
    return {
        f"{name}.block{now}": f"{name}.block{index}"
        for name, row in architecture.rows().items()
        for now, index in enumerate(_kept(name, row, blocks))
    }


def _name_before(name: str, before: Mapping[str, str]) -> str:
    """The name of a layer or weight before blocks were removed."""
    place = re.match(r".+?\.block\d+(?=\.)", name)
    return name if place is None else before[place[0]] + name[place.end() :]
