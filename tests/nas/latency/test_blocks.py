"""Statistics of blocks of calls: estimates, their intervals, and the record of a latency."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas.latency.protocol import anchor, quiet
from nas.latency.protocol.pairs import Pairs, summarise
from nas.latency.record import Latency
from nas.latency.target import Target

TARGET = Target.parse("torch@cpu:1")
ANCHOR = anchor.Anchor(
    milliseconds=1.0, canary=0.2, blocks_milliseconds=(1.0,), blocks_canary=(0.2,), taken="2020-01-01", device={}
)


def record(pairs: Pairs, anchored: float = 10.0, reasons: tuple[str, ...] = ()) -> Latency:
    kept = replace(ANCHOR, milliseconds=anchored, flagged=reasons)
    return summarise(pairs, kept, target=TARGET, size=(64, 96), environment={"threads": "1"})


def drifting(ratio: float, blocks: int = 12) -> Pairs:
    """Times on a machine whose speed halves during the measurement, with 1 % of jitter."""
    random = np.random.default_rng(5)
    slower = np.linspace(10.0, 20.0, blocks * 5).reshape(blocks, 5)
    reference = slower * random.normal(1, 0.01, slower.shape)
    candidate = ratio * slower * random.normal(1, 0.01, slower.shape)
    return Pairs(candidate=candidate, reference=reference, disturbances=())


def test_drift_cancels_in_the_ratio() -> None:
    measured = record(drifting(4.5))
    assert measured.p50_milliseconds == pytest.approx(45.0, rel=0.01)
    assert measured.ratio_low <= 4.5 <= measured.ratio_high
    assert measured.raw_p50_milliseconds == pytest.approx(67.5, rel=0.05)
    assert measured.ci_low_milliseconds < measured.p50_milliseconds < measured.ci_high_milliseconds
    assert (measured.samples, measured.reference_milliseconds, measured.target) == (60, 10.0, "torch@cpu:1")
    assert "arg-max" in measured.scope
    assert record(replace(drifting(4.5), set_aside=75)).set_aside == 75


def test_neighbours_change_the_tail_and_not_the_median() -> None:
    """Five of eight blocks were disturbed, by half for one network and by a fifth for the other."""
    random = np.random.default_rng(3)
    candidate, reference = random.normal(9, 0.01, (8, 5)), random.normal(2, 0.01, (8, 5))
    candidate[:5] *= 1.5
    reference[:5] *= 1.2
    measured = record(Pairs(candidate=candidate, reference=reference, disturbances=()))
    assert measured.ratio == pytest.approx(4.5, rel=0.01)
    assert measured.ratio_low <= 4.5 <= measured.ratio_high
    assert measured.p90_milliseconds == pytest.approx(10 * 4.5 * 1.5 / 1.2, rel=0.03)
    assert measured.raw_p50_milliseconds == pytest.approx(13.5, rel=0.02)


def test_quiet_blocks_are_recognised_by_the_reference() -> None:
    """A candidate scatters from block to block; its fastest block is luck and no sign of a quiet machine."""
    candidate, reference = np.full((4, 5), 3.0), np.full((4, 5), 2.0)
    candidate *= np.array([[1.3], [0.9], [1.0], [1.02]])
    reference *= np.array([[1.3], [1.0], [1.03], [1.0]])
    assert quiet.quiet_blocks(reference).tolist() == [False, True, True, True]
    assert quiet.quiet_median(reference) == pytest.approx(2.0)
    assert quiet.quiet_ratio(candidate, reference) == pytest.approx(1.5)


def test_milliseconds_follow_the_anchor_but_ratios_do_not() -> None:
    one, other = record(drifting(4.5), anchored=10.0), record(drifting(4.5), anchored=12.0)
    assert one.ratio == other.ratio
    assert other.p99_milliseconds == pytest.approx(1.2 * one.p99_milliseconds)


def test_disturbances_of_a_measurement_and_of_its_anchor_are_recorded() -> None:
    assert "busy machine" in record(drifting(1.5), reasons=("busy machine",)).flagged[0]
    assert record(replace(drifting(1.5), disturbances=("a neighbour",))).flagged == ("a neighbour",)


def test_the_interval_covers_the_ratio_as_often_as_promised() -> None:
    """The candidate scatters from block to block and from call to call. Of the same 200 draws 90 % intervals cover 0.94
    and 99 % intervals 0.99; they cover 0.94 if only blocks are drawn anew, and 0.69 if only calls are.
    """
    random = np.random.default_rng(11)
    shape, inside = (16, 10), 0
    for _ in range(200):
        candidate = random.lognormal(0.0, 0.02, shape) * random.lognormal(0.0, 0.02, (shape[0], 1))
        low, high = quiet.interval(candidate, random.lognormal(0.0, 0.02, shape))
        inside += low <= 1.0 <= high
    assert 0.95 <= inside / 200 <= 0.98


def test_the_same_times_give_the_same_interval() -> None:
    times = np.random.default_rng(1).normal(2, 0.1, (8, 5))
    assert quiet.interval(times, times + 1) == quiet.interval(times, times + 1)


def test_the_usual_state_of_a_machine_is_anchored() -> None:
    """Seven blocks on two dies, one on two threads of one core, three in the usual state, one of these a bit slow."""
    milliseconds = np.array([3.1, 3.1, 3.0, 3.2, 3.1, 5.3, 2.9, 3.0, 3.3, 3.0, 3.1, 3.2])
    canaries = np.array([0.2, 0.21, 0.19, 0.2, 0.1, 0.09, 0.11, 0.2, 0.12, 0.1, 0.2, 0.21])
    assert anchor.usual_state(milliseconds, canaries).nonzero()[0].tolist() == [0, 1, 2, 3, 7, 10, 11]
    halves = np.array([1.0, 2.0] * 6)
    assert anchor.usual_state(halves, np.full(12, 0.2)).tolist() == [True, False] * 6, "of two the faster"


def test_ratios_of_unstudied_targets_are_not_corrected() -> None:
    pairs = replace(drifting(1.2), reference=drifting(1.2).reference * 1.1)
    for text, environment in (("onnxruntime@cpu:2", {"threads": "2"}), ("cudagraph@cuda:0", {})):
        found = summarise(pairs, ANCHOR, target=Target.parse(text), size=(64, 96), environment=environment)
        assert found.corrected == 1.0
    assert record(pairs).corrected < 1.0
