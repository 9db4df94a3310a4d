"""Cutting is exact: a cut network equals the uncut one in which no layer reads the removed channels."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import space
from pruning.surgery import Cutter, Mask
from space import Architecture, Space

pytestmark = pytest.mark.share(16)

EXACT = 1e-10  # of the largest logit, in double precision
SEEN = 1e-7
SETS = 3
FINE_SETS = 24
SINGLES = ("ndnet29-fcn32", "ndnet45-fcn32", "ndnet45-ende", "ndnet61-fcn32", "fplnet-encoder")
SMALL = (20, 28)


@pytest.fixture
def bench(randomised, image, compared, without, granules, partition, random_keep, classes) -> SimpleNamespace:
    """The tools of `conftest.py` in one value."""
    return SimpleNamespace(**locals())


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The result of removing channels in several sets."""

    error: float
    """The largest of all sets."""
    effect: float
    """The smallest of all sets, but of those so small that ReLU may have silenced all their channels anyway."""
    not_once: list[str]
    """Groups of whose channels one was not removed, or more than once; a group of one granule has to keep it."""


def _can_be_cut(cutter: Cutter, name: str) -> bool:
    return len(cutter.map.members(name)) > cutter.map.granule(name)


def removed_in_sets(architecture: Architecture, bench: SimpleNamespace, sets: int, *, seed: int = 0) -> Removed:
    """Remove every removable channel once, in random sets."""
    cutter, network = Cutter(architecture, bench.classes), bench.randomised(architecture, seed=seed)
    removed, errors, effects = np.zeros(len(cutter.everything), dtype=int), [], [1.0]
    for keep in bench.partition(cutter, sets, seed=seed):
        found = bench.compared(cutter, network, keep, bench.image())
        errors.append(found.error)
        if int((~keep).sum()) >= 10:
            effects.append(found.effect)
        removed += ~keep
    not_once = [
        name for name in cutter.map.names if (removed[cutter.map.members(name)] != _can_be_cut(cutter, name)).any()
    ]
    return Removed(error=max(errors), effect=min(effects), not_once=not_once)


def errors_of_singles(
    architecture: Architecture, bench: SimpleNamespace, some: Callable[[list[int]], Sequence[int]]
) -> list[float]:
    """Remove some of the removable channels, one at a time, each with the channels tied to it."""
    cutter, network = Cutter(architecture, bench.classes), bench.randomised(architecture)
    removable = [name for name in cutter.map.names if _can_be_cut(cutter, name)]
    granules = {int(row[0]): row for name in removable for row in bench.granules(cutter, name)}
    errors = []
    for channel in some(list(granules)):
        keep = cutter.everything.copy()
        keep[granules[channel]] = False
        errors.append(bench.compared(cutter, network, keep, bench.image(size=SMALL)).error)
    return errors


def combined(cutter: Cutter, first: Mask, again: Cutter, second: Mask) -> Mask:
    """The mask over `cutter` that `second` means after the network was cut to `first`."""
    keep = first.copy()
    for name in cutter.map.names:
        left = cutter.map.members(name)[first[cutter.map.members(name)]]
        keep[left] = second[again.map.members(name)[: len(left)]]
    return keep


def test_cutting_every_channel_of_published_networks_is_exact(published: Architecture, bench: SimpleNamespace) -> None:
    found = removed_in_sets(published, bench, SETS)
    assert found.not_once == []
    assert found.error <= EXACT
    assert found.effect > SEEN


def test_cutting_every_channel_of_crossings_is_exact(crossing: Architecture, bench: SimpleNamespace) -> None:
    found = removed_in_sets(crossing, bench, SETS)
    assert found.not_once == []
    assert found.error <= EXACT
    assert found.effect > SEEN


def test_cutting_single_channels_of_published_networks_is_exact(
    published: Architecture, bench: SimpleNamespace
) -> None:
    errors = errors_of_singles(published, bench, lambda channels: random.Random(0).sample(channels, 2))
    assert len(errors) == 2
    assert max(errors) <= EXACT


@pytest.mark.parametrize("seed", range(15))
def test_cutting_channels_of_random_architectures_is_exact(
    seed: int, narrow_space: Space, bench: SimpleNamespace
) -> None:
    architecture = narrow_space.sample(random.Random(seed))
    cutter, network = Cutter(architecture, bench.classes), bench.randomised(architecture)
    found = bench.compared(cutter, network, bench.random_keep(cutter, seed=seed), bench.image())
    assert found.error <= EXACT
    assert found.effect > SEEN


def test_cutting_all_but_one_channel_of_each_group_is_exact(crossing: Architecture, bench: SimpleNamespace) -> None:
    cutter = Cutter(crossing, bench.classes)
    keep = bench.random_keep(cutter, seed=0, share=0.0)
    found = bench.compared(cutter, bench.randomised(crossing), keep, bench.image())
    assert found.error <= EXACT
    assert found.effect > SEEN
    assert space.groups(found.cut.architecture) == dict(zip(cutter.map.names, cutter.map.granules, strict=True))


def errors_of_cutting_twice(architecture: Architecture, bench: SimpleNamespace, seed: int) -> tuple[float, float]:
    """Errors of a second cut, compared with the network cut once, and with one cut of the uncut network."""
    cutter, network, image = Cutter(architecture, bench.classes), bench.randomised(architecture), bench.image()
    first = bench.random_keep(cutter, seed=seed, share=0.7)
    once = cutter.cut(network, first)
    again = Cutter(once.architecture, bench.classes)
    second = bench.random_keep(again, seed=seed + 1, share=0.7)
    twice = bench.compared(again, once, second, image)
    expected = bench.without(cutter, network, combined(cutter, first, again, second), image)
    with torch.no_grad():
        error = float((twice.cut(image) - expected).abs().max()) / float(expected.abs().max())
    return twice.error, error


def test_cutting_published_networks_twice_is_exact(published: Architecture, bench: SimpleNamespace) -> None:
    assert max(errors_of_cutting_twice(published, bench, seed=1)) <= EXACT


def test_cutting_crossings_twice_is_exact(crossing: Architecture, bench: SimpleNamespace) -> None:
    assert max(errors_of_cutting_twice(crossing, bench, seed=1)) <= EXACT


def test_a_cut_network_has_only_values_of_the_original(crossing: Architecture, bench: SimpleNamespace) -> None:
    cutter, network = Cutter(crossing, bench.classes), bench.randomised(crossing)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    same = cutter.cut(network, cutter.everything)
    assert same.architecture == crossing
    assert all(torch.equal(value, before[name]) for name, value in same.state_dict().items())
    cut = cutter.cut(network, bench.random_keep(cutter, seed=2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name, value in cut.state_dict().items():
        assert bool(torch.isin(value, before[name]).all()), f"{name} has values the network never had"


def test_impossible_masks_are_refused(crossings: dict[str, Architecture], bench: SimpleNamespace) -> None:
    architecture = crossings["esp, all cats"]
    cutter, network = Cutter(architecture, bench.classes), bench.randomised(architecture)
    with pytest.raises(AssertionError, match="fixed"):
        cutter.cut(network, np.zeros_like(cutter.everything))
    once = cutter.cut(network, bench.random_keep(cutter, seed=0))
    with pytest.raises(AssertionError, match="not of this cutter"):
        cutter.cut(once, cutter.everything)
    with pytest.raises(AssertionError, match="were cut before"):
        Cutter(once.architecture, bench.classes).cut(once, cutter.everything)
    crossed = Cutter(crossings["granules under gates, in groups of 8 and 16"], bench.classes)
    torn = crossed.everything.copy()
    torn[bench.granules(crossed, "stage1.block0.rate1.reduce")[0][0]] = False
    with pytest.raises(AssertionError, match="reads together are cut together"):
        crossed.cut(bench.randomised(crossed.architecture), torn)
    empty = cutter.everything.copy()
    empty[cutter.map.members(cutter.map.names[0])] = False
    with pytest.raises(space.ArchitectureError, match=cutter.map.names[0]):
        cutter.cut(network, empty)


@pytest.mark.slow
def test_cutting_every_channel_of_published_networks_in_many_sets_is_exact(
    published: Architecture, bench: SimpleNamespace
) -> None:
    found = removed_in_sets(published, bench, FINE_SETS, seed=1)
    assert found.not_once == []
    assert found.error <= EXACT
    assert found.effect > SEEN


@pytest.mark.slow
def test_cutting_every_channel_of_crossings_in_many_sets_is_exact(
    crossing: Architecture, bench: SimpleNamespace
) -> None:
    found = removed_in_sets(crossing, bench, FINE_SETS, seed=1)
    assert found.not_once == []
    assert found.error <= EXACT
    assert found.effect > SEEN


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLES)
def test_cutting_every_single_channel_is_exact(name: str, bench: SimpleNamespace) -> None:
    assert max(errors_of_singles(space.load(name), bench, lambda channels: channels)) <= EXACT


@pytest.mark.slow
def test_cutting_sampled_single_channels_is_exact(published: Architecture, bench: SimpleNamespace) -> None:
    assert max(errors_of_singles(published, bench, lambda channels: random.Random(3).sample(channels, 150))) <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_cutting_channels_of_many_random_architectures_is_exact(
    seed: int, narrow_space: Space, bench: SimpleNamespace
) -> None:
    architecture = narrow_space.sample(random.Random(seed))
    found = removed_in_sets(architecture, bench, 2, seed=seed)
    assert found.not_once == []
    assert found.error <= EXACT
    assert found.effect > SEEN
    assert max(errors_of_cutting_twice(architecture, bench, seed=seed)) <= EXACT
