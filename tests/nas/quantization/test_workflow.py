"""Quantizing a trained network from start to end: the kept form and its folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

from nas.data import DataSpec, load
from nas.latency import parse_target
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.quantization.fine_tuning import QuantizationAwareTuning
from nas.quantization.forms import Form
from nas.quantization.quantizer import QuantizationPlan
from nas.quantization.scoring import FormScores
from nas.quantization.verdicts import Loss, TimedForm, timed_again
from nas.quantization.workflow import Quantization, Quantized, compared_of
from nas.runs.certificate import read_certificate
from nas.runs.labelling import Labelling, metadata
from nas.runs.trained import Trained
from nas.training import load_recipe
from nas.training.scores import Scores
from nas.training.weights import save_weights
from space import Architecture

SIZE = (48, 64)
WHOLE, INT8 = parse_target("onnxruntime@cpu:1"), parse_target("onnxruntime:int8@cpu:1")


def is_quantized(graph: bytes) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(graph).graph.node)


def invented(milliseconds: float, target: str) -> Latency:
    """A latency whose interval is the number itself."""
    return Latency(
        p50_milliseconds=milliseconds, p90_milliseconds=milliseconds, p99_milliseconds=milliseconds,
        ci_low_milliseconds=milliseconds, ci_high_milliseconds=milliseconds, samples=40, ratio=milliseconds,
        ratio_low=milliseconds, ratio_high=milliseconds, reference_milliseconds=1.0,
        raw_p50_milliseconds=milliseconds, target=target, height=48, width=64, scope="nothing",
    )  # fmt: skip


@dataclass
class Device:
    """A device that runs full precision in 10 ms, and INT8 in 5 ms at first and in `later` ms afterwards."""

    later: float
    known: set[bytes] = field(default_factory=set)

    @contextlib.contextmanager
    def of(self, target: Target, size: tuple[int, int], num_classes: int) -> Iterator[Meter]:
        yield Meter(self, target)


@dataclass
class Meter:
    device: Device
    target: Target

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = 0.015) -> Latency:
        raise AssertionError("graphs are timed")

    def measure_together(self, architectures: object, *, within: float = 0.015) -> list[Latency]:
        raise AssertionError("graphs are timed")

    def measure_graph(self, graph: bytes, *, within: float = 0.015) -> Latency:
        if not is_quantized(graph):
            return invented(10.0, str(self.target))
        again = graph in self.device.known
        self.device.known.add(graph)
        return invented(self.device.later if again else 5.0, str(self.target))


@pytest.fixture(scope="module")
def trained(plain_network: Callable[..., Architecture], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A small network with some weights."""
    architecture, dataset = plain_network((8, 1), (16, 1)), load(DataSpec(size=SIZE))
    labelling, weights = Labelling.of(dataset), tmp_path_factory.mktemp("trained") / "weights.safetensors"
    torch.manual_seed(0)
    save_weights(weights, architecture.build(11).state_dict(), metadata(architecture, labelling))
    return Trained(name="small", architecture=architecture, weights=weights, labelling=labelling)


ANY_LOSS = QuantizationPlan(targets=(WHOLE, INT8), points=100.0, images=2)


def quantized(
    trained: Trained, device: Device, folder: Path, plan: QuantizationPlan = ANY_LOSS
) -> tuple[Quantized, list[str]]:
    """What is kept for a device by a plan, and what was said."""
    said: list[str] = []
    quantization = Quantization(
        trained=trained,
        dataset=load(DataSpec(size=SIZE, train_images=3, validation_images=2)),
        plan=plan,
        folder=folder,
        said=said.append,
        budget=Budget.parse("8ms"),
        meter_of=device.of,
    )
    return quantization.run(), said


def test_the_kept_form_is_written_with_its_certificate_and_the_original_weights(
    trained: Trained, tmp_path: Path
) -> None:
    found, said = quantized(trained, Device(later=5.5), tmp_path / "out")
    certificate = read_certificate(tmp_path / "out")
    assert certificate == found.certificate
    assert (certificate.form, certificate.precision, certificate.verdict) == (str(found.chosen.form), "int8", "PASS")
    assert certificate.latency.p50_milliseconds == found.chosen.latency.p50_milliseconds == 5.5
    assert {each.form: each.p50_milliseconds for each in certificate.compared} == {
        str(each.form): 5.5 if each is found.chosen else 10.0 if each.form.target == WHOLE else 5.0
        for each in found.timed_forms
    }
    assert len(found.timed_forms) == 3
    assert [each.form for each in certificate.compared if each.verdict == "kept"] == [certificate.form]
    assert is_quantized((tmp_path / "out" / "model.onnx").read_bytes())
    before, after = load_file(trained.weights), load_file(tmp_path / "out" / "weights.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(words.startswith(f"{WHOLE}: timed once more, 10.00 ms") for words in said)


def test_forms_that_are_slower_when_timed_again_are_given_up(trained: Trained, tmp_path: Path) -> None:
    found, _ = quantized(trained, Device(later=12.0), tmp_path / "out")
    certificate = read_certificate(tmp_path / "out")
    assert certificate == found.certificate
    assert (certificate.form, certificate.precision, certificate.verdict) == (str(WHOLE), "fp32", "FAIL")
    whole, *others = certificate.compared
    assert (whole.p50_milliseconds, whole.verdict) == (10.0, "kept")
    verdict = f"takes 1.20 times as long as {WHOLE}"
    assert [(each.p50_milliseconds, each.verdict) for each in others] == [(12.0, verdict)] * 2
    assert not is_quantized((tmp_path / "out" / "model.onnx").read_bytes())


def test_epochs_of_fine_tuning_are_written_to_event_files(
    trained: Trained, tmp_path: Path, scalars: Callable[[Path], dict[str, list[tuple[int, float]]]]
) -> None:
    tuning = QuantizationAwareTuning(epochs=2, recipe=load_recipe("quick"))
    nothing_is_good_enough = replace(ANY_LOSS, points=-100.0, tuning=tuning)
    found, said = quantized(trained, Device(later=5.5), tmp_path / "out", nothing_is_good_enough)
    assert found.chosen.form.target == WHOLE
    lines = [re.match(r"epoch (\d)/2  loss ([\d.]+)", line) for line in said]
    told = [(int(line[1]), pytest.approx(float(line[2]), abs=6e-4)) for line in lines if line]
    assert len(told) == 2
    assert scalars(tmp_path / "out" / "events")["loss"] == told
    assert read_certificate(tmp_path / "out") == found.certificate


def timed_form(target: str, milliseconds: float) -> TimedForm:
    scores = FormScores(scores=Scores(miou=0.5, class_iou=(0.5,), pixel_accuracy=0.5), same_labels=1.0)
    form = Form(target=parse_target(target), graph=b"")
    return TimedForm(form=form, latency=invented(milliseconds, target), scored=scores)


def test_compared_forms_show_the_certified_latency() -> None:
    whole, other, half = (
        timed_form("openvino@cpu:1", 2.0),
        timed_form("onnxruntime@cpu:1", 2.2),
        timed_form("openvino:bf16@cpu:1", 1.0),
    )
    loss, refused = Loss(miou=0.5, points=0.5), {"openvino:int8@cpu:1": "no kernel"}

    def found(chosen: TimedForm, milliseconds: float) -> list[tuple[float | None, str]]:
        latency = replace(
            chosen.latency,
            p50_milliseconds=milliseconds,
            ci_low_milliseconds=milliseconds,
            ci_high_milliseconds=milliseconds,
            p90_milliseconds=3.0,
            p99_milliseconds=3.0,
        )
        rows = compared_of(*timed_again([whole, other, half], chosen, latency), loss, refused)
        assert [each.form for each in rows] == [*(str(each.form) for each in (whole, other, half)), *refused]
        return [(each.p50_milliseconds, each.verdict) for each in rows]

    left_out, replaced = (None, "left out: no kernel"), (2.0, "the form that others would replace")
    assert found(half, 1.6) == [replaced, (2.2, "takes 1.10 times as long as openvino@cpu:1"), (1.6, "kept"), left_out]
    assert found(whole, 2.5) == [
        (2.5, "kept"),
        (2.2, "takes 0.88 times as long as openvino@cpu:1"),
        (1.0, "takes 0.40 times as long as openvino@cpu:1"),
        left_out,
    ]
