"""The protocol on clocks and counters that are known: what is estimated, and what is flagged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.latency import anchor, load, protocol
from space.errors import UserError
from space.latency import Latency
from space.target import Target

TARGET = Target.parse("torch@cpu:1")


def record(pairs: protocol.Pairs, anchored: float = 10.0, reasons: tuple[str, ...] = ()) -> Latency:
    return protocol.summarise(
        pairs,
        anchor_milliseconds=anchored,
        anchor_flagged=reasons,
        target=TARGET,
        size=(64, 96),
        environment={"threads": "1"},
    )


def drifting(ratio: float, count: int = 60) -> protocol.Pairs:
    """A machine whose speed halves meanwhile, and jitters by 1 %."""
    random = np.random.default_rng(5)
    reference = np.linspace(10.0, 20.0, count) * random.normal(1, 0.01, count)
    candidate = ratio * np.linspace(10.0, 20.0, count) * random.normal(1, 0.01, count)
    return protocol.Pairs(candidate=candidate, reference=reference, disturbances=())


def waits(milliseconds: float) -> Callable[[], None]:
    def run() -> None:
        end = time.perf_counter() + milliseconds / 1e3
        while time.perf_counter() < end:
            pass

    return run


def test_drift_cancels_in_the_paired_ratio() -> None:
    measured = record(drifting(1.5))
    assert measured.p50_milliseconds == pytest.approx(15.0, rel=0.01)
    assert measured.ratio_low <= 1.5 <= measured.ratio_high
    assert measured.raw_p50_milliseconds == pytest.approx(22.5, rel=0.05)
    assert measured.ci_low_milliseconds < measured.p50_milliseconds < measured.ci_high_milliseconds
    assert (measured.samples, measured.reference_milliseconds, measured.target) == (60, 10.0, "torch@cpu:1")
    assert "arg-max" in measured.scope


def test_milliseconds_follow_the_anchor_and_the_ratio_does_not() -> None:
    one, other = record(drifting(1.5), anchored=10.0), record(drifting(1.5), anchored=12.0)
    assert one.ratio == other.ratio
    assert other.p99_milliseconds == pytest.approx(1.2 * one.p99_milliseconds)


def test_a_machine_far_from_its_anchor_is_flagged() -> None:
    assert any("anchored latency" in reason for reason in record(drifting(1.5)).flagged)  # 15 where 10 was anchored
    assert record(drifting(1.5), anchored=14.0).flagged == ()


def test_a_disturbed_anchor_is_flagged() -> None:
    assert "busy machine" in record(drifting(1.5), anchored=14.0, reasons=("busy machine",)).flagged[0]


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    inside = 0
    for _ in range(200):
        low, high = protocol.interval(random.lognormal(0.0, 0.1, 40))
        inside += low <= 1.0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_the_same_ratios_give_the_same_interval() -> None:
    ratios = np.random.default_rng(1).normal(2, 0.1, 40)
    assert protocol.interval(ratios) == protocol.interval(ratios)


def test_calls_alternate_and_pairs_are_added_until_the_interval_is_narrow() -> None:
    order: list[str] = []
    noise = iter(np.random.default_rng(2).uniform(0.2, 1.8, 1000))

    def noisy() -> None:
        order.append("candidate")
        waits(float(next(noise)))()

    def steady() -> None:
        order.append("reference")
        waits(0.5)()

    taken = protocol.take_pairs(noisy, steady, threads=1)
    assert len(taken.ratios) == protocol.MOST_PAIRS
    assert order == ["candidate", "reference"] * protocol.MOST_PAIRS
    assert any("after 120 pairs" in reason for reason in taken.disturbances)


def test_the_ratio_of_known_waits_is_found() -> None:
    taken = protocol.measure(waits(1.5), waits(1.0), threads=1)
    assert len(taken.ratios) >= protocol.PAIRS
    assert float(np.median(taken.ratios)) == pytest.approx(1.5, rel=0.1)


def test_what_others_do_is_told_from_what_we_do() -> None:
    before = load.Snapshot(
        wall=0.0, own=0.0, waiting=0.0, pinned_busy=0.0, pinned_stolen=0.0,
        machine_busy=0.0, machine_cores=4, pinned_cores=1,
    )  # fmt: skip
    quiet = replace(before, wall=1.0, own=0.98, pinned_busy=1.0, machine_busy=1.1)
    assert load.disturbances(before, quiet, threads=1) == ()
    shared = replace(quiet, own=0.7)
    assert "30% of the cores timed on" in load.disturbances(before, shared, threads=1)[0]
    beside = replace(quiet, machine_busy=3.0)
    assert "of the machine" in load.disturbances(before, beside, threads=1)[0]
    kept_waiting = replace(quiet, waiting=0.2)
    assert "waited for a core 20%" in load.disturbances(before, kept_waiting, threads=1)[0]
    stolen = replace(quiet, pinned_stolen=0.1)
    assert "hypervisor took 10%" in load.disturbances(before, stolen, threads=1)[0]


def test_counters_of_this_machine_move() -> None:
    before = load.snapshot()
    waits(100)()
    after = load.snapshot()
    assert after.wall - before.wall >= 0.1
    assert after.own - before.own > 0.01
    assert after.machine_busy > before.machine_busy
    assert 1 <= after.pinned_cores <= after.machine_cores


def test_an_anchor_is_taken_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = {"runtime": "torch", "precision": "fp32", "size": "64x96", "cpu": "a: 'strange' # one"}
    kept = anchor.Anchor(milliseconds=7.5, blocks_milliseconds=(7.4, 7.5), taken="2020-01-01", device=device)
    anchor.write(anchor.path_of(device), kept)
    assert anchor.obtain(waits(1.0), device, threads=1) == kept
    assert anchor.path_of(device).parent == tmp_path / "framebudget" / "anchors"
    assert anchor.path_of(device) != anchor.path_of(device | {"cpu": "another"})
    assert [path.suffix for path in anchor.folder().iterdir()] == [".yaml"]


def test_a_missing_or_damaged_anchor_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = {"runtime": "torch", "precision": "fp32", "size": "64x96"}
    monkeypatch.setattr(anchor, "BLOCK_SECONDS", 0.02)
    path = anchor.path_of(device)
    path.parent.mkdir(parents=True)
    path.write_text("milliseconds: [")
    taken = anchor.obtain(waits(2.0), device, threads=1)
    assert 2.0 <= taken.milliseconds < 20
    assert anchor.read(path) == taken
    assert len(taken.blocks_milliseconds) == anchor.BLOCKS


def test_an_anchor_from_a_disturbed_machine_is_replaced_on_a_quiet_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(anchor, "BLOCK_SECONDS", 0.01)
    monkeypatch.setattr(anchor, "STEADY_BLOCKS", 1e9)
    device = {"runtime": "torch"}
    marked = anchor.Anchor(
        milliseconds=9e9, blocks_milliseconds=(9e9,), taken="2020-01-01", device=device, flagged=("busy",)
    )
    anchor.write(anchor.path_of(device), marked)
    monkeypatch.setattr(load, "disturbances", lambda *_: ("busy",))  # whether it is quiet here is not ours to decide
    assert anchor.obtain(waits(1.0), device, threads=1) == marked
    monkeypatch.setattr(load, "disturbances", lambda *_: ())
    fresh = anchor.obtain(waits(1.0), device, threads=1)
    assert fresh.milliseconds < 9e9
    assert fresh.flagged == ()
    assert anchor.obtain(waits(1.0), device, threads=1) == fresh


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kept = anchor.Anchor(milliseconds=7.5, blocks_milliseconds=(7.5,), taken="2020-01-01", device={})
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        anchor.write(anchor.path_of({}), kept)
