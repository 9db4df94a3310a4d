"""The judge of all cutting: a cut network equals the uncut one in which nothing reads the removed channels."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import space
from pruning.surgery import Cutter, Mask
from space import Architecture, Space

SETS = 3
FINE_SETS = 24
SINGLES = ("ndnet29-fcn32", "ndnet45-fcn32", "ndnet45-ende", "ndnet61-fcn32", "fplnet-encoder")
SMALL = (20, 28)


@pytest.fixture
def bench(randomised, image, exact, without, partition, random_keep, classes) -> SimpleNamespace:
    """The tools of `conftest.py` in one hand."""
    return SimpleNamespace(**locals())


def assert_partition_is_exact(architecture: Architecture, bench: SimpleNamespace, sets: int, *, seed: int = 0) -> None:
    """Remove every removable channel once, in `sets` random sets."""
    cutter, network = Cutter(architecture, bench.classes), bench.randomised(architecture, seed=seed)
    removed = np.zeros(len(cutter.everything), dtype=int)
    for keep in bench.partition(cutter, sets, seed=seed):
        few = int((~keep).sum()) < 10  # which ReLU may have silenced anyway
        bench.exact(cutter, network, keep, bench.image(), dead=few)
        removed += ~keep
    for name, count in zip(cutter.map.names, cutter.map.counts, strict=True):
        assert (removed[cutter.map.members(name)] == (count > 1)).all(), f"{name} is not covered"


def assert_singles_are_exact(architecture: Architecture, bench: SimpleNamespace, channels: Callable) -> None:
    """Remove channels one by one."""
    cutter, network = Cutter(architecture, bench.classes), bench.randomised(architecture)
    removable = [name for name, count in zip(cutter.map.names, cutter.map.counts, strict=True) if count > 1]
    for channel in channels([channel for name in removable for channel in cutter.map.members(name)]):
        keep = cutter.everything.copy()
        keep[channel] = False
        bench.exact(cutter, network, keep, bench.image(size=SMALL), dead=True)


def combined(cutter: Cutter, first: Mask, again: Cutter, second: Mask) -> Mask:
    """The mask over `cutter` that `second` means after the network was cut to `first`."""
    keep = first.copy()
    for name in cutter.map.names:
        left = cutter.map.members(name)[first[cutter.map.members(name)]]
        keep[left] = second[again.map.members(name)[: len(left)]]
    return keep


def test_every_channel_of_published_networks(published: Architecture, bench: SimpleNamespace) -> None:
    assert_partition_is_exact(published, bench, SETS)


def test_every_channel_of_crossings(crossing: Architecture, bench: SimpleNamespace) -> None:
    assert_partition_is_exact(crossing, bench, SETS)


def test_single_channels_of_published_networks(published: Architecture, bench: SimpleNamespace) -> None:
    assert_singles_are_exact(published, bench, lambda channels: random.Random(0).sample(channels, 2))


@pytest.mark.parametrize("seed", range(15))
def test_random_architectures(seed: int, narrow_space: Space, bench: SimpleNamespace) -> None:
    architecture = narrow_space.sample(random.Random(seed))
    cutter = Cutter(architecture, bench.classes)
    bench.exact(cutter, bench.randomised(architecture), bench.random_keep(cutter, seed=seed), bench.image())


def test_all_but_one_channel_of_each_group(crossing: Architecture, bench: SimpleNamespace) -> None:
    cutter = Cutter(crossing, bench.classes)
    cut = bench.exact(cutter, bench.randomised(crossing), bench.random_keep(cutter, seed=0, share=0.0), bench.image())
    assert set(space.groups(cut.architecture).values()) == {1}


def assert_cutting_twice_is_exact(architecture: Architecture, bench: SimpleNamespace, seed: int) -> None:
    """A cut network can be cut again, and that equals one cut of the uncut network."""
    cutter, network, image = Cutter(architecture, bench.classes), bench.randomised(architecture), bench.image()
    first = bench.random_keep(cutter, seed=seed, share=0.7)
    once = cutter.cut(network, first)
    again = Cutter(once.architecture, bench.classes)
    second = bench.random_keep(again, seed=seed + 1, share=0.7)
    twice = bench.exact(again, once, second, image)
    expected = bench.without(cutter, network, combined(cutter, first, again, second), image)
    with torch.no_grad():
        assert float((twice(image) - expected).abs().max()) <= 1e-10 * float(expected.abs().max())


def test_cutting_published_networks_twice(published: Architecture, bench: SimpleNamespace) -> None:
    assert_cutting_twice_is_exact(published, bench, seed=1)


def test_cutting_crossings_twice(crossing: Architecture, bench: SimpleNamespace) -> None:
    assert_cutting_twice_is_exact(crossing, bench, seed=1)


def test_nothing_but_the_selection_changes(crossing: Architecture, bench: SimpleNamespace) -> None:
    cutter, network = Cutter(crossing, bench.classes), bench.randomised(crossing)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    same = cutter.cut(network, cutter.everything)
    assert same.architecture == crossing
    assert all(torch.equal(value, before[name]) for name, value in same.state_dict().items())
    cut = cutter.cut(network, bench.random_keep(cutter, seed=2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name, value in cut.state_dict().items():
        assert bool(torch.isin(value, before[name]).all()), f"{name} has values the network never had"


def test_masks_that_cannot_be_are_refused(crossings: dict[str, Architecture], bench: SimpleNamespace) -> None:
    architecture = crossings["esp, all cats"]
    cutter, network = Cutter(architecture, bench.classes), bench.randomised(architecture)
    with pytest.raises(AssertionError, match="fixed"):
        cutter.cut(network, np.zeros_like(cutter.everything))
    once = cutter.cut(network, bench.random_keep(cutter, seed=0))
    with pytest.raises(AssertionError, match="not of this cutter"):
        cutter.cut(once, cutter.everything)
    with pytest.raises(AssertionError, match="gone"):
        Cutter(once.architecture, bench.classes).cut(once, cutter.everything)
    empty = cutter.everything.copy()
    empty[cutter.map.members(cutter.map.names[0])] = False
    with pytest.raises(space.ArchitectureError, match=cutter.map.names[0]):
        cutter.cut(network, empty)


@pytest.mark.slow
def test_every_channel_of_published_networks_in_many_sets(published: Architecture, bench: SimpleNamespace) -> None:
    assert_partition_is_exact(published, bench, FINE_SETS, seed=1)


@pytest.mark.slow
def test_every_channel_of_crossings_in_many_sets(crossing: Architecture, bench: SimpleNamespace) -> None:
    assert_partition_is_exact(crossing, bench, FINE_SETS, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLES)
def test_every_single_channel(name: str, bench: SimpleNamespace) -> None:
    assert_singles_are_exact(space.load(name), bench, lambda channels: channels)


@pytest.mark.slow
def test_sampled_single_channels(published: Architecture, bench: SimpleNamespace) -> None:
    assert_singles_are_exact(published, bench, lambda channels: random.Random(3).sample(channels, 150))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_random_architectures(seed: int, narrow_space: Space, bench: SimpleNamespace) -> None:
    architecture = narrow_space.sample(random.Random(seed))
    assert_partition_is_exact(architecture, bench, 2, seed=seed)
    assert_cutting_twice_is_exact(architecture, bench, seed=seed)
