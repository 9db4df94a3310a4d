"""The protocol on clocks and counters that are known: what is estimated, and what is flagged."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.latency.machine import gpu, load
from nas.latency.machine.watch import Watch
from nas.latency.protocol import WITHIN, anchor, interleaving, quiet, ready
from nas.latency.protocol.controls import CANARY_CALLS, Controls
from nas.latency.protocol.pairs import Pairs, summarise
from nas.latency.protocol.ready import LocalNetwork
from nas.latency.protocol.timer import InterleavedTimer
from nas.latency.record import Latency
from nas.latency.target import Target
from space.errors import UserError

TARGET = Target.parse("torch@cpu:1")


def record(pairs: Pairs, anchored: float = 10.0, reasons: tuple[str, ...] = ()) -> Latency:
    kept = replace(ANCHOR, milliseconds=anchored, flagged=reasons)
    return summarise(pairs, kept, target=TARGET, size=(64, 96), environment={"threads": "1"})


def drifting(ratio: float, blocks: int = 12) -> Pairs:
    """A machine whose speed halves meanwhile, and jitters by 1 %."""
    random = np.random.default_rng(5)
    slower = np.linspace(10.0, 20.0, blocks * 5).reshape(blocks, 5)
    reference = slower * random.normal(1, 0.01, slower.shape)
    candidate = ratio * slower * random.normal(1, 0.01, slower.shape)
    return Pairs(candidate=candidate, reference=reference, disturbances=())


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def nanoseconds(self) -> int:
        return round(self.now * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()
WATCH = Watch(nanoseconds=CLOCK.nanoseconds, sleep=CLOCK.sleep, snapshot=load.snapshot)


def waits(milliseconds: float) -> Callable[[], None]:
    return lambda: CLOCK.sleep(milliseconds / 1e3)


KEY = {"runtime": "torch"}
ANCHOR = anchor.Anchor(
    milliseconds=1.0,
    canary=0.2,
    blocks_milliseconds=(1.0, 1.1),
    blocks_canary=(0.2, 0.2),
    taken="2020-01-01",
    device=KEY,
)


def controls(reference: float = 1.0, canary: float = 0.2, key: Mapping[str, str] = KEY, threads: int = 1) -> Controls:
    """Networks of known latency in milliseconds."""
    return Controls(reference=waits(reference), canary=waits(canary), key=key, threads=threads, watch=WATCH)


def taking(milliseconds: float) -> LocalNetwork:
    """A candidate of known latency."""
    return LocalNetwork(waits(milliseconds), controls())


def conditions(threads: int = 1, anchored: anchor.Anchor = ANCHOR, within: float = WITHIN) -> interleaving.Conditions:
    return interleaving.Conditions(anchor=anchored, threads=threads, within=within, watch=WATCH)


def test_drift_cancels_in_the_ratio() -> None:
    measured = record(drifting(4.5))
    assert measured.p50_milliseconds == pytest.approx(45.0, rel=0.01)
    assert measured.ratio_low <= 4.5 <= measured.ratio_high
    assert measured.raw_p50_milliseconds == pytest.approx(67.5, rel=0.05)
    assert measured.ci_low_milliseconds < measured.p50_milliseconds < measured.ci_high_milliseconds
    assert (measured.samples, measured.reference_milliseconds, measured.target) == (60, 10.0, "torch@cpu:1")
    assert "arg-max" in measured.scope


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


def test_the_reference_tells_which_blocks_were_quiet() -> None:
    """A candidate scatters from block to block; its best one is luck, and says nothing of the machine."""
    candidate, reference = np.full((4, 5), 3.0), np.full((4, 5), 2.0)
    candidate *= np.array([[1.3], [0.9], [1.0], [1.02]])
    reference *= np.array([[1.3], [1.0], [1.03], [1.0]])
    assert quiet.quiet_blocks(reference).tolist() == [False, True, True, True]
    assert quiet.quiet_median(reference) == pytest.approx(2.0)
    assert quiet.quiet_ratio(candidate, reference) == pytest.approx(1.5)


def test_milliseconds_follow_the_anchor_and_the_ratio_does_not() -> None:
    one, other = record(drifting(4.5), anchored=10.0), record(drifting(4.5), anchored=12.0)
    assert one.ratio == other.ratio
    assert other.p99_milliseconds == pytest.approx(1.2 * one.p99_milliseconds)


def test_a_disturbed_anchor_is_flagged() -> None:
    assert "busy machine" in record(drifting(1.5), reasons=("busy machine",)).flagged[0]


def test_the_interval_covers_the_ratio_as_often_as_it_says() -> None:
    """Of a candidate that scatters from block to block as well as from call to call. Of the same 200 draws intervals of
    90 % cover 0.94, those of 99 % 0.99; 0.94 where only blocks were drawn anew, and 0.69 where only calls were.
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


def test_calls_alternate_and_pairs_are_added_until_the_interval_is_narrow() -> None:
    order: list[str] = []
    noise = iter(np.random.default_rng(2).uniform(0.2, 1.8, 1000))

    def noisy() -> None:
        order.append("candidate")
        waits(float(next(noise)))()

    def steady() -> None:
        order.append("reference")
        waits(0.5)()

    beside = replace(controls(), reference=steady, canary=waits(0.1))
    anchored = replace(ANCHOR, milliseconds=0.5, canary=0.2)
    taken = interleaving.take_pairs([LocalNetwork(noisy, beside)], conditions(anchored=anchored))[0]
    assert taken.candidate.shape == (interleaving.MOST_BLOCKS * interleaving.BLOCKS, 25)
    assert order == ["candidate", "reference"] * (len(order) // 2)
    assert any("after 600 pairs" in reason for reason in taken.flagged)


def test_the_ratio_of_known_waits_is_found() -> None:
    taken = interleaving.measure([taking(9.0)], conditions())[0]
    assert taken.candidate.shape == (interleaving.BLOCKS, 10)  # of 10 ms each
    assert taken.ratio == pytest.approx(9.0)


def test_less_is_taken_where_less_is_asked() -> None:
    begun = CLOCK.now
    interleaving.take_pairs([taking(1.5)], conditions())
    thorough = CLOCK.now - begun
    taken = interleaving.take_pairs([taking(1.5)], conditions(within=0.03))[0]
    assert len(taken.candidate) == interleaving.BLOCKS // 2
    assert CLOCK.now - begun - thorough < thorough / 3


class Moved:
    """A machine whose cores share no cache for a while: the canary and the candidate take twice as long."""

    def __init__(self, blocks: float) -> None:
        self.calls_left = blocks * (25 + ready.WARM_PAIRS) + 1  # blocks of 25 pairs of 4 ms, chosen by one call

    def call(self) -> None:
        self.calls_left -= 1
        waits(3.0 if self.calls_left >= 0 else 1.5)()

    def canary(self) -> None:
        waits(0.4 if self.calls_left >= 0 else 0.2)()

    def network(self) -> LocalNetwork:
        return LocalNetwork(self.call, replace(controls(), canary=self.canary))


def test_what_was_taken_while_the_cores_were_elsewhere_is_set_aside() -> None:
    machine = Moved(blocks=3)
    taken = interleaving.take_pairs([machine.network()], conditions(threads=2))[0]
    assert taken.set_aside == 3 * 25
    assert taken.ratio == pytest.approx(1.5)
    assert not any("cores exchanged" in reason for reason in taken.disturbances)
    assert record(taken).set_aside == taken.set_aside


def test_several_candidates_take_turns() -> None:
    order: list[str] = []

    def named(name: str) -> LocalNetwork:
        def call() -> None:
            order.append(name)
            waits(0.3)()

        return LocalNetwork(call, controls(0.3, 0.1))

    anchored = replace(ANCHOR, milliseconds=0.3, canary=1 / 3)
    taken = interleaving.take_pairs([named("a"), named("b")], conditions(anchored=anchored))
    assert [len(one.candidate) for one in taken] == [interleaving.BLOCKS] * 2
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert turns[:8] == ["a", "b"] * 4


def test_cores_that_stay_elsewhere_are_flagged() -> None:
    machine = Moved(blocks=1e9)
    taken = interleaving.take_pairs([machine.network()], conditions(threads=2))[0]
    assert any("the cores exchanged data at" in reason for reason in taken.disturbances)
    assert (taken.away, taken.set_aside) == (True, 0)
    assert record(taken).flagged


def test_out_of_patience_is_no_excuse_for_fewer_blocks() -> None:
    machine = Moved(blocks=1e9)
    elsewhere = replace(conditions(threads=2), patience_seconds=0.0)
    for taken in interleaving.take_pairs([machine.network(), machine.network()], elsewhere):
        assert len(taken.candidate) == interleaving.BLOCKS
        assert taken.away


def test_a_reference_far_from_its_anchor_is_flagged() -> None:
    slow = interleaving.take_pairs([LocalNetwork(waits(3.0), controls(2.0, 0.4))], conditions())[0]
    assert any("of its anchored latency" in reason for reason in slow.disturbances)
    assert slow.ratio == pytest.approx(1.5)


@pytest.mark.parametrize(("patience_seconds", "rounds"), [(12.0, 2), (600.0, 5)])
def test_who_is_patient_repeats_until_nothing_disturbs(
    patience_seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is busy for four rounds."""
    told = iter([("other processes",)] * 4 + [()] * 2)
    monkeypatch.setattr(load, "disturbances", lambda spans, threads, neighbours: next(told))
    patient = replace(conditions(), patience_seconds=patience_seconds)
    taken = interleaving.measure([taking(2.0)], patient)[0]
    assert bool(taken.flagged) == (rounds < 5)
    assert len(list(told)) == 6 - rounds


def test_one_thread_needs_no_other_core() -> None:
    machine = Moved(blocks=1e9)
    taken = interleaving.take_pairs([machine.network()], conditions())[0]
    assert (taken.set_aside, taken.away) == (0, False)
    assert not any("cores exchanged" in reason for reason in taken.disturbances)


def test_a_machine_better_than_its_anchor_is_not_waited_for() -> None:
    begun = CLOCK.now
    taken = interleaving.take_pairs([taking(1.5)], conditions(anchored=replace(ANCHOR, milliseconds=5.0)))[0]
    assert taken.away
    assert len(taken.candidate) == interleaving.BLOCKS
    assert taken.ratio == pytest.approx(1.5)
    assert CLOCK.now - begun < 4


def test_the_usual_state_of_a_machine_is_anchored() -> None:
    """Seven blocks on two dies, one on two threads of one core, three as it should be and one of them a bit slow."""
    milliseconds = np.array([3.1, 3.1, 3.0, 3.2, 3.1, 5.3, 2.9, 3.0, 3.3, 3.0, 3.1, 3.2])
    canaries = np.array([0.2, 0.21, 0.19, 0.2, 0.1, 0.09, 0.11, 0.2, 0.12, 0.1, 0.2, 0.21])
    assert anchor.usual_state(milliseconds, canaries).nonzero()[0].tolist() == [0, 1, 2, 3, 7, 10, 11]
    halves = np.array([1.0, 2.0] * 6)
    assert anchor.usual_state(halves, np.full(12, 0.2)).tolist() == [True, False] * 6, "of two the faster"


class Shared:
    """A machine that runs everything at so many times its best, one number for each block of an anchor in turns, or
    at the one that it is set to.
    """

    def __init__(self, *levels: float) -> None:
        self.levels = levels
        self.set_to = 0.0
        self.canaries = 0  # in a row: nine end a block
        self.blocks = 0

    @property
    def level(self) -> float:
        return self.set_to or self.levels[self.blocks % len(self.levels)]

    def reference(self) -> None:
        self.canaries = 0
        waits(self.level)()

    def canary(self) -> None:
        waits(0.2 * self.level)()
        self.canaries += 1
        self.blocks += self.canaries == CANARY_CALLS

    def network(self, ratio: float = 4.0, slope: float = 1.0) -> LocalNetwork:
        """One that takes so many times the reference at best, and slows down by `slope` when that does by 1 %."""
        beside = replace(controls(), reference=self.reference, canary=self.canary)
        return LocalNetwork(lambda: waits(ratio * self.level**slope)(), beside)


# Of the twelve blocks that an issue tells of: 2.53 was anchored, and the machine ran at 1.3 to 1.5 of that for hours.
LEVELS = (1.0, 1.38, 1.42, 1.35, 1.45, 1.4, 1.02, 1.37, 1.54, 1.44, 1.41, 1.33)


ROUGHLY = 0.1  # of what is asked of a latency: two blocks


@pytest.fixture
def timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InterleavedTimer:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a lane of our own
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(load, "disturbances", lambda *_, **__: ())
    return InterleavedTimer(TARGET, (64, 96), {"threads": "1"}, WATCH, patience_seconds=120.0)


def test_a_good_spell_is_kept_beside_what_is_usual_and_is_not_waited_for(timer: InterleavedTimer) -> None:
    machine = Shared(*LEVELS)
    begun = CLOCK.now
    found = [timer.measure([machine.network()], 0.03)[0] for _ in range(3)]
    kept = anchor.read(anchor.path_of(KEY))
    assert kept is not None
    assert kept.milliseconds == pytest.approx(1.4, rel=0.01)
    assert kept.best_milliseconds == pytest.approx(1.01, rel=0.01)
    assert [latency.flagged for latency in found] == [()] * 3
    assert [latency.p50_milliseconds for latency in found] == pytest.approx([1.4 * 4.0] * 3, rel=0.01)
    assert CLOCK.now - begun < 20


@pytest.mark.parametrize("level", [1.4, 0.7])
def test_a_machine_that_stays_elsewhere_is_anchored_anew_and_waited_for_once(
    level: float, timer: InterleavedTimer
) -> None:
    machine = Shared(1.0)
    assert timer.measure([machine.network()], ROUGHLY)[0].flagged == ()
    machine.set_to = level
    seconds, found = [], []
    for _ in range(anchor.AWAY):
        CLOCK.now += anchor.AWAY_SECONDS / (anchor.AWAY - 1)
        begun = CLOCK.now
        found += timer.measure([machine.network()], ROUGHLY)
        seconds.append(CLOCK.now - begun)
    best = " (1.00 at best)"
    away = f"the machine ran the reference at {level:.2f} of its anchored latency{best}"
    assert [latency.flagged for latency in found] == [(away,)] * (anchor.AWAY - 1) + [()]
    assert {round(latency.ratio, 3) for latency in found} == {4.0}
    assert found[-1].reference_milliseconds == pytest.approx(level)
    assert (seconds[0] > 120 * WITHIN / ROUGHLY) == (level > 1)
    assert max(seconds[1:-1]) < 3 * interleaving.IN_VAIN_SECONDS
    kept = anchor.read(anchor.path_of(KEY))
    assert kept is not None
    assert (kept.milliseconds, kept.best_milliseconds) == (pytest.approx(level), pytest.approx(min(1.0, level)))


def test_a_spell_of_less_than_two_minutes_anchors_nothing(timer: InterleavedTimer) -> None:
    machine = Shared(1.0)
    timer.measure([machine.network()], ROUGHLY)
    machine.set_to = 0.7
    found = [timer.measure([machine.network()], ROUGHLY)[0] for _ in range(2 * anchor.AWAY)]
    assert {round(latency.reference_milliseconds, 3) for latency in found} == {1.0}
    assert all(latency.flagged for latency in found)


def test_good_spells_now_and_then_do_not_end_the_measurements_of_several(timer: InterleavedTimer) -> None:
    machine = Shared(*LEVELS)
    timer.measure([machine.network()], ROUGHLY)
    found = timer.measure([machine.network() for _ in range(6)], 0.03)
    assert [latency.flagged for latency in found] == [()] * 6
    assert sum(latency.set_aside for latency in found) > 0


def test_a_machine_that_comes_back_keeps_its_anchor_and_is_waited_for_again(timer: InterleavedTimer) -> None:
    machine = Shared(1.0)
    for level in (1.0, *[1.4] * (anchor.AWAY - 1), 1.0, 1.4):
        machine.set_to = level
        begun = CLOCK.now
        timer.measure([machine.network()], ROUGHLY)
    assert CLOCK.now - begun > 120 * WITHIN / ROUGHLY
    kept = anchor.read(anchor.path_of(KEY))
    assert kept is not None
    assert (kept.milliseconds, kept.away_milliseconds) == (pytest.approx(1.0), (pytest.approx(1.4),))


def test_a_small_network_is_told_as_on_the_machine_that_was_anchored(timer: InterleavedTimer) -> None:
    """Where small ones slow down by 1.5 % when the reference does by one; what does by 1.8 % is 3 % off, not 8."""
    machine = Shared(1.0)
    timer.measure([machine.network()], ROUGHLY)
    machine.set_to = 1.1
    small, smaller, large, steeper = (
        timer.measure([machine.network(ratio, slope)], ROUGHLY)[0]
        for ratio, slope in ((1.2, 1.5), (0.3, 1.5), (4.0, 1.0), (1.2, 1.8))
    )
    assert [each.ratio for each in (small, smaller, large)] == pytest.approx([1.2, 0.3, 4.0], rel=0.002)
    assert small.ratio / small.corrected == pytest.approx(1.2 * 1.1**0.5, rel=0.002)
    assert large.corrected == 1.0
    assert steeper.ratio == pytest.approx(1.2 * 1.1**0.3, rel=0.002)
    assert (small.ratio_low, small.ratio_high) == pytest.approx((1.2, 1.2), rel=0.002)
    assert small.p50_milliseconds == small.ratio * small.reference_milliseconds


def test_what_nobody_has_looked_at_is_not_corrected() -> None:
    pairs = replace(drifting(1.2), reference=drifting(1.2).reference * 1.1)
    for text, environment in (("onnxruntime@cpu:2", {"threads": "2"}), ("cudagraph@cuda:0", {})):
        found = summarise(pairs, ANCHOR, target=Target.parse(text), size=(64, 96), environment=environment)
        assert found.corrected == 1.0
    assert record(pairs).corrected < 1.0


def test_who_timed_by_an_anchor_takes_over_the_one_that_another_process_took(timer: InterleavedTimer) -> None:
    machine = Shared(1.0)
    timer.measure([machine.network()], ROUGHLY)
    anchor.write(anchor.path_of(KEY), replace(ANCHOR, milliseconds=1.1))
    found = [timer.measure([machine.network()], ROUGHLY)[0].reference_milliseconds for _ in range(2)]
    assert found == [pytest.approx(1.0), 1.1]


def test_a_machine_is_not_anchored_anew_while_something_disturbs_it(
    timer: InterleavedTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Shared(1.0)
    timer.measure([machine.network()], ROUGHLY)
    machine.set_to = 1.4
    monkeypatch.setattr(load, "disturbances", lambda *_, **__: ("others",))
    for _ in range(anchor.AWAY):
        CLOCK.now += anchor.AWAY_SECONDS / (anchor.AWAY - 1)
        timer.measure([machine.network()], ROUGHLY)
    kept = anchor.read(anchor.path_of(KEY))
    assert kept is not None
    assert (kept.milliseconds, kept.away_milliseconds, kept.flagged) == (pytest.approx(1.0), (), ())


def test_where_no_state_is_found_the_anchor_is_flagged() -> None:
    machine = Shared(*(1.2**each for each in range(anchor.ANCHOR_BLOCKS)))
    taken = anchor.take(replace(controls(threads=2), reference=machine.reference, canary=machine.canary))
    assert machine.blocks == 2 * anchor.ANCHOR_BLOCKS  # it was tried twice
    assert "only 1 of 12 blocks were alike" in taken.flagged
    assert (taken.milliseconds, taken.canary) == (pytest.approx(1.0), pytest.approx(0.2))


def test_what_others_do_is_told_from_what_we_do() -> None:
    before = load.Snapshot(
        wall=0.0, own=0.0, waiting=0.0, pinned_busy=0.0, pinned_stolen=0.0,
        machine_busy=0.0, machine_cores=4, pinned_cores=1,
    )  # fmt: skip
    quiet = replace(before, wall=1.0, own=0.98, pinned_busy=1.0, machine_busy=1.1)
    assert load.disturbances([(before, quiet)], threads=1) == ()
    shared = replace(quiet, own=0.7)
    assert "30% of the cores timed on" in load.disturbances([(before, shared)], threads=1)[0]
    beside = replace(quiet, machine_busy=3.0)
    assert "of the machine" in load.disturbances([(before, beside)], threads=1)[0]
    assert load.disturbances([(before, beside)], threads=1, neighbours=False) == (), "a GPU has one core beside it"
    assert load.disturbances([(before, shared)], threads=1, neighbours=False), "which is its own"
    kept_waiting = replace(quiet, waiting=0.2)
    assert "waited for a core 20%" in load.disturbances([(before, kept_waiting)], threads=1)[0]
    assert load.disturbances([(before, quiet)] * 5 + [(before, shared)], threads=1) == ()  # 5 % of it all
    hot = replace(quiet, throttles=2)
    assert load.disturbances([(before, hot)], threads=1) == ("heat slowed the cores timed on down 2 times",)
    cooking = replace(quiet, gpu=gpu.GpuState(reasons=0x20 | 0x1))
    assert load.disturbances([(before, quiet), (before, cooking), (before, quiet)], threads=1) == (
        "heat held the GPU's clocks down",
    )
    idle, busy = (replace(state, gpu=gpu.GpuState(others={7: used})) for state, used in ((before, 0.0), (quiet, 0.9)))
    assert load.disturbances([(idle, busy)], threads=1) == ("other processes computed on the GPU: 1",)
    assert load.disturbances([(idle, busy), *[(before, quiet)] * 20], threads=1) == ()  # 4 % of it all
    stolen = replace(quiet, pinned_stolen=0.1)
    assert "hypervisor took 10%" in load.disturbances([(before, stolen)], threads=1)[0]


def test_counters_of_this_machine_move() -> None:
    before = load.snapshot()
    end = time.perf_counter() + 0.1
    while time.perf_counter() < end:
        pass
    after = load.snapshot()
    assert after.wall - before.wall >= 0.1
    assert after.own - before.own > 0.01
    assert after.machine_busy > before.machine_busy
    assert 1 <= after.pinned_cores <= after.machine_cores


def test_an_anchor_is_taken_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = {"runtime": "torch", "precision": "fp32", "size": "64x96", "cpu": "a: 'strange' # one"}
    kept = replace(ANCHOR, milliseconds=7.5, device=device)
    anchor.write(anchor.path_of(device), kept)
    assert anchor.obtain(controls(key=device)) == kept
    assert anchor.path_of(device).parent == tmp_path / "framebudget" / "anchors"
    assert anchor.path_of(device) != anchor.path_of(device | {"cpu": "another"})
    assert [path.suffix for path in (tmp_path / "framebudget" / "anchors").iterdir()] == [".yaml"]


def test_a_missing_or_damaged_anchor_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = {"runtime": "torch", "precision": "fp32", "size": "64x96"}
    path = anchor.path_of(device)
    path.parent.mkdir(parents=True)
    path.write_text("milliseconds: [")
    taken = anchor.obtain(controls(2.0, key=device))
    assert 2.0 <= taken.milliseconds < 20
    assert anchor.read(path) == taken
    assert len(taken.blocks_milliseconds) == anchor.ANCHOR_BLOCKS


def test_an_anchor_from_a_disturbed_machine_is_replaced_on_a_quiet_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(anchor, "FEWEST_ALIKE", 0)
    marked = replace(ANCHOR, milliseconds=9e9, flagged=("busy",))
    anchor.write(anchor.path_of(KEY), marked)
    monkeypatch.setattr(load, "disturbances", lambda *_, **__: ("busy",))  # whether it is quiet is not ours to say
    assert anchor.obtain(controls()) == marked
    monkeypatch.setattr(load, "disturbances", lambda *_, **__: ())
    fresh = anchor.obtain(controls())
    assert fresh.milliseconds < 9e9
    assert fresh.flagged == ()
    assert anchor.obtain(controls()) == fresh


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        anchor.write(anchor.path_of({}), ANCHOR)
