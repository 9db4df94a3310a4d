"""Groups of channels that can only be cut together, their names, and the widths of a pruned network.

Two atoms (see `space.graph`) are one *channel* when a sum or shared weights tie them. Channels that occur equally often
in the outputs of the same layers are interchangeable: they form a *group*, named after the first layer that produces
them. Cutting k channels of a group leaves `count - k` of them everywhere, so one count per group is enough to rebuild a
pruned network: keeping the first `count` channels gives every tensor the same width, in the same order, as any other
choice of `count` channels.

Neighbouring channels that a grouped convolution reads together are a *granule*, which is cut as a whole. All granules
of a group have the same size, so a group's count is a multiple of that size.

The image's channels and the logits are fixed and belong to no group.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from space.errors import ArchitectureError, nearest
from space.graph import PARAMETRIC, Graph, Node

FIXED = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Widths:
    """Input and output channels of every node, after pruning."""

    given: tuple[int, ...]

    def out(self, node: Node) -> int:
        """Output channels of a node."""
        return self.given[node.index]

    def read(self, node: Node) -> int:
        """Input channels of a node with one input."""
        return self.given[node.inputs[0]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelMap:
    """The channels of a graph and their groups.

    `channel_of_atom[a]`: channel of atom a. `group_of_channel[c]`: index of its group in `names`, or FIXED.
    `rank_of_channel[c]`: its position within the group. `counts[g]`: size of the group before pruning. `granules[g]`:
    number of channels of consecutive ranks that are cut together.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    granules: tuple[int, ...]
    channel_of_atom: NDArray[np.int64]
    group_of_channel: NDArray[np.int64]
    rank_of_channel: NDArray[np.int64]

    def channels(self, node: Node) -> NDArray[np.int64]:
        """The channels of a node's output, in order."""
        return self.channel_of_atom[node.channels]

    def members(self, name: str) -> NDArray[np.int64]:
        """The channels of a group, by rank."""
        return np.flatnonzero(self.group_of_channel == self.names.index(name))

    def granule(self, name: str) -> int:
        """Number of channels of a group that are cut together."""
        return self.granules[self.names.index(name)]

    def whole(self, name: str, count: int) -> int:
        """`count` rounded up to whole granules of the group."""
        granule = self.granule(name)
        return -(-count // granule) * granule

    def has_whole_granules(self, keep: NDArray[np.bool_]) -> bool:
        """Whether a mask over channels keeps or drops every granule as a whole."""
        coarse = [(name, granule) for name, granule in zip(self.names, self.granules, strict=True) if granule > 1]
        rows = (keep[self.members(name)].reshape(-1, granule) for name, granule in coarse)
        return all(bool((row == row[:, :1]).all()) for row in rows)

    def keep_first(self, counts: Mapping[str, int]) -> NDArray[np.bool_]:
        """Mask over channels that keeps the first `counts` channels of the named groups, rounded up to whole granules,
        and all channels of the others.
        """
        full = dict(zip(self.names, self.counts, strict=True))
        limits = np.array([self.whole(name, counts[name]) if name in counts else full[name] for name in self.names])
        keep = np.ones(len(self.group_of_channel), dtype=bool)
        free = self.group_of_channel != FIXED
        keep[free] = self.rank_of_channel[free] < limits[self.group_of_channel[free]]
        return keep

    def widths(self, graph: Graph, counts: Mapping[str, int]) -> Widths:
        """Widths of all nodes of the map's graph when the named groups keep that many channels."""
        kept_atoms = self.keep_first(counts)[self.channel_of_atom]
        return Widths(given=tuple(int(kept_atoms[node.channels].sum()) for node in graph.nodes))


@functools.lru_cache(maxsize=32)  # all pruned versions of a network share one graph
def channel_map(graph: Graph) -> ChannelMap:
    """Find the channels and groups of a finished graph."""
    channel_of_atom = _merge(graph)
    total = int(channel_of_atom.max()) + 1
    fixed = np.zeros(total, dtype=bool)
    for atoms in graph.fixed:
        fixed[channel_of_atom[atoms]] = True
    free = np.flatnonzero(~fixed)
    alike, producer = _produced_alike(graph, channel_of_atom, total)
    _, first, inverse = np.unique(alike[free], return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups are numbered by their first channel
    names: list[str] = []
    for channel in free[first[order]]:
        names.append(_name(graph, int(producer[channel]), names))
    group_of_channel = np.full(total, FIXED, dtype=np.int64)
    group_of_channel[free] = np.argsort(order)[inverse]
    counts = np.bincount(group_of_channel[free], minlength=len(names))
    rank = np.zeros(total, dtype=np.int64)
    by_group = free[np.argsort(group_of_channel[free], kind="stable")]
    rank[by_group] = np.arange(len(free)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ChannelMap(
        names=tuple(names),
        counts=tuple(int(count) for count in counts),
        granules=_granules(graph, channel_of_atom, group_of_channel, names),
        channel_of_atom=channel_of_atom,
        group_of_channel=group_of_channel,
        rank_of_channel=rank,
    )


def _merge(graph: Graph) -> NDArray[np.int64]:
    """Channel of each atom: connected components of the ties, numbered by their first atom."""
    return np.unique(_components(graph.atom_count, graph.ties), return_inverse=True)[1]


def _components(count: int, ties: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> NDArray[np.int64]:
    """For each of the numbers below `count`, the lowest number in its connected component under `ties`."""
    labels = np.arange(count)
    if ties:
        left = np.concatenate([pair[0] for pair in ties])
        right = np.concatenate([pair[1] for pair in ties])
        while True:
            lowest = np.minimum(labels[left], labels[right])
            before = labels.copy()
            np.minimum.at(labels, left, lowest)
            np.minimum.at(labels, right, lowest)
            labels = labels[labels]  # jump to the label's label, so that long chains converge in few rounds
            if np.array_equal(before, labels):
                break
    return labels


def _granules(
    graph: Graph, channel_of_atom: NDArray[np.int64], group_of_channel: NDArray[np.int64], names: Sequence[str]
) -> tuple[int, ...]:
    """Number of channels of each group that are cut together, because a grouped convolution reads them together."""
    ties = []
    for node in graph.nodes:
        if node.group_width > 1:
            channels = channel_of_atom[node.channels]
            ties.append((channels, np.repeat(channels[:: node.group_width], node.group_width)))
    if not ties:
        return (1,) * len(names)
    granule_of_channel = _components(len(group_of_channel), ties)
    sizes = np.bincount(granule_of_channel)
    found = []
    for group, name in enumerate(names):
        granules = granule_of_channel[group_of_channel == group]
        size = int(sizes[granules[0]])
        alike = len(granules) % size == 0 and bool((granules == np.repeat(granules[::size], size)).all())
        assert alike, f"a grouped convolution reads channels of {name} together with channels of other groups"
        found.append(size)
    return tuple(found)


def _produced_alike(
    graph: Graph, channel_of_atom: NDArray[np.int64], total: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per channel: a number that is equal for channels that occur equally often in the outputs of the same layers, and
    the node index of the first layer that produces it.
    """
    alike = np.zeros(total, dtype=np.int64)
    producer = np.full(total, -1, dtype=np.int64)
    taken = 1
    seen: set[int] = set()
    for node in graph.nodes:
        if node.kind not in ("conv", "deconv") or node.group_width:
            continue
        start = int(node.channels[0])
        if start in seen:  # another use of shared weights
            continue
        seen.add(start)
        channels, times = np.unique(channel_of_atom[node.channels], return_counts=True)
        producer[channels] = np.where(producer[channels] < 0, node.index, producer[channels])
        apart = np.unique(alike[channels] * (int(times.max()) + 1) + times, return_inverse=True)[1]
        alike[channels] = taken + apart
        taken += int(apart.max()) + 1
    return alike, producer


def _name(graph: Graph, node_index: int, taken: list[str]) -> str:
    """Name of the producing layer; if concatenation splits its channels, further groups are numbered from 1."""
    base = graph.nodes[node_index].name
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}/{number}"
    return name


def check_channels(graph: Graph, channels: Mapping[str, int]) -> dict[str, int]:
    """Check counts of channels by group; returns the size of each group before pruning.

    Raises: ArchitectureError for an unknown group, or a count that is not from 1 to its size or not whole granules.
    """
    mapping = channel_map(graph)
    full = dict(zip(mapping.names, mapping.counts, strict=True))
    granules = dict(zip(mapping.names, mapping.granules, strict=True))
    for name, count in channels.items():
        if name not in full:
            raise ArchitectureError(f"channels: no group is called '{name}'; {nearest(name, full)}")
        if not 1 <= count <= full[name]:
            raise ArchitectureError(
                f"channels: expected 1 to {full[name]} channels in '{name}', got {count}; widen the stage instead"
            )
        if count % granules[name]:
            raise ArchitectureError(
                f"channels: '{name}' is cut {granules[name]} channels at a time, as a grouped convolution reads them; "
                f"expected a multiple of {granules[name]}, got {count}"
            )
    return full


def widths(graph: Graph, channels: Mapping[str, int]) -> Widths:
    """Widths of all nodes when the named groups keep that many channels."""
    if not channels:
        return Widths(given=tuple(len(node.channels) for node in graph.nodes))
    return channel_map(graph).widths(graph, channels)


def parametric(graph: Graph) -> list[Node]:
    """The nodes with parameters, each name once, in the order of computation."""
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if node.kind in PARAMETRIC and node.name:
            found.setdefault(node.name, node)
    return list(found.values())


def last_layer(graph: Graph) -> Node:
    """The convolution that computes the logits."""
    node = graph.outputs[0]
    while node.kind not in ("conv", "deconv"):
        node = graph.nodes[node.inputs[0]]
    return node
