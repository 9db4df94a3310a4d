"""Magnitude: squared L2 norm of all weights of a channel, relative to its group's mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning.importance import ChannelScores, Importance
from pruning.scores import sum_over_parameters
from pruning.surgery import Cutter

if TYPE_CHECKING:
    from space.network import Network


def magnitude(cutter: Cutter, network: Network) -> ChannelScores:
    """Squared L2 norm of all weights of a channel, those that produce it and those that read it, relative to the mean
    of its group (groups differ in fan-in, which says nothing about their importance).

    Returns one score per channel of the unpruned architecture.
    """
    scores = sum_over_parameters(cutter, network, lambda parameter: parameter.detach() ** 2)
    for name in cutter.map.names:
        members = cutter.map.members(name)
        present = members[cutter.everything[members]]
        scores[present] /= max(scores[present].mean(), 1e-30)
    return scores


IMPORTANCE = Importance(of_weights=magnitude)
