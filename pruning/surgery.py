"""Cutting channels out of a network, exactly.

Which slices of which layers belong to a channel comes from the architecture's own graph (`space.channels`), which
knows concatenated raw images, chains of concatenations and shared weights. The slicing itself is torch-pruning's.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch_pruning as tp
from numpy.typing import NDArray
from torch import nn

from space.architecture import Architecture
from space.channels import FIXED, ChannelMap, channel_map, parametric
from space.graph import Graph, Node
from space.network import Network

Mask = NDArray[np.bool_]


class Cutter:
    """The channels of one architecture, as it stands (pruned before or not), and how to keep some of them.

    Masks are over the channels of the unpruned architecture: `everything` holds those that are left now.
    """

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        self.architecture = architecture
        self.num_classes = num_classes
        self.graph: Graph = architecture.graph(num_classes)
        self.map: ChannelMap = channel_map(self.graph)
        self.everything: Mask = self.map.keep_first(architecture.channels)

    def positions(self, node: Node) -> NDArray[np.int64]:
        """The channels of a node's output as it stands, in order."""
        channels = self.map.channels(node)
        return channels[self.everything[channels]]

    def read_positions(self, node: Node) -> NDArray[np.int64]:
        """The channels of what a layer reads as it stands, in order."""
        return self.positions(self.graph.nodes[node.inputs[0]])

    def counts(self, keep: Mask) -> dict[str, int]:
        """Channels left in each group under a mask."""
        left = np.bincount(self.map.group_of_channel[keep & self._free], minlength=len(self.map.names))
        return {name: int(count) for name, count in zip(self.map.names, left, strict=True)}

    def narrowed(self, counts: dict[str, int]) -> Architecture:
        """The architecture with these counts; groups that keep everything are not mentioned."""
        full = dict(zip(self.map.names, self.map.counts, strict=True))
        return replace(
            self.architecture.without_channels(),
            channels={name: count for name, count in counts.items() if count < full[name]},
        )

    def cut(self, network: Network, keep: Mask) -> Network:
        """A copy of `network` that only has the channels in `keep`, with the architecture that rebuilds it.

        Nothing but the selection changes: every weight that is left has its value.
        """
        assert network.architecture == self.architecture, "the network is not of this cutter's architecture"
        assert bool((keep <= self.everything).all()), "cannot keep channels that are gone"
        assert bool(keep[~self._free].all()), "the image's and the logits' channels are fixed"
        cut = copy.deepcopy(network)
        for node in parametric(self.graph):
            _cut_layer(cut.layer(node.name), node, ~keep[self.read_positions(node)], ~keep[self.positions(node)])
        cut.architecture = self.narrowed(self.counts(keep))
        achieved = {name: value.shape for name, value in cut.state_dict().items()}
        expected = cut.architecture.build(self.num_classes).state_dict()
        assert achieved == {name: value.shape for name, value in expected.items()}, "the cut missed a layer"
        return cut

    @property
    def _free(self) -> Mask:
        free: Mask = self.map.group_of_channel != FIXED
        return free


def _cut_layer(layer: nn.Module, node: Node, read: Mask, out: Mask) -> None:
    """Remove the marked input and output channels of one layer, in place."""
    inputs, outputs = np.flatnonzero(read).tolist(), np.flatnonzero(out).tolist()
    if node.kind == "norm":
        tp.prune_batchnorm_out_channels(layer, outputs)
    elif node.kind == "act":
        tp.prune_prelu_out_channels(layer, outputs)
    elif node.depthwise:
        tp.prune_depthwise_conv_out_channels(layer, outputs)
    else:
        if outputs:
            tp.prune_conv_out_channels(layer, outputs)
        if inputs:
            tp.prune_conv_in_channels(layer, inputs)
