"""Allocation of channels and blocks, for known damage and invented targets whose latency is a function of widths."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

import space
from pruning.allocation import FULL_ENOUGH, MOST_MEASUREMENTS, Allocation, allocate, require_reachable
from pruning.damage import Damage
from pruning.depth import removable_blocks
from pruning.surgery import Cutter
from space import Architecture, BudgetError
from space.channels import FIXED, Widths, widths
from space.count import graph_multiply_adds
from space.graph import Graph
from space.scale import scale_width
from space.sizes import output_size

pytestmark = pytest.mark.share(16)

SIZE = (60, 80)
Device = Callable[[Graph, Widths], float]


def work(graph: Graph, sizes: Widths) -> float:
    """The latency of a target on which only multiply-adds count."""
    return graph_multiply_adds(graph, sizes, SIZE) / 1e6


@functools.lru_cache(maxsize=64)
def pixels_of(graph: Graph) -> list[int]:
    return [math.prod(output_size(node, SIZE)) for node in graph.nodes]


def lanes(graph: Graph, sizes: Widths) -> float:
    """The latency of a target that computes eight channels at a time and also moves memory."""
    total = 0.0
    for node, pixels in zip(graph.nodes, pixels_of(graph), strict=True):
        total += 4 * pixels * sizes.out(node)
        if node.kind in ("conv", "deconv"):
            read = node.group_width or math.ceil(sizes.read(node) / 8) * 8
            total += math.prod(node.kernel) * read * math.ceil(sizes.out(node) / 8) * 8 * pixels
    return total / 1e6


def odd_is_slow(graph: Graph, sizes: Widths) -> float:
    """The latency of a target where fewer channels can take longer, and each layer has a fixed time."""
    total = 0.0
    for node, pixels in zip(graph.nodes, pixels_of(graph), strict=True):
        if node.kind in ("conv", "deconv"):
            out = sizes.out(node)
            penalty = 1.0 if out % 8 == 0 else 1.2 if out % 2 == 0 else 1.4
            total += 5e4 + penalty * math.prod(node.kernel) * out * pixels * (node.group_width or sizes.read(node))
    return total / 1e6


DEVICES: dict[str, Device] = {"work": work, "lanes": lanes, "odd_is_slow": odd_is_slow}
NETWORKS = (
    "ndnet61-fcn32", "swiftnet-rn18", "blocks of all families in a row",
    "granules under gates, in groups of 8 and 16", pytest.param("ddrnet23-slim", marks=pytest.mark.slow),
)  # fmt: skip


@pytest.fixture(params=NETWORKS)
def cutter(request: pytest.FixtureRequest, crossings: dict[str, Architecture], classes: int) -> Cutter:
    name = request.param
    return Cutter(crossings[name] if name in crossings else scale_width(space.load(name), 0.5), classes)


@pytest.fixture
def small(crossings: dict[str, Architecture], classes: int) -> Cutter:
    return Cutter(crossings["nonbt, conv_pool stem, cat decoder"], classes)


def measured(device: Device, classes: int = 5) -> Callable[[Architecture], float]:
    def measure(architecture: Architecture) -> float:
        graph = architecture.graph(classes)
        return device(graph, widths(graph, architecture.channels))

    return measure


def scored(cutter: Cutter, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=len(cutter.everything))


def damaged(cutter: Cutter, seed: int = 0, blocks: float = math.inf) -> Damage:
    """Damage of groups, which grows progressively from a random worth, and of blocks, about `blocks` each."""
    chance = np.random.default_rng(seed)
    groups = {}
    for name, full in cutter.counts(cutter.everything).items():
        gone = 1 - np.arange(full + 1) / full
        groups[name] = chance.gamma(2.0) * gone**2 / (1.02 - gone)
        groups[name][0] = math.inf
    possible = removable_blocks(cutter.architecture) if math.isfinite(blocks) else ()
    return Damage(groups=groups, blocks={name: blocks * chance.gamma(2.0) for name in possible})


def share_of(cutter: Cutter, device: Device, share: float) -> float:
    """A budget in milliseconds between one channel per group (`share` 0) and the whole network (1)."""
    whole, least = (
        device(cutter.graph, cutter.map.widths(cutter.graph, counts))
        for counts in ({}, dict.fromkeys(cutter.map.names, 1))
    )
    return least + share * (whole - least)


def what_is_unsound(cutter: Cutter, found: Allocation) -> list[str]:
    """Faults of a mask, which must agree with the architecture if no block is removed."""
    counts = cutter.counts(found.keep)
    sound = {
        "a fixed channel is gone": found.keep[cutter.map.group_of_channel == FIXED].all(),
        "a channel has come back": (found.keep <= cutter.everything).all(),
        "a group is empty": min(counts.values()) >= 1,
        "the architecture has other counts": bool(found.blocks) or space.groups(found.architecture) == counts,
    }
    return [name for name, is_sound in sound.items() if not is_sound]


@pytest.mark.parametrize("share", [0.75, 0.3])
@pytest.mark.parametrize("device", DEVICES)
def test_the_budget_is_met_and_used(device: str, share: float, cutter: Cutter) -> None:
    target = DEVICES[device]
    budget = share_of(cutter, target, share)
    asked: list[str] = []

    def measure(architecture: Architecture) -> float:
        asked.append(architecture.key)
        return measured(target)(architecture)

    found = allocate(
        cutter, scored(cutter), damaged(cutter), estimate=target, measure=measure, budget_milliseconds=budget
    )
    assert FULL_ENOUGH * budget <= found.milliseconds <= budget
    assert found.milliseconds == measured(target)(found.architecture)
    assert what_is_unsound(cutter, found) == []
    assert found.measurements == len(asked) == len(set(asked)) <= MOST_MEASUREMENTS


def test_wrong_estimates_are_corrected_by_measuring(cutter: Cutter) -> None:
    """Estimates are those of a device three times as fast; measurements err by up to 2 %."""

    def measure(architecture: Architecture) -> float:
        digest = hashlib.sha256(architecture.key.encode()).digest()
        return measured(lanes)(architecture) * (1 + 0.04 * (digest[0] / 255 - 0.5))

    budget = share_of(cutter, lanes, 0.5)
    found = allocate(
        cutter,
        scored(cutter),
        damaged(cutter),
        estimate=lambda graph, sizes: work(graph, sizes) / 3,
        measure=measure,
        budget_milliseconds=budget,
    )
    assert 0.93 * budget <= found.milliseconds == measure(found.architecture) <= budget


def test_a_first_choice_below_the_budget_is_not_the_last(cutter: Cutter) -> None:
    """Every cut network is faster than estimated."""

    def measure(architecture: Architecture) -> float:
        return measured(work)(architecture) * (1.0 if architecture == cutter.architecture else 0.85)

    budget = share_of(cutter, work, 0.5)
    found = allocate(
        cutter, scored(cutter), damaged(cutter), estimate=work, measure=measure, budget_milliseconds=budget
    )
    assert FULL_ENOUGH * budget <= found.milliseconds <= budget


def test_damage_is_nearly_minimal(small: Cutter) -> None:
    """It is compared with every combination of counts of three groups, with all other groups whole."""
    damage, whole = damaged(small), small.counts(small.everything)

    def milliseconds(counts: dict[str, int]) -> float:
        return lanes(small.graph, small.map.widths(small.graph, counts))

    free = sorted(whole, key=lambda name: milliseconds(whole | {name: 1}))[:3]
    for name in whole:
        if name not in free:
            damage.groups[name][: whole[name]] = 1e9
    budget = milliseconds(whole) - 0.5 * (milliseconds(whole) - milliseconds(whole | dict.fromkeys(free, 1)))
    found = allocate(
        small, scored(small), damage, estimate=lanes, measure=measured(lanes), budget_milliseconds=budget, full_enough=1
    )
    least = math.inf
    counts = [range(max(1, whole[name] // 8), whole[name] + 1) for name in free]
    for combination in itertools.product(*counts):
        lost = sum(damage.groups[name][count] for name, count in zip(free, combination, strict=True))
        if lost < least and milliseconds(whole | dict(zip(free, combination, strict=True))) <= budget:
            least = lost
    assert least <= found.damage <= 1.1 * least


@pytest.mark.slow
def test_a_block_is_removed_if_that_pays_more_than_removing_channels(cutter: Cutter) -> None:
    """It pays on a device where each layer has a fixed time, and only if blocks are worth little."""
    budget = share_of(cutter, odd_is_slow, 0.5)
    ask = {"estimate": odd_is_slow, "measure": measured(odd_is_slow), "budget_milliseconds": budget}
    whole, worthless = damaged(cutter, blocks=1e9), damaged(cutter, blocks=1e-3)
    assert not allocate(cutter, scored(cutter), whole, **ask).blocks
    found = allocate(cutter, scored(cutter), worthless, **ask)
    assert found.blocks
    assert found.damage < allocate(cutter, scored(cutter), damaged(cutter), **ask).damage
    assert what_is_unsound(cutter, found) == []


def test_a_budget_that_is_met_cuts_nothing(cutter: Cutter) -> None:
    found = allocate(
        cutter,
        scored(cutter),
        damaged(cutter, blocks=1.0),
        estimate=work,
        measure=measured(work),
        budget_milliseconds=share_of(cutter, work, 1.0),
    )
    assert found.architecture == cutter.architecture
    assert (found.keep == cutter.everything).all()
    assert (found.measurements, found.damage, found.blocks) == (1, 0.0, frozenset())


def test_an_unreachable_budget_names_the_lowest_latency(small: Cutter) -> None:
    seen: list[float] = []

    def measure(architecture: Architecture) -> float:
        seen.append(10 + measured(work)(architecture))
        return seen[-1]

    with pytest.raises(BudgetError) as raised:
        require_reachable(small, estimate=work, measure=measure, budget_milliseconds=5)
    assert len(seen) == 3  # before all other steps
    assert min(seen) == seen[0]
    assert f"{seen[0]:.4g} ms" in str(raised.value)
    assert "leaves the network 5 ms" in str(raised.value)
    least = small.narrowed(dict.fromkeys(small.map.names, 1))
    assert seen[0] < 10 + measured(work)(least)  # blocks are removed too
    require_reachable(small, estimate=work, measure=measure, budget_milliseconds=seen[0])
    with pytest.raises(BudgetError, match=r"raise the budget"):
        require_reachable(small, estimate=work, measure=measure, budget_milliseconds=seen[0], depth=False)


def test_a_cut_that_was_estimated_too_slow_is_measured_before_giving_up(small: Cutter) -> None:
    """On this target four channels are faster than one, which only measuring shows."""
    counts: list[int] = []

    def measure(architecture: Architecture) -> float:
        narrowed = Cutter(architecture, small.num_classes)
        counts.append(max(narrowed.counts(narrowed.everything).values()))
        return 10.0 if counts[-1] == 1 else 5.0

    require_reachable(small, estimate=work, measure=measure, budget_milliseconds=5)
    assert counts == [1, 4]


def test_the_lowest_budget_keeps_one_channel_per_group(small: Cutter) -> None:
    least = small.narrowed(dict.fromkeys(small.map.names, 1))
    budget = measured(work)(least)
    found = allocate(
        small, scored(small), damaged(small), estimate=work, measure=measured(work), budget_milliseconds=budget
    )
    assert found.architecture == least


def test_a_cut_that_cannot_be_timed_is_over_the_budget(small: Cutter) -> None:
    """The target refuses the first three cuts."""
    refused: list[str] = []

    def measure(architecture: Architecture) -> float:
        if architecture != small.architecture and len(refused) < 3:
            refused.append(architecture.key)
            return math.inf
        return measured(work)(architecture)

    budget = share_of(small, work, 0.5)
    found = allocate(small, scored(small), damaged(small), estimate=work, measure=measure, budget_milliseconds=budget)
    assert 0.6 * budget < found.milliseconds <= budget
    assert found.architecture.key not in refused


@pytest.mark.slow
@pytest.mark.parametrize("timed", [0, 1])
def test_the_whole_network_is_not_named_as_the_fastest_cut(timed: int, small: Cutter) -> None:
    """The whole network is the fastest one on this target, which times only `timed` cuts."""
    cuts: list[str] = []

    def measure(architecture: Architecture) -> float:
        if architecture == small.architecture:
            return 2.0
        cuts.append(architecture.key)
        return 3.0 if len(cuts) <= timed else math.inf

    said = "takes 3 ms" if timed else "no cut of the network can be timed"
    with pytest.raises(BudgetError, match=said):
        allocate(small, scored(small), damaged(small), estimate=work, measure=measure, budget_milliseconds=1.0)


@pytest.mark.slow
def test_the_same_question_has_the_same_answer(cutter: Cutter) -> None:
    budget = share_of(cutter, lanes, 0.6)
    ask = {"estimate": lanes, "measure": measured(lanes), "budget_milliseconds": budget}
    first, second = (allocate(cutter, scored(cutter), damaged(cutter, blocks=1.0), **ask) for _ in range(2))
    assert (first.keep == second.keep).all()
    assert first.architecture.key == second.architecture.key


def test_a_cut_network_is_cut_further(cutter: Cutter) -> None:
    first = allocate(
        cutter,
        scored(cutter),
        damaged(cutter),
        estimate=work,
        measure=measured(work),
        budget_milliseconds=share_of(cutter, work, 0.7),
    )
    again, budget = Cutter(first.architecture, cutter.num_classes), share_of(cutter, work, 0.4)
    second = allocate(
        again, scored(again, 1), damaged(again, 1), estimate=work, measure=measured(work), budget_milliseconds=budget
    )
    assert FULL_ENOUGH * budget <= second.milliseconds <= budget
    assert what_is_unsound(again, second) == []
    for name, count in space.groups(second.architecture).items():
        assert 1 <= count <= space.groups(first.architecture)[name]


def test_scores_decide_within_a_group(small: Cutter) -> None:
    scores, budget = scored(small), share_of(small, work, 0.5)
    found = allocate(small, scores, damaged(small), estimate=work, measure=measured(work), budget_milliseconds=budget)
    narrowed = 0
    for name in small.map.names:
        members = small.map.members(name)
        kept, gone = members[found.keep[members]], members[~found.keep[members]]
        if len(gone):
            narrowed += 1
            assert scores[kept].min() >= scores[gone].max()
    assert narrowed > 3
