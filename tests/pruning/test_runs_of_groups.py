"""Along every tensor a group's channels stand in whole runs, in the order of their ranks.

This is what lets a cut network be described by counts alone and be cut again: which of the channels were kept no
longer matters, the k-th of a run is the k-th wherever the group occurs.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from pruning.surgery import Cutter
from space import Architecture, Space
from space.channels import FIXED


def assert_whole_runs(architecture: Architecture) -> None:
    cutter = Cutter(architecture, 5)
    mapping, uses = cutter.map, {}
    for node in cutter.graph.nodes:
        channels = mapping.channels(node)
        groups, ranks = mapping.group_of_channel[channels], mapping.rank_of_channel[channels]
        free = groups != FIXED
        first = free & (ranks == 0)
        joined = free[1:] & (groups[1:] == groups[:-1]) & (ranks[1:] == ranks[:-1] + 1)
        last = free & (ranks == np.array(mapping.counts)[groups] - 1)
        assert (first[1:] | joined | ~free[1:]).all(), f"{node.kind} {node.name}: a run starts in its middle"
        assert (last[:-1] | joined | ~free[:-1]).all(), f"{node.kind} {node.name}: a run ends early"
        if len(channels):
            assert first[0] or not free[0]
            assert last[-1] or not free[-1]
        if node.kind in ("conv", "deconv", "norm", "act") and node.name:
            place = (tuple(channels), tuple(cutter.read_positions(node)))
            assert uses.setdefault(node.name, place) == place, f"{node.name} is used twice with other channels"
    assert sum(mapping.counts) == int((mapping.group_of_channel != FIXED).sum())


def test_published_networks(published: Architecture) -> None:
    assert_whole_runs(published)


def test_crossings(crossing: Architecture) -> None:
    assert_whole_runs(crossing)


def test_random_architectures() -> None:
    rng, everything = random.Random(1), Space()
    for _ in range(12):
        assert_whole_runs(everything.sample(rng))


@pytest.mark.slow
def test_many_random_architectures(narrow_space: Space) -> None:
    rng, everything = random.Random(2), Space()
    for _ in range(200):
        assert_whole_runs(everything.sample(rng))
        assert_whole_runs(narrow_space.sample(rng))
