"""How much of each group stays, for invented targets whose latency is a known function of the widths."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable

import numpy as np
import pytest

import space
from pruning.allocation import FLOOR, MOST_MEASUREMENTS, allocate, channel_costs, removal_order
from pruning.surgery import Cutter
from space import Architecture, BudgetError
from space.channels import FIXED

SIZE = (60, 80)
Measure = Callable[[Architecture], float]


def work(architecture: Architecture) -> float:
    """A target that only multiplies."""
    return space.multiply_adds(architecture, SIZE, 5) / 1e6


def lanes(architecture: Architecture) -> float:
    """A target that computes eight channels at a time, and moves memory."""
    total = 0.0
    for layer in space.layers(architecture, SIZE, 5):
        pixels = layer.height * layer.width
        total += 4 * pixels * layer.out_channels
        if layer.kind in ("conv", "deconv"):
            read = 1 if layer.groups > 1 else math.ceil(layer.in_channels / 8) * 8
            total += math.prod(layer.kernel) * read * math.ceil(layer.out_channels / 8) * 8 * pixels
    return total / 1e6


def odd_is_slow(architecture: Architecture) -> float:
    """A target where fewer channels can take longer."""
    total = 0.0
    for layer in space.layers(architecture, SIZE, 5):
        penalty = 1.0 if layer.out_channels % 8 == 0 else 1.2 if layer.out_channels % 2 == 0 else 1.4
        total += penalty * layer.multiply_adds
    return total / 1e6


def noisy(architecture: Architecture) -> float:
    """A target that errs by up to 2 %, the same for the same architecture."""
    digest = hashlib.sha256(architecture.key.encode()).digest()
    return lanes(architecture) * (1 + 0.04 * (digest[0] / 255 - 0.5))


MEASURES = {"work": work, "lanes": lanes, "odd_is_slow": odd_is_slow, "noisy": noisy}
NETWORKS = ("ndnet61-fcn32", "swiftnet-rn18", "blocks of all families in a row")


@pytest.fixture(params=NETWORKS)
def cutter(request: pytest.FixtureRequest, crossings: dict[str, Architecture], classes: int) -> Cutter:
    name = request.param
    return Cutter(crossings[name] if name in crossings else space.load(name), classes)


@pytest.fixture
def small(crossings: dict[str, Architecture], classes: int) -> Cutter:
    return Cutter(crossings["nonbt, conv_pool stem, cat decoder"], classes)


def random_scores(cutter: Cutter, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=len(cutter.everything))


def assert_sound(cutter: Cutter, keep: np.ndarray, architecture: Architecture, round_to: int) -> None:
    """Every group keeps a channel, and as many as rounding asks for; mask and counts say the same."""
    counts = cutter.counts(keep)
    assert space.groups(architecture) == counts
    assert keep[cutter.map.group_of_channel == FIXED].all()
    for name, full in zip(cutter.map.names, cutter.map.counts, strict=True):
        assert 1 <= counts[name] <= full
        if full >= 2 * round_to and counts[name] < full:
            assert counts[name] % round_to == 0, f"{name}: {counts[name]} of {full}"


@pytest.mark.parametrize(("share", "round_to"), [(0.8, 1), (0.6, 8)])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_budget_is_met_and_used(measure: str, share: float, round_to: int, cutter: Cutter) -> None:
    target = MEASURES[measure]
    budget = share * target(cutter.architecture)
    measured: list[str] = []

    def count(architecture: Architecture) -> float:
        measured.append(architecture.key)
        return target(architecture)

    found = allocate(
        cutter, random_scores(cutter), measure=count, budget_milliseconds=budget, size=SIZE, round_to=round_to
    )
    assert 0.9 * budget <= found.milliseconds == target(found.architecture) <= budget
    assert_sound(cutter, found.keep, found.architecture, round_to)
    assert found.measurements == len(measured) == len(set(measured)) <= MOST_MEASUREMENTS


def test_a_budget_that_is_met_cuts_nothing(cutter: Cutter) -> None:
    found = allocate(
        cutter, random_scores(cutter), measure=work, budget_milliseconds=work(cutter.architecture), size=SIZE
    )
    assert found.architecture == cutter.architecture
    assert (found.keep == cutter.everything).all()
    assert found.measurements == 1


def test_an_unreachable_budget_names_the_lowest_latency(small: Cutter) -> None:
    seen: list[float] = []

    def measure(architecture: Architecture) -> float:
        seen.append(10 + work(architecture))
        return seen[-1]

    with pytest.raises(BudgetError) as raised:
        allocate(small, random_scores(small), measure=measure, budget_milliseconds=5, size=SIZE, round_to=1)
    assert len(seen) == 2
    assert f"{min(seen):.4g} ms" in str(raised.value)
    assert re.search(r"got 5 ms.*raise the budget", str(raised.value))


def test_the_lowest_budget_leaves_one_channel_per_group(small: Cutter) -> None:
    least = small.narrowed(dict.fromkeys(small.map.names, 1))
    found = allocate(small, random_scores(small), measure=work, budget_milliseconds=work(least), size=SIZE, round_to=1)
    assert found.architecture == least


def test_the_same_question_has_the_same_answer(cutter: Cutter) -> None:
    budget = 0.6 * lanes(cutter.architecture)
    first, second = (
        allocate(cutter, random_scores(cutter), measure=lanes, budget_milliseconds=budget, size=SIZE) for _ in range(2)
    )
    assert (first.keep == second.keep).all()
    assert first.architecture.key == second.architecture.key


def test_a_steep_step_of_one_group_does_not_cost_the_others(small: Cutter) -> None:
    """Where one layer's latency falls by more than the budget at once, the other layers get what is left of it."""
    scores = random_scores(small)
    stepped = max(small.map.names, key=lambda name: len(small.map.members(name)))
    scores[small.map.members(stepped)] *= 1.5  # so that others go before it
    whole = work(small.architecture)

    def measure(architecture: Architecture) -> float:
        wide = space.groups(architecture)[stepped] > small.map.counts[small.map.names.index(stepped)] // 2
        return work(architecture) / whole + (1.0 if wide else 0.0)

    found = allocate(small, scores, measure=measure, budget_milliseconds=0.9, size=SIZE, round_to=1)
    assert 0.8 * 0.9 <= found.milliseconds <= 0.9


def test_a_cut_network_is_cut_further(cutter: Cutter) -> None:
    scores, whole = random_scores(cutter), work(cutter.architecture)
    first = allocate(cutter, scores, measure=work, budget_milliseconds=0.7 * whole, size=SIZE)
    again = Cutter(first.architecture, cutter.num_classes)
    second = allocate(again, random_scores(again, 1), measure=work, budget_milliseconds=0.4 * whole, size=SIZE)
    assert 0.9 * 0.4 * whole <= second.milliseconds <= 0.4 * whole
    assert (second.keep <= again.everything).all()
    for name, count in space.groups(second.architecture).items():
        assert 1 <= count <= space.groups(first.architecture)[name]


def test_no_group_is_emptied_before_all_are_narrow(cutter: Cutter) -> None:
    """Up to an eighth per group is protected, and the best channel of each never goes."""
    scores = random_scores(cutter)
    order = removal_order(cutter, scores, channel_costs(cutter, SIZE))
    assert len(set(order.tolist())) == len(order)
    protected = {
        int(channel)
        for name in cutter.map.names
        for members in [cutter.map.members(name)]
        for channel in members[np.argsort(-scores[members])][: math.ceil(len(members) / FLOOR)]
    }
    late = [int(channel) in protected for channel in order]
    assert late == sorted(late)
    assert len(order) == sum(cutter.map.counts) - len(cutter.map.names)
    for name in cutter.map.names:
        members = cutter.map.members(name)
        assert int(members[np.argmax(scores[members])]) not in set(order.tolist())


def test_scores_decide_within_a_group(small: Cutter) -> None:
    scores = random_scores(small)
    found = allocate(
        small, scores, measure=work, budget_milliseconds=0.5 * work(small.architecture), size=SIZE, round_to=4
    )
    narrowed = 0
    for name in small.map.names:
        members = small.map.members(name)
        kept, gone = members[found.keep[members]], members[~found.keep[members]]
        if len(gone):
            narrowed += 1
            assert scores[kept].min() >= scores[gone].max()
    assert narrowed > 3
