"""Estimates that measurements correct, on a device whose prices are known."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import pytest

import space
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.estimates.work import unit, work_of
from space import Architecture, Space

SIZE, CLASSES = (60, 80), 5
UNITS = {"multiply_adds": 2e-8, "count": 4e-3, "weights": 1e-7}


def price(quantity: str) -> float:
    """Milliseconds of a unit of work on a device that is slow at depthwise convolutions."""
    return UNITS.get(unit(quantity), 5e-8) * (3 if quantity.startswith("depthwise") else 1)


def milliseconds(architecture: Architecture) -> float:
    return sum(amount * price(quantity) for quantity, amount in work_of(architecture, SIZE, CLASSES).items())


def drawn(seed: int, count: int) -> list[Architecture]:
    chance = random.Random(seed)
    return [Space(size=SIZE).sample(chance) for _ in range(count)]


def error(estimates: Estimates, networks: list[Architecture]) -> float:
    return statistics.fmean(abs(estimates.architecture(each) / milliseconds(each) - 1) for each in networks)


@pytest.fixture
def table() -> LatencyTable:
    """An outdated table: 30 % dearer than the device, and a third of that for depthwise convolutions."""
    quantities = {quantity for each in drawn(1, 30) for quantity in work_of(each, SIZE, CLASSES)}
    dear = {quantity: 1.3 * price(quantity) / (3 if quantity.startswith("depthwise") else 1) for quantity in quantities}
    return LatencyTable(
        target="onnxruntime@cpu:1",
        height=SIZE[0],
        width=SIZE[1],
        milliseconds=dear,
        unit_milliseconds={unit(quantity): 1.3 * UNITS.get(unit(quantity), 5e-8) for quantity in quantities},
        networks=30,
        seconds=1.0,
        error=0.05,
        environment={},
    )


def test_before_anything_is_known_multiply_adds_order_networks() -> None:
    estimates = Estimates(SIZE, CLASSES)
    small, large = space.load("ndnet45-fcn32"), space.load("erfnet")
    ratio = space.multiply_adds(large, SIZE, CLASSES) / space.multiply_adds(small, SIZE, CLASSES)
    assert estimates.architecture(large) / estimates.architecture(small) == pytest.approx(ratio)


def test_measurements_alone_teach_prices() -> None:
    estimates = Estimates(SIZE, CLASSES)
    for each in drawn(2, 40):
        estimates.learn(each, milliseconds(each))
    assert error(estimates, drawn(3, 20)) < 0.1


def test_a_few_measurements_correct_a_table(table: LatencyTable) -> None:
    networks = drawn(3, 20)
    estimates = Estimates(SIZE, CLASSES, table)
    by_table = error(estimates, networks)
    for each in drawn(2, 8):
        estimates.learn(each, milliseconds(each))
    assert error(estimates, networks) < by_table / 2
    without = Estimates(SIZE, CLASSES)
    for each in drawn(2, 8):
        without.learn(each, milliseconds(each))
    assert error(estimates, networks) < error(without, networks)


@pytest.mark.slow
def test_disturbed_measurements_mislead_less() -> None:
    networks = drawn(3, 20)
    trusting, wary = Estimates(SIZE, CLASSES), Estimates(SIZE, CLASSES)
    for number, each in enumerate(drawn(2, 40)):
        disturbed = number % 3 == 0
        slower = (1.5 if disturbed else 1.0) * milliseconds(each)
        trusting.learn(each, slower)
        wary.learn(each, slower, disturbed=disturbed)
    assert error(wary, networks) < 0.8 * error(trusting, networks)


def test_a_precision_three_times_as_fast_is_known_after_three_networks(table: LatencyTable) -> None:
    fast, others = (
        replace(table, milliseconds={name: 3 * each for name, each in table.milliseconds.items()}),
        drawn(5, 12),
    )
    estimates = Estimates(SIZE, CLASSES, fast)
    before = error(estimates, others)
    for each in drawn(4, 3):
        estimates.learn(each, milliseconds(each))
    assert error(estimates, others) < 0.3 < 1.5 < before
