"""Cuts channels out of a network, exactly.

The slices of layers that belong to a channel are found in the architecture's own graph (`space.channels`), which covers
concatenated raw images, chains of concatenations and shared weights. A network is cut by building the smaller one and
loading the remaining slices of all tensors; loading refuses tensors that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from space.architecture import Architecture
from space.channels import FIXED, ChannelMap, channel_map, parametric
from space.graph import Graph, Node

if TYPE_CHECKING:
    from torch import Tensor

    from space.network import Network

Mask = NDArray[np.bool_]


class Cutter:
    """The channels of one architecture, which may be pruned already, and cuts of them.

    Masks are over the channels of the unpruned architecture; `everything` contains those that are present now.
    """

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        self.architecture = architecture
        self.num_classes = num_classes
        self.graph: Graph = architecture.graph(num_classes)
        self.map: ChannelMap = channel_map(self.graph)
        self.everything: Mask = self.map.keep_first(architecture.channels)

    def positions(self, node: Node) -> NDArray[np.int64]:
        """The present channels of a node's output, in order."""
        return _present(self.map.channels(node), self.everything)

    def read_positions(self, node: Node) -> NDArray[np.int64]:
        """The present channels of a layer's input, in order."""
        return self.positions(self.graph.nodes[node.inputs[0]])

    def counts(self, keep: Mask) -> dict[str, int]:
        """Number of channels in each group that a mask keeps."""
        left = np.bincount(self.map.group_of_channel[keep & self._free], minlength=len(self.map.names))
        return {name: int(count) for name, count in zip(self.map.names, left, strict=True)}

    def narrowed(self, counts: dict[str, int]) -> Architecture:
        """The architecture at these counts, rounded up to whole granules; uncut groups are left out."""
        full = dict(zip(self.map.names, self.map.counts, strict=True))
        whole = {name: self.map.whole(name, count) for name, count in counts.items()}
        return replace(
            self.architecture.without_channels(),
            channels={name: count for name, count in whole.items() if count < full[name]},
        )

    def cut(self, network: Network, keep: Mask) -> Network:
        """A network with only the channels in `keep`, and with the architecture that rebuilds it.

        The remaining weights keep their values; `network` is not changed.

        Raises: ArchitectureError when no channel of a group is left; UserError for a network in its training form.
        """
        assert network.architecture == self.architecture, "the network is not of this cutter's architecture"
        assert bool((keep <= self.everything).all()), "cannot keep channels that were cut before"
        assert bool(keep[~self._free].all()), "the image's and the logits' channels are fixed"
        assert self.map.has_whole_granules(keep), "channels that a grouped convolution reads together are cut together"
        left = self._slices(network, keep)
        return rebuilt(network, self.narrowed(self.counts(keep)), left.__getitem__)

    def _slices(self, network: Network, keep: Mask) -> dict[str, Tensor]:
        """The remaining slices of every tensor of the network, by name."""
        graph = self.architecture.graph(self.num_classes, auxiliary=bool(network.auxiliary_weights))
        # Channels of the auxiliary heads alone are numbered after all others, and are kept.
        channel_of_atom = channel_map(graph).channel_of_atom
        beyond = np.ones(int(channel_of_atom.max()) + 1 - len(keep), dtype=bool)
        before, after = (np.concatenate([mask, beyond]) for mask in (self.everything, keep))

        def kept(node: Node) -> NDArray[np.int64]:
            return np.flatnonzero(after[_present(channel_of_atom[node.channels], before)])

        left = {}
        for node in parametric(graph):
            out, read = kept(node), kept(graph.nodes[node.inputs[0]])
            for name, tensor in network.layer(node.name).state_dict(prefix=f"{node.name}.").items():
                left[name] = _sliced(tensor, node, out, read)
        return left

    @property
    def _free(self) -> Mask:
        free: Mask = self.map.group_of_channel != FIXED
        return free


def rebuilt(network: Network, architecture: Architecture, tensor_of: Callable[[str], Tensor]) -> Network:
    """A network of `architecture` whose weights and statistics are copies of what `tensor_of` returns for their names.

    It has the classes, the mode and, if any, the auxiliary heads of `network`. Its tensors have the type and device of
    those that they are copied from, and the default memory layout.

    Raises: UserError for a network in its training form.
    """
    import torch

    from space.paths import require_folded

    require_folded(network)
    with torch.device("meta"):  # do not initialise weights that are replaced
        result = architecture.build(network.num_classes, auxiliary=bool(network.auxiliary_weights))
    weights = {name: tensor_of(name).clone(memory_format=torch.contiguous_format) for name in result.state_dict()}
    result.load_state_dict(weights, strict=True, assign=True)
    return result.train(network.training)


def _present(channels: NDArray[np.int64], mask: Mask) -> NDArray[np.int64]:
    return channels[mask[channels]]


def _sliced(tensor: Tensor, node: Node, out: NDArray[np.int64], read: NDArray[np.int64]) -> Tensor:
    """The slices of a layer's tensor at the given output and input channels."""
    import torch

    if tensor.dim() == 0:  # number of batches tracked
        return tensor
    sides = [read, out] if node.kind == "deconv" else [out, read]
    if tensor.dim() == 1 or node.group_width:
        sides = [out]
    for dimension, places in enumerate(sides):
        tensor = tensor.index_select(dimension, torch.from_numpy(places).to(tensor.device))
    return tensor
