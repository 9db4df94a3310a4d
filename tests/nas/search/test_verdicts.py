"""Certificates of finalists with unsure latencies, on an invented machine that may be busy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import space
from nas.errors import TargetError, UnmeasuredError
from nas.latency.careful import CONTROL
from nas.latency.meter import Measures, MeasuresFinished, MeterOf
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.certificate import Deployed, read_certificate
from nas.runs.trial import Epoch, append_epoch
from nas.search.finish.finishing import certify_best
from nas.search.finish.shipping import certify_trial
from nas.search.search import Candidate, Search
from nas.training import Scores
from nas.training.weights import save_weights
from space import Architecture
from space.network import Network
from space.scale import NARROWEST, scale_width

Invented = Callable[[float], Latency]
Shallow = Callable[[str], Architecture]


def between(latency: Latency, low: float, high: float, flagged: tuple[str, ...] = ()) -> Latency:
    return replace(latency, ci_low_milliseconds=low, ci_high_milliseconds=high, flagged=flagged)


@dataclass
class Machine:
    """A machine with prepared latencies: it refuses other networks except the control, which proves that it works."""

    control: Latency
    certified: dict[str, Latency] = field(default_factory=dict)
    """Latencies by the key of an architecture."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        if architecture == scale_width(space.load(CONTROL), NARROWEST):
            return self.control
        if architecture.key not in self.certified:
            raise TargetError("fp16 gives other labels than PyTorch")
        return self.certified[architecture.key]


def competing(
    asked: Search, invented: Invented, intervals: Sequence[tuple[float, float] | None], shallow: Shallow
) -> tuple[list[Architecture], MeterOf]:
    """Finalists, the best first, and the meter of their certificates, with these intervals or refusals."""
    machine = Machine(invented(1.0))
    architectures = [scale_width(shallow("ndnet29-fcn32"), factor) for factor in (0.10, 0.15)]
    for number, (architecture, interval) in enumerate(zip(architectures, intervals, strict=True)):
        trial = asked.trial(number + 1, Candidate(name="", origin="random", architecture=architecture), invented(9.5))
        asked.run.write_trial(trial)
        folder, scores = (
            asked.run.phase_path(trial, "search"),
            Scores(miou=0.5 - number / 10, pixel_accuracy=0.5, class_iou=()),
        )
        append_epoch(folder, Epoch(epoch=1, epochs=1, loss=1.0, seconds=1.0, scores=scores))
        save_weights(folder / "weights.safetensors", architecture.build(asked.num_classes).state_dict(), {})
        if interval is not None:
            machine.certified[architecture.key] = between(invented(sum(interval) / 2), *interval)

    @contextlib.contextmanager
    def meter_of(target: Target, size: tuple[int, int], num_classes: int) -> Iterator[Measures]:
        yield machine

    return architectures, meter_of


def finalist(asked: Search, architecture: Architecture, latency: Latency, network: Network | None = None) -> None:
    """Record a trial with a finished training and its weights."""
    number = len(asked.run.trials()) + 1
    trial = asked.trial(number, Candidate(name="", origin="random", architecture=architecture), latency)
    asked.run.write_trial(trial)
    folder, scores = asked.run.phase_path(trial, "search"), Scores(miou=0.5, pixel_accuracy=0.5, class_iou=())
    append_epoch(folder, Epoch(epoch=1, epochs=1, loss=1.0, seconds=1.0, scores=scores))
    network = network or architecture.build(asked.num_classes)
    save_weights(folder / "weights.safetensors", network.state_dict(), {})


@pytest.mark.share(3)
@pytest.mark.parametrize(
    ("intervals", "winner", "verdict"),
    [
        (((9.0, 12.0), (8.0, 9.0)), 1, "PASS"),  # the best may be over the budget, the second surely is not
        (((11.0, 12.0), (9.0, 11.0)), 1, "UNSURE"),
        ((None, (10.5, 11.0)), 1, "FAIL"),  # the best one cannot be timed
    ],
)
def test_a_finalist_that_passes_is_preferred(
    intervals: Sequence[tuple[float, float] | None],
    winner: int,
    verdict: str,
    asked: Search,
    invented: Invented,
    shallow: Shallow,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from nas.data import load

    asked = replace(asked, dataset=load(asked.study.data))
    architectures, meter_of = competing(asked, invented, intervals, shallow)
    certificate = certify_best(asked, meter_of, asked.budgets.largest, asked.run.winner)
    assert (certificate.architecture, certificate.verdict) == (architectures[winner].key, verdict)
    assert read_certificate(asked.run.winner) == certificate
    assert certificate.passed == {"PASS": True, "FAIL": False, "UNSURE": None}[verdict]
    assert bool(certificate.unsure) == (verdict == "UNSURE")
    asked.console.answer("", certificate, Path("report.html"))
    told = capsys.readouterr().out
    assert f"certificate: {verdict}" in told
    assert ("left out: fp16 gives other labels than PyTorch" in told) == (None in intervals)
    assert (f"nas measure {asked.run.root} --target onnxruntime@cpu:1" in told) == (verdict == "UNSURE")


@pytest.mark.parametrize("has_room", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_another_finalist_is_certified_if_there_is_time_and_replaces_only_a_worse_one(
    has_room: bool, asked: Search, invented: Invented, shallow: Shallow
) -> None:
    from nas.data import load

    asked = replace(asked, dataset=load(asked.study.data))
    architectures, meter_of = competing(asked, invented, ((9.0, 12.0), (10.5, 11.0)), shallow)
    timed: list[Target] = []
    told: list[float] = []

    def counted(target: Target, size: tuple[int, int], num_classes: int) -> contextlib.AbstractContextManager[Any]:
        timed.append(target)
        return meter_of(target, size, num_classes)

    def room(seconds: float) -> bool:
        told.append(seconds)
        return has_room

    certificate = certify_best(asked, counted, asked.budgets.largest, asked.run.winner, room)
    assert (certificate.architecture, certificate.verdict) == (architectures[0].key, "UNSURE")
    assert read_certificate(asked.run.winner) == certificate
    assert len(timed) == 1 + has_room, "none twice"
    assert len(told) == 1
    assert told[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_an_earlier_certified_network_is_replaced_only_by_one_that_is_no_worse(
    same: bool, asked: Search, invented: Invented, shallow: Shallow
) -> None:
    from nas.data import load

    asked = replace(asked, dataset=load(asked.study.data))
    architectures, meter_of = competing(asked, invented, ((10.5, 11.0), (8.0, 9.0)), shallow)
    budget, second = asked.budgets.largest, asked.run.trials()[1]
    before = certify_trial(asked, second, None, meter_of, budget, asked.run.winner)
    if not same:  # it was trained anew
        weights = asked.run.phase_path(second, "search") / "weights.safetensors"
        save_weights(weights, second.architecture.build(asked.num_classes).state_dict(), {})
    certificate = certify_best(asked, meter_of, budget, asked.run.winner, lambda seconds: False)
    assert read_certificate(asked.run.winner) == certificate
    assert (certificate == before) == same
    assert certificate.architecture == architectures[int(same)].key


@dataclass
class Certifier(Machine):
    """A machine with one latency of a network in full precision, or a refusal, and one of a graph."""

    target: str = ""
    whole: Latency | None = None
    graph: Latency | None = None

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        if self.whole is None:
            raise UnmeasuredError("fp16 gives other labels than PyTorch")
        return replace(self.whole, target=self.target)

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        assert self.graph is not None
        return replace(self.graph, target=self.target)


def certifier(wholes: Sequence[Latency | None], lower: Latency) -> tuple[list[str], MeterOf]:
    """The targets of timings in order, and a meter with these latencies in full precision and in a lower one."""
    timed: list[str] = []

    @contextlib.contextmanager
    def meter_of(target: Target, size: tuple[int, int], num_classes: int) -> Iterator[MeasuresFinished]:
        whole = wholes[min(timed.count(str(target)), len(wholes) - 1)]
        timed.append(str(target))
        yield Certifier([lower], target=str(target), whole=whole, graph=lower)

    return timed, meter_of


@pytest.fixture
def in_int8_too(asked: Search) -> Search:
    """A search in two precisions of OpenVINO, with its data."""
    from nas.data import load

    study = replace(asked.study, target="openvino@cpu:1", precisions=("fp32", "int8"))
    return replace(asked, study=study, dataset=load(study.data))


@pytest.mark.parametrize("times_whole", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_finalist_is_scored_and_certified_in_its_fastest_precision(
    times_whole: bool, in_int8_too: Search, invented: Invented, shallow: Shallow, capsys: pytest.CaptureFixture[str]
) -> None:
    latency = replace(invented(9.5), target="openvino:int8@cpu:1")
    architecture = scale_width(shallow("ndnet29-fcn32"), 0.10)
    network = architecture.build(in_int8_too.num_classes)
    with torch.no_grad():
        convolution = next(each for each in network.modules() if isinstance(each, torch.nn.Conv2d))
        convolution.weight[:, 0, 0, 0] *= 1000
    finalist(in_int8_too, architecture, replace(latency, p50_milliseconds=7.0), network)
    timed, meter_of = certifier([between(invented(19.0), 18.9, 19.1) if times_whole else None], latency)
    certificate = certify_best(in_int8_too, meter_of, in_int8_too.budgets.largest, in_int8_too.run.winner)
    assert timed[-1] == "openvino:int8@cpu:1"
    assert set(timed[:-1]) == {"openvino@cpu:1"}
    if times_whole:
        assert len(timed) == 2, "one form more"
        whole, kept = certificate.compared
        assert (whole.form, whole.p50_milliseconds, whole.miou) == ("openvino@cpu:1", 19.0, None)
        assert whole.verdict == "takes 2.00 times as long as openvino:int8@cpu:1"
        assert (kept.form, kept.p50_milliseconds, kept.verdict) == ("openvino:int8@cpu:1", 9.5, "kept")
        assert (kept.miou, kept.same_labels) == (certificate.miou, certificate.onnx_same_labels)
    else:
        assert certificate.compared == ()
    told = capsys.readouterr().out
    assert ("not compared with openvino@cpu:1: fp16 gives other labels than PyTorch" in told) != times_whole
    (warning,) = (line for line in told.splitlines() if "range so widely that INT8 rounds most of them" in line)
    assert "stem.conv0" in warning
    assert read_certificate(in_int8_too.run.winner) == certificate
    assert certificate.precision == "int8"
    assert certificate.form == "openvino:int8@cpu:1"
    assert certificate.scored.endswith(", by openvino:int8@cpu:1")
    assert certificate.miou_float32 is not None


@pytest.mark.parametrize(
    ("whole", "precision"),
    [
        ([(9.6, 9.8), (9.7, 9.8)], "fp32"),
        pytest.param([(9.7, 10.7)], "int8", marks=pytest.mark.slow),  # full precision may be over the budget
        pytest.param([(9.9, 10.0)], "int8", marks=pytest.mark.slow),  # INT8 is surely faster
    ],
)
def test_a_lower_precision_no_longer_surely_faster_gives_way_to_full_precision(
    whole: Sequence[tuple[float, float]],
    precision: str,
    in_int8_too: Search,
    invented: Invented,
    shallow: Shallow,
    capsys: pytest.CaptureFixture[str],
) -> None:
    architecture = scale_width(shallow("ndnet29-fcn32"), 0.10)
    finalist(in_int8_too, architecture, replace(invented(7.0), target="openvino:int8@cpu:1"))
    timed, meter_of = certifier([taken(invented, *each) for each in whole], taken(invented, 9.4, 9.8))
    certificate = certify_best(in_int8_too, meter_of, in_int8_too.budgets.largest, in_int8_too.run.winner)
    assert (certificate.precision, certificate.verdict) == (precision, "PASS")
    assert read_certificate(in_int8_too.run.winner) == certificate
    assert timed[:2] == ["openvino@cpu:1", "openvino:int8@cpu:1"]
    given_up = "openvino:int8@cpu:1 takes 0.99 times as long as openvino@cpu:1, not significantly faster"
    assert (f"{given_up}: certified in full precision" in capsys.readouterr().out) == (precision == "fp32")
    kept, left = sorted(certificate.compared, key=lambda each: each.verdict != "kept")
    assert (kept.p50_milliseconds, kept.verdict) == (certificate.latency.p50_milliseconds, "kept")
    if precision == "int8":
        assert len(timed) == 2
        assert kept.form == certificate.form
        assert re.match(r"takes 1\.0[46] times as long as openvino:int8@cpu:1(, .* may be .*)?$", left.verdict)
        assert ("over" in left.verdict) == (whole == [(9.7, 10.7)])
        return
    assert timed[2:] == ["openvino@cpu:1"]
    assert certificate.form == ""
    assert "by PyTorch in float32" in certificate.scored
    assert (kept.form, kept.p50_milliseconds) == ("openvino@cpu:1", 9.75)
    assert (left.form, left.p50_milliseconds) == ("openvino:int8@cpu:1", pytest.approx(9.6))
    assert left.verdict == "takes 0.98 times as long as openvino@cpu:1, not significantly faster", "than as certified"
    assert left.miou is not None


@pytest.mark.parametrize("again", [(9.7, 10.7), pytest.param(None, marks=pytest.mark.slow)])
def test_a_lower_precision_that_passes_is_kept_if_full_precision_does_not_pass(
    again: tuple[float, float] | None,
    in_int8_too: Search,
    invented: Invented,
    shallow: Shallow,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finalist(
        in_int8_too, scale_width(shallow("ndnet29-fcn32"), 0.10), replace(invented(7.0), target="openvino:int8@cpu:1")
    )
    wholes = [taken(invented, 9.6, 9.8), None if again is None else taken(invented, *again)]
    timed, meter_of = certifier(wholes, taken(invented, 9.4, 9.8))
    int8 = Deployed(
        graph=b"a graph",
        form="openvino:int8@cpu:1",
        scored_by="nobody",
        scores=Scores(miou=0.4, pixel_accuracy=0.5, class_iou=(0.4,) * in_int8_too.num_classes),
        same_labels=0.9,
        miou_float32=0.5,
    )
    (trial,) = in_int8_too.run.trials()
    certificate = certify_trial(in_int8_too, trial, int8, meter_of, in_int8_too.budgets.largest, in_int8_too.run.winner)
    assert timed == 2 * ["openvino@cpu:1", "openvino:int8@cpu:1"]
    assert (certificate.precision, certificate.verdict) == ("int8", "PASS")
    assert read_certificate(in_int8_too.run.winner) == certificate
    assert (certificate.miou, certificate.form) == (0.4, "openvino:int8@cpu:1")
    told = capsys.readouterr().out
    assert "not significantly faster: certified in full precision" in told
    left, kept = certificate.compared
    assert (left.form, kept.form) == ("openvino@cpu:1", "openvino:int8@cpu:1")
    assert (kept.p50_milliseconds, kept.verdict) == (certificate.latency.p50_milliseconds, "kept")
    if again is None:
        assert (left.p50_milliseconds, left.verdict) == (None, "left out: fp16 gives other labels than PyTorch")
        assert "openvino@cpu:1: left out: fp16 gives other labels than PyTorch: certified in int8 after all" in told
    else:
        assert left.p50_milliseconds == pytest.approx(10.2)
        assert left.verdict.endswith("and may be inside 10ms, or over it")
        assert "on openvino@cpu:1 at 180x240 may be inside 10ms, or over it: certified in int8 after all" in told


def taken(invented: Invented, low: float, high: float) -> Latency:
    """A latency in the middle of an interval, which is also that of its ratio."""
    found = between(invented((low + high) / 2), low, high)
    return replace(found, ratio_low=low / 5, ratio_high=high / 5)


@pytest.mark.slow
def test_a_finalist_that_crashes_its_runtime_is_left_out(
    asked: Search,
    invented: Invented,
    shallow: Shallow,
    brittle: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from nas.data import load

    brittle("all")
    study = replace(asked.study, target="brittle@cpu:1", precisions=("fp32", "int8"))
    asked = replace(asked, study=study, dataset=load(study.data))
    crashes, goes_on = (scale_width(shallow("ndnet29-fcn32"), factor) for factor in (0.10, 0.15))
    finalist(asked, crashes, replace(invented(9.0), target="brittle:int8@cpu:1"))
    finalist(asked, goes_on, replace(invented(9.5), target="brittle@cpu:1"))

    @contextlib.contextmanager
    def meter_of(target: Target, size: tuple[int, int], num_classes: int) -> Iterator[Measures]:
        yield Machine(invented(1.0), certified={goes_on.key: replace(invented(9.5), target=str(target))})

    certificate = certify_best(asked, meter_of, asked.budgets.largest, asked.run.winner)
    assert (certificate.architecture, certificate.verdict) == (goes_on.key, "PASS")
    assert "left out: brittle:int8@cpu:1: its process was killed by signal 11" in capsys.readouterr().out


def test_finalists_that_all_cannot_be_timed_are_refused_with_the_reason(
    asked: Search, invented: Invented, shallow: Shallow
) -> None:
    from nas.data import load

    asked = replace(asked, dataset=load(asked.study.data))
    _, meter_of = competing(asked, invented, (None, None), shallow)
    with pytest.raises(UnmeasuredError, match="fp16 gives other labels than PyTorch"):
        certify_best(asked, meter_of, asked.budgets.largest, asked.run.winner)
    assert not asked.run.winner.exists()
