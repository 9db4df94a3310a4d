"""Predictions in the pictures of a report: those of the certified form, or a note that they are not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nas.export.graph import onnx_bytes
from nas.report.page import write_report
from nas.report.predictions import draw_predictions
from nas.runs.certificate import read_certificate
from nas.runs.folder import RunFolder
from nas.runs.trained import load_trained
from nas.training.weights import read_metadata, save_weights
from space import strict

SAID = "The certified form is {} (convolutions), but these predictions are by PyTorch in float32: "


@pytest.fixture
def predictions(full: RunFolder) -> Callable[..., tuple[list[str], str]]:
    """`predictions(target)`: drawn predictions of a winner certified in INT8 on a target, and the note beside them."""

    def drawn(target: str = "") -> tuple[list[str], str]:
        if target:
            _certify(full.winner, target)
        found = draw_predictions(full, full.winner)
        assert not found.missing
        return [each.predicted for each in found.pictures], found.note

    return drawn


def _certify(winner: Path, target: str) -> None:
    certificate = read_certificate(winner)
    found = replace(
        certificate,
        latency=replace(certificate.latency, target=target),
        precision="int8",
        form=f"{target} (convolutions)",
        sha256={"model.onnx": hashlib.sha256((winner / "model.onnx").read_bytes()).hexdigest()},
    )
    (winner / "certificate.yaml").write_text(strict.dump(found))


def test_predictions_of_a_winner_in_int8_are_those_of_its_graph(
    full: RunFolder, predictions: Callable[..., tuple[list[str], str]]
) -> None:
    winner, weights = full.winner, full.winner / "weights.safetensors"
    network, latency = load_trained(str(winner), None).network(3), read_certificate(winner).latency
    for parameter in network.get_submodule("head.logits").parameters():
        parameter.data = parameter.data.roll(1, dims=0)  # classes in another order, so that labels show which form ran
    (winner / "model.onnx").write_bytes(onnx_bytes(network, (latency.height, latency.width), labels=True))
    by_weights, nothing = predictions()
    assert nothing == ""
    by_graph, nothing = predictions("onnxruntime:int8@cpu:999")
    assert nothing == ""
    found, note = predictions("onnxruntime:int8@ssh:board")
    assert found == by_weights
    assert note.startswith(SAID.format("onnxruntime:int8@ssh:board") + "it is certified on another host")
    save_weights(weights, network.state_dict(), read_metadata(weights))
    assert predictions()[0] == by_graph != by_weights


@pytest.mark.slow
def test_predictions_of_a_refused_graph_come_from_pytorch_with_a_note_on_the_page(
    full: RunFolder, predictions: Callable[..., tuple[list[str], str]]
) -> None:
    by_weights, _ = predictions()
    (full.winner / "model.onnx").write_bytes(b"no graph")
    found, note = predictions("onnxruntime:int8@cpu:1")
    assert found == by_weights
    assert note.startswith(SAID.format("onnxruntime:int8@cpu:1"))
    assert SAID.format("onnxruntime:int8@cpu:1") in write_report(full).read_text("utf-8")
