"""The width that fills a budget, against invented latencies."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest

import space
from nas.latency import parse_target
from nas.latency.budget import Budget
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.shipped import shipped_table
from nas.latency.estimates.table import Prices
from nas.latency.estimates.work import work_of
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.search.propose.fill import (
    FULL_ENOUGH,
    MOST_CONFIRMATIONS,
    MOST_MEASUREMENTS,
    NARROWEST,
    NEARLY_FULL,
    SAFE,
    WIDEST,
    fill,
)  # fmt: skip
from space import Architecture, Space
from space.axes import searched
from space.scale import scale_width

SIZE = (180, 240)
Invented = Callable[[float], Latency]
One = Callable[[Architecture], Latency]


def count(architecture: Architecture) -> int:
    return space.multiply_adds(architecture, SIZE, 11)


def guess(architecture: Architecture) -> float:
    """An estimate that is five times too low and ignores layers."""
    return count(architecture) / 5e8


@pytest.fixture
def proportional(invented: Invented) -> One:
    return lambda architecture: invented(0.2 + space.multiply_adds(architecture, SIZE, 11) / 1e8)


@pytest.fixture
def stepped(invented: Invented, proportional: One) -> One:
    return lambda architecture: invented(0.5 * math.ceil(proportional(architecture).p50_milliseconds / 0.5))


@pytest.mark.parametrize("name", space.published())
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.share(20)
def test_the_filled_budget_is_used_and_not_exceeded(name: str, scale: float, proportional: One) -> None:
    quick, sure = [], []

    def counted(asked: list[str]) -> One:
        def measure(architecture: Architecture) -> Latency:
            asked.append(architecture.key)
            return proportional(architecture)

        return measure

    budget = Budget.parse("10ms")
    network, estimate = space.load(name), lambda scaled: scale * guess(scaled)
    filled = fill(network, budget, counted(quick), counted(sure), estimate, multiply_adds=count, within=WITHIN)
    assert filled.latency == proportional(filled.architecture)
    assert budget.admits(filled.latency)
    assert len(quick) == len(set(quick)) <= MOST_MEASUREMENTS
    assert 1 <= len(sure) == len(set(sure)) <= MOST_CONFIRMATIONS
    assert filled.architecture.key in sure
    # NDNet's smallest member cannot become slow enough: it ends at the widest factor instead.
    if filled.factor < WIDEST:
        assert filled.latency.p50_milliseconds > 0.94 * 10


def test_a_device_with_steps_is_filled_to_the_step_below(stepped: One) -> None:
    filled = fill(
        space.load("erfnet"), Budget.parse("10ms"), stepped, stepped, guess, multiply_adds=count, within=WITHIN
    )
    assert filled.latency.p50_milliseconds in (9.0, 9.5)


def test_the_narrowest_network_is_returned_for_an_impossible_budget(proportional: One) -> None:
    budget = Budget.parse("0.1ms")
    filled = fill(space.load("erfnet"), budget, proportional, proportional, guess, multiply_adds=count, within=WITHIN)
    assert not budget.admits(filled.latency)
    assert filled.factor == NARROWEST


@pytest.fixture
def padded(invented: Invented) -> One:
    """A device that pads the channels of stages to 16."""

    def measure(architecture: Architecture) -> Latency:
        stages = tuple(replace(stage, width=-(-stage.width // 16) * 16) for stage in architecture.stages)
        return invented(count(replace(architecture, stages=stages)) / 4e7)

    return measure


def test_single_parts_are_widened_if_one_factor_cannot_fill_the_budget(padded: One) -> None:
    """All widths of SwiftNet-RN18 rise in the same steps."""
    budget = Budget.parse("5.35ms")
    filled = fill(
        space.load("swiftnet-rn18"),
        budget,
        padded,
        padded,
        lambda a: padded(a).p50_milliseconds,
        multiply_adds=count,
        within=WITHIN,
    )
    by_factor = scale_width(space.load("swiftnet-rn18"), filled.factor)
    assert filled.adjusted
    assert padded(by_factor).p50_milliseconds < filled.latency.p50_milliseconds <= SAFE * 5.35


@pytest.mark.parametrize("name", ["swiftnet-rn18", "fast-scnn", "ndnet45-ende"])
@pytest.mark.parametrize("milliseconds", [3.0, 5.35, 12.0])
def test_channels_without_cost_are_taken(name: str, milliseconds: float, padded: One) -> None:
    """Padded channels take as long as real ones, so hardly any time should go into padding."""
    asked: list[str] = []

    def measure(architecture: Architecture) -> Latency:
        asked.append(architecture.key)
        return padded(architecture)

    filled = fill(
        space.load(name), Budget(milliseconds=milliseconds), measure, measure,
        lambda architecture: padded(architecture).p50_milliseconds, multiply_adds=count, within=WITHIN,
    )  # fmt: skip
    assert asked == 2 * [filled.architecture.key], "once quickly, once precisely"
    assert 0.94 < filled.latency.p50_milliseconds / milliseconds <= SAFE
    assert count(filled.architecture) / 4e7 > 0.97 * filled.latency.p50_milliseconds


def test_a_true_estimate_needs_a_single_factor(proportional: One) -> None:
    asked = []

    def measure(architecture: Architecture) -> Latency:
        asked.append(architecture.key)
        return proportional(architecture)

    network, budget = space.load("swiftnet-rn18"), Budget.parse("10ms")
    true = fill(
        network,
        budget,
        measure,
        measure,
        lambda a: proportional(a).p50_milliseconds,
        multiply_adds=count,
        within=WITHIN,
    )
    assert asked == 2 * [true.architecture.key], "quickly, and surely"
    assert true.latency.p50_milliseconds > 9.5


def test_the_band_leaves_room_for_the_error_of_a_second_measurement() -> None:
    assert 0.9 < FULL_ENOUGH < SAFE < 1


def test_a_quick_measurement_that_erred_downwards_is_not_trusted(proportional: One, invented: Invented) -> None:
    budget = Budget.parse("10ms")

    def hasty(architecture: Architecture) -> Latency:
        return invented(0.85 * proportional(architecture).p50_milliseconds)

    filled = fill(space.load("erfnet"), budget, hasty, proportional, guess, multiply_adds=count, within=WITHIN)
    assert filled.latency == proportional(filled.architecture)
    assert 8.5 < filled.latency.p50_milliseconds <= SAFE * 10


def test_an_impossible_budget_is_confirmed_once(proportional: One) -> None:
    asked: list[str] = []

    def confirm(architecture: Architecture) -> Latency:
        asked.append(architecture.key)
        return proportional(architecture)

    fill(space.load("erfnet"), Budget.parse("0.1ms"), proportional, confirm, guess, multiply_adds=count, within=WITHIN)
    assert asked == [scale_width(space.load("erfnet"), NARROWEST).key]


def test_a_quick_measurement_that_erred_upwards_is_made_good(proportional: One, invented: Invented) -> None:
    budget = Budget.parse("10ms")

    def hasty(architecture: Architecture) -> Latency:
        return invented(1.15 * proportional(architecture).p50_milliseconds)

    filled = fill(space.load("erfnet"), budget, hasty, proportional, guess, multiply_adds=count, within=WITHIN)
    assert filled.latency == proportional(filled.architecture)
    assert 9.3 < filled.latency.p50_milliseconds <= SAFE * 10  # 8.4 without single parts


def test_an_estimate_that_hardly_rises_with_width_leads_nowhere_far(proportional: One) -> None:
    """Estimates from a dozen measurements of other networks are like that; the widest took 36 times the budget."""
    network, budget = space.load("erfnet"), Budget.parse("25ms")
    own = proportional(network).p50_milliseconds
    factors = []

    def measure(architecture: Architecture) -> Latency:
        latency = proportional(architecture)
        factors.append(latency.p50_milliseconds)
        return latency

    def flat(architecture: Architecture) -> float:
        return 24.3 * (proportional(architecture).p50_milliseconds / own) ** 0.05

    filled = fill(network, budget, measure, proportional, flat, multiply_adds=count, within=WITHIN)
    assert max(factors) < 3 * 25
    assert filled.latency.p50_milliseconds > 0.85 * 25


def test_a_disturbed_confirmation_inside_the_budget_is_the_last(proportional: One) -> None:
    confirmed = []

    def confirm(architecture: Architecture) -> Latency:
        latency = proportional(architecture)
        confirmed.append(replace(latency, p50_milliseconds=0.9 * latency.p50_milliseconds, flagged=("a neighbour",)))
        return confirmed[-1]

    filled = fill(
        space.load("erfnet"), Budget.parse("10ms"), proportional, confirm, guess, multiply_adds=count, within=WITHIN
    )
    assert [filled.latency] == confirmed


def test_a_disturbed_confirmation_over_the_budget_is_repeated(proportional: One) -> None:
    confirmed: list[Latency] = []

    def confirm(architecture: Architecture) -> Latency:
        latency = proportional(architecture)
        if not confirmed:
            slower = 1.4 * latency.p50_milliseconds
            latency = replace(
                latency,
                p50_milliseconds=slower,
                p90_milliseconds=slower,
                p99_milliseconds=slower,
                flagged=("a neighbour",),
            )
        confirmed.append(latency)
        return latency

    filled = fill(
        space.load("erfnet"), Budget.parse("10ms"), proportional, confirm, guess, multiply_adds=count, within=WITHIN
    )
    assert [latency.flagged for latency in confirmed] == [("a neighbour",), ()]
    assert FULL_ENOUGH <= filled.latency.p50_milliseconds / 10 <= SAFE


def test_a_network_that_cannot_be_confirmed_is_replaced_by_a_narrower_one(proportional: One) -> None:
    asked: list[str] = []

    def confirm(architecture: Architecture) -> Latency | None:
        asked.append(architecture.key)
        return None if len(asked) == 1 else proportional(architecture)

    filled = fill(
        space.load("erfnet"), Budget.parse("10ms"), proportional, confirm, guess, multiply_adds=count, within=WITHIN
    )
    assert len(set(asked)) == len(asked) > 1
    assert 0.8 < filled.latency.p50_milliseconds / 10 <= SAFE


@pytest.mark.parametrize(("error", "asked"), [(1.0, 1), (1.15, 2), (0.85, 2)])
def test_a_close_estimate_needs_one_or_two_sure_measurements(error: float, asked: int, proportional: One) -> None:
    """`error`: the error of the estimate for this network, which the first measurement shows."""
    sure: list[str] = []

    def confirm(architecture: Architecture) -> Latency:
        sure.append(architecture.key)
        return proportional(architecture)

    def quick(architecture: Architecture) -> Latency:
        raise AssertionError("nothing is measured quickly")

    def estimate(architecture: Architecture) -> float:
        return error * proportional(architecture).p50_milliseconds

    filled = fill(
        space.load("erfnet"),
        Budget.parse("10ms"),
        quick,
        confirm,
        estimate,
        multiply_adds=count,
        within=WITHIN,
        near=True,
    )
    assert len(set(sure)) == len(sure) == asked
    assert 0.94 < filled.latency.p50_milliseconds / 10 <= SAFE


def test_a_nearly_full_budget_suffices_after_two_measurements_with_close_estimates(proportional: One) -> None:
    """Each width has an error of its own, which no other width shows."""
    errors = iter((0.98, 1.02))
    found: list[Latency] = []

    def confirm(architecture: Architecture) -> Latency:
        milliseconds = next(errors) * proportional(architecture).p50_milliseconds
        found.append(
            replace(
                proportional(architecture),
                p50_milliseconds=milliseconds,
                p90_milliseconds=milliseconds,
                p99_milliseconds=milliseconds,
            )
        )
        return found[-1]

    def estimate(architecture: Architecture) -> float:
        return proportional(architecture).p50_milliseconds

    filled = fill(
        space.load("swiftnet-rn18"),
        Budget.parse("5ms"),
        confirm,
        confirm,
        estimate,
        multiply_adds=count,
        within=WITHIN,
        near=True,
    )
    assert len(found) == 2
    assert NEARLY_FULL <= filled.latency.p50_milliseconds / 5 < 0.947


def test_a_disturbed_first_measurement_far_inside_the_budget_is_not_the_last(proportional: One) -> None:
    """There is no quick measurement before it. One that nearly fills the budget is the last."""
    network, budget, uses = space.load("ndnet29-fcn32"), Budget.parse("5ms"), []

    def confirm(architecture: Architecture) -> Latency:
        latency = replace(proportional(architecture), flagged=("a neighbour",))
        uses.append(latency.p50_milliseconds / 5)
        return latency

    fill(
        network,
        budget,
        confirm,
        confirm,
        lambda a: 1.3 * proportional(a).p50_milliseconds,
        multiply_adds=count,
        within=WITHIN,
        near=True,
    )
    assert [round(use, 1) for use in uses] == [0.7, 1.0]


class Shipped:
    """A device whose prices are 20 % from those of the table that comes with the package; each network is 4 % off on
    its own and each width of it 1 %. A sure latency is known to 0.6 %.
    """

    SIZE = (120, 160)

    def __init__(self, seed: int, invented: Invented) -> None:
        table = shipped_table(parse_target("onnxruntime@cpu:1"), self.SIZE, 2.5)
        assert table is not None
        self.table = table
        self._invented = invented
        self._seed = seed
        self._prices = Prices(
            of_quantity={name: price * self._off(name, 0.2) for name, price in table.milliseconds.items()},
            of_unit=table.unit_milliseconds,
        )

    def _off(self, name: str, share: float) -> float:
        return math.exp(random.Random(f"{self._seed} {name}").gauss(0, share))

    def measure(self, architecture: Architecture, network: str) -> Latency:
        own = self._off(network, 0.04) * self._off(architecture.key, 0.01) * self._off(f"{architecture.key}?", 0.006)
        return self._invented(self._prices.sum(work_of(architecture, self.SIZE, 11)) * own)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_candidates_need_two_measurements_where_a_table_is_corrected_by_five(seed: int, invented: Invented) -> None:
    device = Shipped(seed, invented)
    estimates = Estimates(Shipped.SIZE, 11, device.table)
    for name in ("erfnet-encoder", "swiftnet-mnv2", "fplnet", "ndnet45-ende", "fast-scnn"):
        estimates.learn(space.load(name), device.measure(space.load(name), name).p50_milliseconds)
    drawn = Space(ranges=searched(), size=Shipped.SIZE)
    chance = random.Random(seed)
    counts, uses = [], []
    while len(uses) < 20:
        network, budget = drawn.sample(chance), Budget(milliseconds=chance.choice((4.0, 8.0, 16.0)))
        ends = [device.measure(scale_width(network, factor), network.key) for factor in (NARROWEST, WIDEST)]
        if not budget.admits(ends[0]) or budget.admits(ends[1]):
            continue
        sure: list[Architecture] = []

        def confirm(
            architecture: Architecture, network: Architecture = network, sure: list[Architecture] = sure
        ) -> Latency:
            sure.append(architecture)
            latency = device.measure(architecture, network.key)
            estimates.learn(architecture, latency.p50_milliseconds)
            return latency

        filled = fill(
            network, budget, confirm, confirm, estimates.architecture, multiply_adds=count, within=WITHIN, near=True
        )
        counts.append(len(sure))
        uses.append(filled.latency.p50_milliseconds / budget.milliseconds)
    assert statistics.fmean(counts) <= 2.2
    assert statistics.median(uses) >= 0.945
    assert sum(use < 0.9 for use in uses) < 0.1 * len(uses)
    assert max(uses) <= SAFE
