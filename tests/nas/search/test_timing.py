"""Timing in several precisions: each network counts in its fastest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

import space
from nas.data.fingerprint import Fingerprint
from nas.errors import BusyError, HaltedError, TargetError, UnmeasuredError
from nas.latency.careful import time_each
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency, OtherPrecision, Statistic
from nas.latency.target import Target
from nas.latency.worker.replies import LostError
from nas.runs.data_seen import hold_to_data
from nas.runs.earlier import read_earlier, take_over
from nas.runs.folder import RunFolder
from nas.search.measure.remembered import RememberedTiming
from nas.search.measure.timing import FastestTiming, Timing, local_timing
from nas.search.propose.proposals import Proposals
from nas.search.search import Candidate, Search
from nas.study import SearchPlan, Study, built_in_study
from space import Architecture, UserError, strict
from space.scale import NARROWEST, scale_width

SMALL, LARGE = scale_width(space.load("ndnet45-fcn32"), 0.1), scale_width(space.load("ndnet45-fcn32"), 0.2)
OTHER_LABELS = "it gives other labels than PyTorch"


@dataclass
class Machine:
    """A machine with prepared latencies of networks in one precision, which refuses all other networks."""

    target: str
    invented: Callable[[float], Latency]
    milliseconds: dict[str, float] = field(default_factory=dict)

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        if architecture.key not in self.milliseconds:
            raise TargetError(OTHER_LABELS)
        return replace(self.invented(self.milliseconds[architecture.key]), target=self.target)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]

    def halt(self) -> None:
        raise AssertionError("nothing is measured by another thread")


@pytest.fixture
def timing(invented: Callable[[float], Latency]) -> FastestTiming:
    """Timing on a machine where INT8 pays only for the large network, and the control is timed in each precision."""
    control = scale_width(space.load("ndnet45-fcn32"), NARROWEST).key
    whole = Machine("openvino@cpu:1", invented, {SMALL.key: 1.0, LARGE.key: 4.0, control: 1.0})
    int8 = Machine("openvino:int8@cpu:1", invented, {SMALL.key: 1.5, LARGE.key: 2.0, control: 1.0})
    return FastestTiming([whole, int8])


def test_each_network_counts_in_its_fastest_precision(timing: FastestTiming) -> None:
    found = timing.measure_together([SMALL, LARGE])
    assert [(each.p50_milliseconds, each.target) for each in found] == [
        (1.0, "openvino@cpu:1"),
        (2.0, "openvino:int8@cpu:1"),
    ]
    assert timing.measure(LARGE) == found[1]


def test_the_record_holds_the_latencies_in_other_precisions(timing: FastestTiming) -> None:
    small, large = timing.measure_together([SMALL, LARGE])
    assert [(each.precision, each.p50_milliseconds) for each in small.other_precisions] == [("int8", 1.5)]
    assert [(each.precision, each.p50_milliseconds) for each in large.other_precisions] == [("fp32", 4.0)]
    assert strict.parse(strict.dump(large), Latency, "a record") == large
    alone = replace(large, other_precisions=())
    assert "other_precisions" not in strict.dump(alone), "records of one precision are what they were"
    assert strict.parse(strict.dump(alone), Latency, "a record of an earlier version") == alone


@dataclass
class Arithmetic(Machine):
    """A machine whose latencies depend on multiply-adds alone; it counts its timings."""

    share: float = 1.0
    timed: int = 0

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        self.timed += 1
        milliseconds = self.share * (0.1 + space.multiply_adds(architecture, (180, 240), 11) / 1e8)
        return replace(self.invented(milliseconds), target=self.target)


def both(invented: Callable[[float], Latency]) -> FastestTiming:
    """A machine on which INT8 takes a tenth longer."""
    return FastestTiming(
        [Arithmetic("openvino@cpu:1", invented), Arithmetic("openvino:int8@cpu:1", invented, share=1.1)]
    )


IN_INT8 = re.compile(r"^ +0:\d\d  time    (.{24}) +([\d.]+)[ ?] of 10 ms in fp32 \(int8 ([\d.]+)(\??)\)  ", re.M)


def test_a_run_records_and_prints_latencies_of_candidates_in_other_precisions(
    tmp_path: Path,
    search_of: Callable[[RunFolder], Search],
    invented: Callable[[float], Latency],
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = SearchPlan(seeds=("ndnet29-fcn32",), random_trials=0, guided_trials=0)
    asked = replace(built_in_study("10ms"), target="openvino@cpu:1", precisions=("fp32", "int8"), search=plan)
    run = RunFolder.create(tmp_path / "run", asked)
    source = Proposals(search_of(run), both(invented), None)
    trial = source.next()
    assert trial is not None
    source.finished(trial, failed="pretended")
    latency = trial.latency
    assert latency is not None
    (int8,) = latency.other_precisions
    assert int8.precision == "int8"
    assert int8.p50_milliseconds == pytest.approx(1.1 * latency.p50_milliseconds)
    said = IN_INT8.search(capsys.readouterr().out)
    assert said is not None
    assert (said[1].strip(), float(said[3])) == (trial.name, round(int8.p50_milliseconds, 2))

    untouched = both(invented)
    for budget in ("10ms", "5ms"):  # resumed, then with a budget that the candidate exceeds
        run.write_study(replace(run.study(), budget=budget))
        Proposals(search_of(run), untouched, None)
        (again,) = run.trials()
        assert (again.latency, again.feasible) == (latency, budget == "10ms")
    assert [each.timed for each in untouched._timings] == [0, 0]  # type: ignore[attr-defined]

    seen = Fingerprint(classes=(), train_images="", train_labels="", validation_images="", validation_labels="")
    hold_to_data(run.root, seen, root=None, begun=False)
    new = RunFolder.create(tmp_path / "new", run.study())
    take_over(new, new.study(), seen, [run])
    timing = RememberedTiming(both(invented), read_earlier(new).latencies)
    timing.measure(SMALL)
    assert timing.measure(trial.architecture) == latency


def test_a_search_in_one_precision_prints_no_other_precisions(
    tmp_path: Path,
    search_of: Callable[[RunFolder], Search],
    invented: Callable[[float], Latency],
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = replace(built_in_study("10ms"), target="openvino@cpu:1", precisions=("fp32", "int8"))
    search = search_of(RunFolder.create(tmp_path / "run", study))
    candidate = Candidate(name="a", origin="random", architecture=SMALL)
    latency = FastestTiming([Arithmetic("openvino@cpu:1", invented)]).measure(SMALL)
    search.console.proposed(search.trial(1, candidate, latency))
    busy = OtherPrecision.of(replace(invented(12.0), target="openvino:int8@cpu:1", flagged=("a busy machine",)))
    search.console.proposed(search.trial(2, candidate, replace(latency, other_precisions=(busy,))))
    alone, beside = capsys.readouterr().out.splitlines()
    assert " in fp32  " in alone
    assert " in fp32 (int8 12.00?)  " in beside


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"precision": "int4"}, "expected one of fp32, fp16, bf16, int8, got 'int4'"),
        ({"p50_milliseconds": -1.0}, "expected p50_milliseconds of a latency to be positive"),
        ({"ci_low_milliseconds": 9.0}, "expected the interval of a latency as low <= high"),
    ],
)
def test_damaged_records_of_other_precisions_are_refused(
    changes: dict[str, Any], problem: str, invented: Callable[[float], Latency]
) -> None:
    with pytest.raises(UserError, match=problem):
        replace(OtherPrecision.of(invented(2.0)), **changes)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [((2e-9, 1e-9), 1e-9), ((1e-9, 2e-9), 1e-9), ((1e-9, None), 1e-9), ((None, 1e-9), 1e-9), ((None, None), None)],
)
def test_the_latency_table_is_that_of_the_fastest_precision_with_a_table(
    prices: tuple[float | None, ...], expected: float | None
) -> None:
    @dataclass
    class Calibrated:
        price: float | None

        def kept_table(self) -> LatencyTable | None:
            if self.price is None:
                return None
            return LatencyTable(
                target="openvino@cpu:1", height=64, width=96, milliseconds={},
                unit_milliseconds={"multiply_adds": self.price}, networks=20, seconds=1.0, error=0.1, environment={},
            )  # fmt: skip

    table = FastestTiming([cast(Timing, Calibrated(price)) for price in prices]).kept_table()
    assert (table and table.unit_milliseconds["multiply_adds"]) == expected


def test_a_network_refused_in_one_precision_is_timed_in_another(timing: FastestTiming) -> None:
    whole, int8 = timing._timings
    del int8.milliseconds[LARGE.key]  # type: ignore[attr-defined]
    assert timing.measure(LARGE).target == "openvino@cpu:1"
    del whole.milliseconds[LARGE.key]  # type: ignore[attr-defined]
    small, large = time_each(timing, [SMALL, LARGE], within=WITHIN)
    assert isinstance(small, Latency)
    assert isinstance(large, UnmeasuredError)
    assert OTHER_LABELS in str(large)


def test_a_precision_in_which_no_network_can_be_timed_any_more_is_left_out(
    invented: Callable[[float], Latency],
) -> None:
    whole = Machine("openvino@cpu:1", invented, {SMALL.key: 1.0, LARGE.key: 4.0})
    timing = FastestTiming([whole, Machine("openvino:int8@cpu:1", invented)])  # not even the control
    assert [each.target for each in timing.measure_together([SMALL, LARGE])] == ["openvino@cpu:1"] * 2
    assert [OTHER_LABELS in reason for reason in timing.left_out()] == [True]
    assert timing.measure(LARGE).target == "openvino@cpu:1"
    with pytest.raises(TargetError, match=OTHER_LABELS):
        FastestTiming([Machine("openvino:int8@cpu:1", invented)]).measure(SMALL)


def lost_link() -> HaltedError:
    error = HaltedError("the connection was lost, and lost again")
    error.__cause__ = LostError("ended with code 255", ended=True, code=255)
    return error


@pytest.mark.parametrize("passing", [BusyError("others hold the memory"), lost_link()], ids=["busy", "lost"])
def test_a_passing_error_leaves_out_no_precision(passing: UserError, invented: Callable[[float], Latency]) -> None:
    class Passing(Machine):
        def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = 1.0) -> Latency:
            raise passing

    timing = FastestTiming([Machine("openvino@cpu:1", invented, {SMALL.key: 1.0}), Passing("", invented)])
    with pytest.raises(HaltedError, match=str(passing)):
        timing.measure(SMALL)
    assert timing.left_out() == ()


def test_a_lower_precision_must_be_surely_faster_in_the_statistic_of_the_budget(
    invented: Callable[[float], Latency],
) -> None:
    def of_large(milliseconds: float, target: str, **changes: float) -> Latency:
        return replace(invented(milliseconds), target=target, **changes)

    class Fixed(Machine):
        def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = 1.0) -> Latency:
            return self.invented(0.0)

    def chosen(whole: Latency, int8: Latency, statistic: Statistic = "p50") -> str:
        machines = [Fixed(each.target, lambda _, each=each: each) for each in (whole, int8)]  # type: ignore[misc]
        return FastestTiming(machines, statistic=statistic).measure(LARGE).target

    whole = of_large(10.0, "openvino@cpu:1", ci_low_milliseconds=9.9, ci_high_milliseconds=10.1)
    inside = of_large(9.95, "openvino:int8@cpu:1", ci_low_milliseconds=9.8, ci_high_milliseconds=10.1)
    faster = of_large(8.0, "openvino:int8@cpu:1", p90_milliseconds=12.0, p99_milliseconds=12.0)
    assert chosen(whole, inside) == "openvino@cpu:1"
    assert chosen(whole, faster) == "openvino:int8@cpu:1"
    assert chosen(whole, faster, "p90") == "openvino@cpu:1"


def test_the_highest_precision_that_no_other_surely_beats_counts(invented: Callable[[float], Latency]) -> None:
    """bf16 is not surely faster than fp32, nor int8 than bf16; int8 is than fp32."""
    ends = {"": (10.0, 11.0), ":bf16": (9.0, 10.5), ":int8": (8.5, 9.5)}
    latencies = [
        replace(
            invented((low + high) / 2), target=f"openvino{precision}@cpu:1", ratio_low=low, ratio_high=high,
            ci_low_milliseconds=low, ci_high_milliseconds=high,
        )
        for precision, (low, high) in ends.items()
    ]  # fmt: skip

    class Fixed(Machine):
        def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = 1.0) -> Latency:
            return self.invented(0.0)

    machines = [Fixed(each.target, lambda _, each=each: each) for each in latencies]  # type: ignore[misc]
    assert FastestTiming(machines).measure(LARGE).target == "openvino:bf16@cpu:1"


@pytest.mark.slow
def test_a_missing_precision_is_left_out_with_its_reason() -> None:
    targets = [Target(runtime="null", threads=1, precision=precision) for precision in ("fp32", "int8")]
    with local_timing(targets, (32, 48), 3, patience_seconds=0) as timing:
        (reason,) = timing.left_out()
        assert "null does not run int8 on cpu" in reason
        assert timing.measure(SMALL).target == "null@cpu:1"
    with pytest.raises(TargetError, match="null does not run int8 on cpu"), local_timing(targets[1:], (32, 48), 3):
        pass


def test_a_trial_ships_in_its_fastest_precision(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], invented: Callable[[float], Latency]
) -> None:
    study = replace(built_in_study("10ms"), target="openvino@cpu:1", precisions=("int8", "fp32"))
    search = search_of(RunFolder.create(tmp_path / "run", study))
    assert [str(target) for target in search.targets] == ["openvino@cpu:1", "openvino:int8@cpu:1"]
    candidate = Candidate(name="", origin="random", architecture=SMALL)
    trial = search.trial(1, candidate, replace(invented(2.0), target="openvino:int8@cpu:1"))
    assert search.ships_on(trial) == search.targets[1]


@pytest.mark.parametrize(
    ("target", "precisions", "problem"),
    [
        ("", ("int4",), "expected some of fp32, fp16, bf16, int8, got 'int4'"),
        ("", ("int8", "int8"), "expected each precision once"),
        (
            "openvino:int8@cpu",
            ("fp32", "int8"),
            "expected a target without a precision of its own, got openvino:int8@cpu",
        ),
    ],
)
def test_impossible_precisions_are_refused(target: str, precisions: tuple[str, ...], problem: str) -> None:
    asked = built_in_study("10ms")
    with pytest.raises(UserError, match=problem):
        Study(data=asked.data, budget="10ms", recipe=asked.recipe, target=target, precisions=precisions)
