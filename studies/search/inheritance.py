"""The weights that a network shares with another one, to begin a training with.

A network takes a layer that its parent has under the same name, of the same kind, kernel and groups. Where widths
differ it has the channels of a group that matter most to the parent, by magnitude; channels that the parent has not
begin at random, and nothing inherited reads them at first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning.importances import BY_WEIGHTS, kind
from pruning.surgery import Cutter
from space import Architecture
from space.channels import last_layer, parametric
from space.graph import Node
from space.network import Network


def inherited(child: Architecture, network: Network, num_classes: int) -> tuple[dict[str, Tensor], float]:
    """Weights for a child to begin with, those that it shares with a trained network and others at random; the share of
    its weights that are shared.
    """
    cutter, own = Cutter(network.architecture, num_classes), Cutter(child, num_classes)
    importance = kind(BY_WEIGHTS).scores(cutter, network)
    channel_of = np.full(len(own.everything), -1, dtype=np.int64)  # of the parent, for each of the child's
    for name in set(own.map.names) & set(cutter.map.names):
        ours = own.map.members(name)
        theirs = cutter.map.members(name).reshape(-1, cutter.map.granule(name))  # rows are taken whole
        order = np.argsort(-importance[theirs].mean(axis=1), kind="stable")
        best = theirs[np.sort(order[: -(-len(ours) // theirs.shape[1])])].ravel()[: len(ours)]
        channel_of[ours[: len(best)]] = best
    ends = ((own.graph.image, cutter.graph.image), (last_layer(own.graph), last_layer(cutter.graph)))
    for end, other in ends:
        if len(other.channels) == len(end.channels):
            channel_of[own.map.channels(end)] = cutter.map.channels(other)
    twins = {node.name: node for node in parametric(cutter.graph)}
    result, taken = child.build(num_classes), 0
    with torch.no_grad():
        for node in parametric(own.graph):
            twin = twins.get(node.name)
            if twin is None or _shape(twin) != _shape(node):
                continue
            out = _places(channel_of[own.positions(node)], cutter.positions(twin))
            read = _places(channel_of[own.read_positions(node)], cutter.read_positions(twin))
            theirs_of = network.layer(node.name).state_dict()
            for key, tensor in result.layer(node.name).state_dict().items():
                taken += _take(tensor, theirs_of[key], node, out, read)
    state = result.state_dict()
    return state, taken / sum(tensor.numel() for tensor in state.values())


def _shape(node: Node) -> tuple[object, ...]:
    """What layers have in common that can share weights, whatever their widths."""
    return node.kind, node.kernel, node.group_width, node.bias, node.stride


def _places(wanted: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the parent's layer has each of these channels, -1 where it has not; one that a concatenation repeats is
    found as often.
    """
    places: dict[int, list[int]] = {}
    for index, channel in enumerate(there):
        places.setdefault(int(channel), []).append(index)
    found = []
    for channel in wanted:
        left = places.get(int(channel), [])
        found.append(left.pop(0) if left else -1)
    return np.array(found)


def _take(tensor: Tensor, theirs: Tensor, node: Node, out: NDArray[np.int64], read: NDArray[np.int64]) -> int:
    """Copy what is shared of a layer's tensor into it; how many numbers those are."""
    if tensor.dim() == 0:
        return 0
    ours, there = np.flatnonzero(out >= 0), out[out >= 0]
    if tensor.dim() == 1 or node.group_width:
        tensor[ours] = theirs[there]
        return int(tensor[ours].numel())
    known, source = np.flatnonzero(read >= 0), read[read >= 0]
    if node.kind == "deconv":
        tensor, theirs = tensor.transpose(0, 1), theirs.transpose(0, 1)
    rows = torch.zeros_like(tensor[ours])
    rows[:, known] = theirs[there][:, source]
    tensor[ours] = rows
    return int(rows[:, known].numel())
