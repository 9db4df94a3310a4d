"""Along every tensor a group's channels stand in whole runs, in the order of their ranks.

Therefore counts alone describe a cut network, which can be cut again: it does not matter which channels were kept,
since the k-th channel of a run is the k-th wherever the group occurs.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from pruning.surgery import Cutter
from space import Architecture, Space
from space.channels import FIXED

pytestmark = pytest.mark.share(16)


def what_is_broken(architecture: Architecture) -> list[str]:
    """Runs that start or end in the middle of a group, and layers that are used twice with different channels."""
    cutter = Cutter(architecture, 5)
    mapping, uses, broken = cutter.map, {}, []
    for node in cutter.graph.nodes:
        channels = mapping.channels(node)
        groups, ranks = mapping.group_of_channel[channels], mapping.rank_of_channel[channels]
        free = groups != FIXED
        first = free & (ranks == 0)
        joined = free[1:] & (groups[1:] == groups[:-1]) & (ranks[1:] == ranks[:-1] + 1)
        last = free & (ranks == np.array(mapping.counts)[groups] - 1)
        starts = (first[1:] | joined | ~free[1:]).all() and (first[:1] | ~free[:1]).all()
        ends = (last[:-1] | joined | ~free[:-1]).all() and (last[-1:] | ~free[-1:]).all()
        place = (tuple(channels), tuple(cutter.read_positions(node))) if node.inputs else ()
        again = bool(node.name) and uses.setdefault(node.name, place) != place
        wrong = {"a run starts in its middle": not starts, "a run ends early": not ends, "used twice": again}
        broken += [f"{node.kind} {node.name}: {what}" for what, is_so in wrong.items() if is_so]
    if sum(mapping.counts) != int((mapping.group_of_channel != FIXED).sum()):
        broken.append("the counts do not add up")
    return broken


def test_groups_of_published_networks_are_whole_runs(published: Architecture) -> None:
    assert what_is_broken(published) == []


def test_groups_of_crossings_are_whole_runs(crossing: Architecture) -> None:
    assert what_is_broken(crossing) == []


def test_groups_of_random_architectures_are_whole_runs() -> None:
    rng, everything = random.Random(1), Space()
    for _ in range(12):
        assert what_is_broken(everything.sample(rng)) == []


@pytest.mark.slow
def test_groups_of_many_random_architectures_are_whole_runs(narrow_space: Space) -> None:
    rng, everything = random.Random(2), Space()
    for _ in range(200):
        assert what_is_broken(everything.sample(rng)) == []
        assert what_is_broken(narrow_space.sample(rng)) == []
