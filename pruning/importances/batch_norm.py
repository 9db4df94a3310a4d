"""Scale of the batch norms (network slimming, Liu 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pruning.importance import ChannelScores, Importance
from pruning.importances.magnitude import magnitude
from pruning.surgery import Cutter
from space.channels import parametric

if TYPE_CHECKING:
    from space.network import Network


def batch_norm_scale(cutter: Cutter, network: Network) -> ChannelScores:
    """Absolute scale of a channel, averaged over its batch norms.

    Channels without a batch norm get their relative magnitude times the mean scale of all other channels. Returns one
    score per channel of the unpruned architecture.
    """
    total, norms = np.zeros(len(cutter.everything)), np.zeros(len(cutter.everything))
    for node in parametric(cutter.graph):
        if node.kind == "norm":
            scale = network.layer(node.name).get_parameter("weight")
            np.add.at(total, cutter.positions(node), scale.detach().double().abs().cpu().numpy())
            np.add.at(norms, cutter.positions(node), 1)
    scaled = norms > 0
    mean = float((total[scaled] / norms[scaled]).mean()) if scaled.any() else 1.0
    return np.where(scaled, total / np.maximum(norms, 1), mean * magnitude(cutter, network))


IMPORTANCE = Importance(of_weights=batch_norm_scale)
