"""Prices of work, found from latencies that are known sums; interrupted calibrations; tables of several hosts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import space
from nas.errors import ExportError, TargetError
from nas.latency.estimates import calibration
from nas.latency.estimates.prices import fit_prices
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine import device_key
from nas.latency.protocol import anchor
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError, reason_of
from nas.storage.files import write_text
from nas.surrogate.agreement import kendall_tau
from nas.terminal import ProgressLine
from space import strict
from space.architecture import Architecture
from space.errors import UserError

STUDY = Path(__file__).parents[3] / "studies" / "latency" / "calibration"
SIZE = (64, 96)
NOBODY = ProgressLine(silent=True)


def invented_works(count: int, seed: int) -> list[dict[str, float]]:
    random = np.random.default_rng(seed)
    kinds = ("conv 1x1", "conv 3x3", "depthwise", "plain conv 1x1")
    return [
        {f"{kind} multiply_adds": float(random.lognormal(14, 1)) for kind in kinds if random.random() < 0.8}
        | {f"{kind} count": float(random.integers(1, 40)) for kind in kinds}
        for _ in range(count)
    ]


PRICES = {
    "conv 1x1 multiply_adds": 2e-8, "conv 3x3 multiply_adds": 1e-8, "depthwise multiply_adds": 6e-8,
    "plain conv 1x1 multiply_adds": 4e-8, "conv 1x1 count": 2e-3, "conv 3x3 count": 2e-3, "depthwise count": 4e-3,
    "plain conv 1x1 count": 1e-3,
}  # fmt: skip


def cost(work: dict[str, float]) -> float:
    return sum(amount * PRICES[quantity] for quantity, amount in work.items())


def test_known_prices_are_found_through_noise_and_outliers() -> None:
    works = invented_works(60, seed=1)
    random = np.random.default_rng(2)
    latencies = [cost(work) * random.normal(1, 0.02) for work in works]
    latencies[7] *= 3
    prices = fit_prices(works, latencies)
    others = invented_works(40, seed=3)
    errors = [abs(prices.sum(work) / cost(work) - 1) for work in others]
    assert np.mean(errors) < 0.02
    assert prices.of_quantity["depthwise multiply_adds"] == pytest.approx(6e-8, rel=0.1)


def test_an_unseen_kind_of_work_costs_about_the_price_of_its_unit() -> None:
    works = invented_works(40, seed=4)
    prices = fit_prices(works, [cost(work) for work in works])
    assert 1e-8 < prices.sum({"conv 5x5 multiply_adds": 1.0}) < 6e-8
    assert prices.sum({"something parsecs": 1.0}) == 0


def test_prices_from_few_networks_still_scale_with_work() -> None:
    """Three networks hardly determine eight prices, but the latency of similar networks is known."""
    works = invented_works(3, seed=5)
    prices = fit_prices(works, [cost(work) for work in works])
    errors = [abs(prices.sum(work) / cost(work) - 1) for work in invented_works(40, seed=6)]
    assert np.median(errors) < 0.5


def test_held_out_networks_are_estimated_as_closely_as_in_the_study() -> None:
    """550 random networks, measured on a CPU: the prices are found from three quarters of them, without the others."""
    size, classes = (120, 160), 11
    texts = json.loads(gzip.decompress((STUDY / "architectures.json.gz").read_bytes()))
    samples: dict[int, calibration.MeasuredNetwork] = {}
    for name in ("samples.jsonl", "samples_again.jsonl"):
        for line in (STUDY / "onnxruntime-1-120x160-larger-space" / name).read_text("utf-8").splitlines():
            sample = strict.parse(line, calibration.MeasuredNetwork, name)
            samples[sample.index] = sample
    assert not any(sample.flagged for sample in samples.values())
    measured = [(samples[index], Architecture.from_yaml(texts[samples[index].key])) for index in sorted(samples)]
    _, left_out = calibration.fit_and_judge(measured, size, classes, anchored=2.0)
    assert (len(measured), len(left_out)) == (550, 138)
    assert calibration.error_of(left_out) <= 0.05
    tau = kendall_tau([(each.estimated_milliseconds, each.measured_milliseconds) for each in left_out])
    assert tau is not None
    assert tau >= 0.95


class InventedMeter:
    """A meter whose latency is the anchor once, and once more for every two million multiply-adds; it refuses the named
    networks.
    """

    def __init__(
        self,
        refused: frozenset[str] = frozenset(),
        fails_after: int = 10**9,
        disturbed: frozenset[str] = frozenset(),
        *,
        error: Exception | None = None,
        anchored: float = 2.0,
    ) -> None:
        self.target = Target.parse("torch@cpu:1")
        self.size = SIZE
        self.num_classes = 3
        self.environment = {"runtime": "torch", "precision": "fp32", "cpu": "invented"}
        self.refused = refused
        self.error = error or TargetError("other labels")
        self.disturbed = disturbed
        self.anchored = anchored
        self.measured: list[str] = []
        self.left = fails_after

    def measure(self, architecture: Architecture, *, within: float) -> Latency:
        if architecture.key in self.refused:
            raise self.error
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.measured.append(architecture.key)
        ratio = 1 + space.multiply_adds(architecture, SIZE, 3) / 2e6
        milliseconds = self.anchored * ratio
        return Latency(
            p50_milliseconds=milliseconds, p90_milliseconds=milliseconds, p99_milliseconds=milliseconds,
            ci_low_milliseconds=milliseconds, ci_high_milliseconds=milliseconds, samples=20, ratio=ratio,
            ratio_low=ratio, ratio_high=ratio, reference_milliseconds=self.anchored, raw_p50_milliseconds=ratio,
            target=str(self.target), height=SIZE[0], width=SIZE[1], scope="an invented device",
            flagged=("disturbed",) if architecture.key in self.disturbed else (),
        )  # fmt: skip

    def measure_together(self, architectures: Sequence[Architecture], *, within: float) -> list[Latency]:
        return [self.measure(architecture, within=within) for architecture in architectures]


def indices_of(meter: InventedMeter) -> list[int]:
    return [sample.index for sample in calibration.read_samples(meter)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_drawing_without_any_network_cheap_enough_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_MULTIPLY_ADDS", 1)
    monkeypatch.setattr(calibration, "MOST_DRAWS", 3)
    with pytest.raises(UserError, match="got 64x96; calibrate at a larger one"):
        calibration.draw(0, SIZE, 3)


def test_an_interrupted_calibration_goes_on_and_its_table_is_kept() -> None:
    interrupted = InventedMeter(fails_after=18)
    with pytest.raises(KeyboardInterrupt):
        calibration.measure_networks(interrupted, 32, NOBODY)
    kept = indices_of(interrupted)
    assert kept == list(range(16))
    with pytest.raises(UserError, match="got 16"):
        calibration.calibrate(interrupted)
    meter = InventedMeter()
    calibration.measure_networks(meter, 32, NOBODY)
    assert len(meter.measured) == 16
    found = calibration.calibrate(meter)
    assert (found.table.networks, len(found.left_out), found.flagged) == (32, 8, 0)
    assert calibration.kept_table(meter) == found.table
    others = [space.load(name) for name in ("erfnet", "fplnet", "ndnet45-ende", "swiftnet-rn18", "stdc1")]
    measured = [meter.measure(other, within=0.03).p50_milliseconds for other in others]
    errors = [found.table.estimate(other, 3) / wanted - 1 for other, wanted in zip(others, measured, strict=True)]
    assert np.median(np.abs(errors)) < 0.3
    key = device_key.key_of_anchor(meter.environment, meter.target, SIZE)
    anchored_anew = anchor.Anchor(
        milliseconds=3.0, canary=0.2, blocks_milliseconds=(3.0,), blocks_canary=(0.2,), taken="2020-01-01", device=key
    )
    anchor.write(anchor.path_of(key), anchored_anew)
    later, erfnet = calibration.kept_table(meter), others[0]
    assert later is not None
    assert later.estimate(erfnet, 3) == pytest.approx(1.5 * found.table.estimate(erfnet, 3))
    of_earlier_versions = replace(found.table, reference_milliseconds=None)
    assert of_earlier_versions.by_anchor(3.0) == of_earlier_versions


@pytest.mark.slow
def test_disturbed_samples_are_not_used_and_measured_again() -> None:
    draws = [calibration.draw(index, SIZE, 3).key for index in range(24)]
    meter = InventedMeter(disturbed=frozenset(draws[5:7]))
    calibration.measure_networks(meter, 24, NOBODY)
    found = calibration.calibrate(meter)
    assert (found.table.networks, found.flagged) == (22, 2)
    again = InventedMeter(anchored=3.0)
    calibration.measure_networks(again, 24, NOBODY)
    assert again.measured == draws[5:7]
    found = calibration.calibrate(again)
    assert (found.table.networks, found.flagged) == (24, 0)
    assert found.table.reference_milliseconds == 3.0, "in what was measured last"


@pytest.mark.slow
def test_a_table_is_not_replaced_by_one_of_fewer_networks() -> None:
    meter, of_others = InventedMeter(), InventedMeter()
    calibration.measure_networks(meter, 24, NOBODY)
    kept = calibration.calibrate(meter).table
    of_others.num_classes = 4
    calibration.measure_networks(of_others, 20, NOBODY)
    assert calibration.calibrate(of_others).better == kept == calibration.kept_table(meter)
    calibration.measure_networks(of_others, 24, NOBODY)
    longer = calibration.calibrate(of_others)
    assert (longer.better, longer.table) == (None, calibration.kept_table(meter))


@pytest.mark.slow
def test_each_device_has_its_own_table() -> None:
    meter = InventedMeter()
    calibration.measure_networks(meter, 24, NOBODY)
    calibration.calibrate(meter)
    other = InventedMeter()
    other.environment = {**meter.environment, "cpu": "another"}
    assert calibration.kept_table(other) is None
    assert calibration.kept_table(meter) is not None


def test_a_table_of_a_host_with_another_name_is_rescaled_until_this_host_has_its_own() -> None:
    """Host names differ from container to container on the same machine."""

    def made(networks: int, **changes: str) -> tuple[InventedMeter, LatencyTable]:
        meter = InventedMeter()
        meter.environment |= {"cpu": "A Processor @ 2 GHz", "host": "one", "torch": "2.6"} | changes
        table = LatencyTable(
            target="torch@cpu:1", height=SIZE[0], width=SIZE[1], milliseconds={"conv 1x1 count": 1.0},
            unit_milliseconds={}, networks=networks, seconds=1.0, error=0.05, environment=meter.environment,
            reference_milliseconds=2.0,
        )  # fmt: skip
        return meter, table

    def keep(meter: InventedMeter, table: LatencyTable) -> None:
        name = device_key.name_of(device_key.key_of(meter.environment, SIZE))
        write_text(device_key.folder("tables") / name / calibration.TABLE, strict.dump(table))

    later, own = made(20, host="later")
    assert calibration.kept_table(later) is None
    first, of_first = made(100)
    keep(first, of_first)
    keep(*made(50, host="two"))
    assert calibration.kept_table(later) == of_first
    assert "made on host one" in calibration.words_of_host(of_first, later.environment)
    key = device_key.key_of_anchor(later.environment, later.target, SIZE)
    anchored = anchor.Anchor(
        milliseconds=3.0, canary=0.2, blocks_milliseconds=(3.0,), blocks_canary=(0.2,), taken="2020-01-01", device=key
    )
    anchor.write(anchor.path_of(key), anchored)
    assert calibration.kept_table(later) == of_first.by_anchor(3.0)
    for changes in ({"cpu": "A Processor @ 3 GHz"}, {"torch": "2.7"}, {"threads": "2"}):
        assert calibration.kept_table(made(1, host="later", **changes)[0]) is None
    keep(later, own)
    assert calibration.kept_table(later) == own.by_anchor(3.0)
    assert calibration.words_of_host(own, later.environment) == ""


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TargetError("other labels"), False),
        (ExportError("no exporter can express it"), False),
        (WorkerError("was killed by signal 11; its last output: (none)", code=-11), False),
        (WorkerError("was killed by signal 9; its last output: (none)", code=-9, ended=True), True),
        (WorkerError("was killed by signal 15; its last output: (none)", code=-15), True),
        (WorkerError("gave no answer within 900 s and was ended; its last output: (none)", code=-9), True),
        (WorkerError("was killed by signal 6; its last output: what():  std::bad_alloc", code=-6), True),
        (WorkerError("Traceback ...\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (WorkerError("Traceback ...\nAssertionError: of ours"), True),
    ],
)
def test_a_refused_network_is_left_out_and_not_tried_again(error: Exception, again: bool) -> None:
    """Shortage of memory, a killed or halted process and faults of the program are no refusals."""
    refused = calibration.draw(2, SIZE, 3).key
    meter = InventedMeter(refused=frozenset({refused}), error=error)
    failed, reason = calibration.measure_networks(meter, 4, NOBODY), reason_of(error)
    assert indices_of(meter) == [0, 1, 3]
    refusals = [(each.index, each.reason) for each in calibration.read_refused(meter)]
    assert (failed, refusals) == (([reason], []) if again else ([], [(2, reason)]))
    later = InventedMeter()
    calibration.measure_networks(later, 4, NOBODY)
    assert later.measured == [refused] * again


def test_samples_with_other_classes_or_other_draws_are_measured_again(tmp_path: Path) -> None:
    """Other classes mean other layers, and samples of earlier versions do not name their number of classes."""
    meter = InventedMeter()
    calibration.measure_networks(meter, 4, NOBODY)
    other = InventedMeter()
    other.num_classes = 5
    calibration.measure_networks(other, 4, NOBODY)
    assert len(other.measured) == 4
    (file,) = tmp_path.rglob("samples.jsonl")
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace('"num_classes": 3, ', "")
    lines[3] = lines[3].replace(meter.measured[3], meter.measured[2])
    file.write_text("\n".join(lines))
    again = InventedMeter()
    calibration.measure_networks(again, 4, NOBODY)
    assert again.measured == [meter.measured[1], meter.measured[3]]


def test_a_line_cut_off_by_a_crash_is_measured_again(tmp_path: Path) -> None:
    meter = InventedMeter()
    calibration.measure_networks(meter, 8, NOBODY)
    (file,) = tmp_path.rglob("samples.jsonl")
    file.write_text(file.read_text()[:-20])
    assert indices_of(meter) == list(range(7))
    calibration.measure_networks(meter, 8, NOBODY)
    assert indices_of(meter) == list(range(8))


def test_a_line_that_is_no_sample_is_not_used(tmp_path: Path) -> None:
    meter = InventedMeter()
    calibration.measure_networks(meter, 8, NOBODY)
    (file,) = tmp_path.rglob("samples.jsonl")
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace('"flagged": false', '"flagged": "no"')
    lines[3] = lines[3].replace('"ratio": ', '"ratio": -')
    lines[5] = lines[5].replace('"index": ', '"number": ')
    file.write_text("\n".join(lines))
    assert indices_of(meter) == [0, 2, 4, 6, 7]


@pytest.mark.slow
def test_draws_repeat_and_spread() -> None:
    drawn = [calibration.draw(index, SIZE, 3) for index in range(30)]
    assert drawn == [calibration.draw(index, SIZE, 3) for index in range(30)]
    assert len({architecture.key for architecture in drawn}) == 30
    sizes = sorted(space.multiply_adds(architecture, SIZE, 3) for architecture in drawn)
    assert sizes[-1] <= calibration.MOST_MULTIPLY_ADDS * SIZE[0] * SIZE[1]
    assert sizes[-1] > 20 * sizes[0]
