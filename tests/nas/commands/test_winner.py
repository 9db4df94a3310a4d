"""A winner's folder: its certificate, its files, which are one network, and its being written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import space
from nas.data import MEAN, STD, DataSpec, load
from nas.errors import TargetError
from nas.latency import Meter, parse_target
from nas.latency.budget import Budget
from nas.runs.certificate import Certificate, Evidence, Scored, certify, read_certificate
from nas.runs.checked_export import FileCheck
from nas.runs.labelling import Labelling
from nas.runs.trained import load_winner
from nas.runs.winner import Certification, Finished, write_winner
from nas.storage.files import replace_folder
from nas.training.evaluation import evaluate
from nas.training.scores import Scores
from nas.training.weights import load_weights, read_metadata
from space import UserError, strict

TARGET = "onnxruntime@cpu:1"
FILES = {"architecture.yaml", "weights.safetensors", "model.onnx", "certificate.yaml"}


@pytest.fixture
def dataset(pictures):
    return load(DataSpec(name="folder", root=str(pictures), size=(64, 96)))


@pytest.fixture(scope="module", params=["null@cpu:1", pytest.param(TARGET, marks=pytest.mark.slow)])
def target(request):
    """The simulated device; on a real target the test would wait while the machine is busy."""
    return request.param


@pytest.fixture(scope="module")
def winner(trained, target, pictures, single_core, tmp_path_factory):
    """A winner that is within its budget; tests must not change it."""
    folder = tmp_path_factory.mktemp("run") / "winner"
    folder.mkdir()
    (folder / "old").write_text("no part of a winner before")
    data = load(DataSpec(name="folder", root=str(pictures), size=(64, 96)))
    with single_core():
        write_winner(
            folder,
            Finished(
                architecture=space.load(trained / "architecture.yaml"),
                weights=load_weights(trained / "weights.safetensors"),
                labelling=Labelling.of(data),
                dataset=data,
            ),
            Certification(
                target=parse_target(target),
                budget=Budget.parse("1000ms p90"),
                meter_of=functools.partial(Meter, patience_seconds=0),
            ),
        )
    return folder


def test_the_certificate_describes_the_measurement(winner, target, dataset):
    assert {file.name for file in winner.iterdir()} == FILES | {"old"}, "what nobody certified is somebody's"
    assert list(winner.parent.iterdir()) == [winner]
    certificate = read_certificate(winner)
    architecture, weights = load_winner(winner)
    latency = certificate.latency
    assert (certificate.budget, certificate.passed) == ("1000ms p90", True)
    assert certificate.architecture == architecture.key
    assert (latency.target, latency.height, latency.width, latency.batch) == (target, 64, 96, 1)
    assert "upsampling to the input size, arg-max" in latency.scope
    assert latency.samples >= 40
    assert latency.ci_low_milliseconds <= latency.p50_milliseconds <= latency.ci_high_milliseconds
    library = "torch" if target.startswith("null") else "onnxruntime"
    assert {"cpu", library, "threads", "reference"} <= set(latency.environment)
    assert certificate.precision == "fp32"
    assert f"{latency.samples} pairs" in certificate.protocol
    assert len(latency.processes_milliseconds) in (2, 3)  # a disturbed process does not count
    assert f"{len(latency.processes_milliseconds)} separate processes, one after another" in certificate.protocol

    network = architecture.build(3)
    network.load_state_dict(load_file(weights))
    scores = evaluate(network, dataset)
    assert certificate.miou == pytest.approx(scores.miou, abs=1e-6)
    assert list(certificate.class_iou) == ["ground", "box", "sky"]
    assert (certificate.validation_images, certificate.num_classes, certificate.data) == (3, 3, "folder")
    assert certificate.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert certificate.multiply_adds == space.multiply_adds(architecture, (64, 96), 3)
    assert (certificate.input_mean, certificate.input_std) == (MEAN, STD)
    assert 0 <= certificate.onnx_max_abs_difference <= certificate.onnx_tolerance
    assert certificate.onnx_same_labels >= 0.999
    digests = {name: hashlib.sha256((winner / name).read_bytes()).hexdigest() for name in certificate.sha256}
    assert certificate.sha256 == digests
    assert set(digests) == FILES - {"certificate.yaml"}


def test_yaml_and_weights_rebuild_the_network_in_the_onnx_file(winner, trained):
    architecture, weights = load_winner(winner.parent)  # the folder of the run is accepted too
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    network = architecture.build(3)
    network.load_state_dict(load_file(weights))
    with torch.no_grad():
        expected = network.eval()(image).argmax(1).numpy()
    session = onnxruntime.InferenceSession(str(winner / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["labels"]
    labels = session.run(None, {"image": image.numpy()})[0]
    assert labels.shape == (1, 64, 96)
    assert np.mean(labels == expected) > 0.999
    original = load_file(trained / "weights.safetensors")
    assert all(torch.equal(tensor, original[name]) for name, tensor in load_file(weights).items())
    words = read_metadata(weights)
    assert (words["architecture"], words["classes"]) == (architecture.key, '["ground", "box", "sky"]')
    assert {"palette", "size", "mean", "std", "data"} <= set(words)


def test_the_usage_written_into_the_certificate_works(winner, monkeypatch):
    lines = (winner / "certificate.yaml").read_text().splitlines()
    code = "\n".join(line.removeprefix("#     ") for line in lines if line.startswith("#     "))
    assert "load_state_dict" in code
    monkeypatch.chdir(winner)
    values = {"image": torch.zeros(1, 3, 64, 96)}
    exec(code, values)
    assert values["logits"].shape == (1, 3, 64, 96)


def test_the_usage_in_the_certificate_describes_the_way_from_logits_to_labels(dataset, tmp_path):
    architecture = replace(space.load("fast-scnn"), label_stride=2)
    weights = architecture.build(3).state_dict()
    finished = Finished(architecture=architecture, weights=weights, labelling=Labelling.of(dataset), dataset=None)
    write_winner(tmp_path / "winner", finished, Certification(target=parse_target("null@cpu:1"), budget=None))
    text = (tmp_path / "winner" / "certificate.yaml").read_text()
    assert "# Timed: network, upsampling to 1/2 of the input size, arg-max to labels of 2x2 pixels each;" in text
    assert read_certificate(tmp_path / "winner").latency.scope in text


@pytest.mark.parametrize(
    ("budget", "text", "passed"),
    [(None, None, None), ("0.0001ms", "0.0001ms", False), ("1000ms p99", "1000ms p99", True)],
)
def test_the_certificate_holds_the_verdict_on_the_budget(winner, dataset, budget, text, passed):
    known = read_certificate(winner)
    scores = Scores(miou=0.5, class_iou=(0.5, 0.5, None), pixel_accuracy=0.75)
    evidence = Evidence(
        latency=known.latency,
        scored=Scored(scores=scores, images=2, device="cpu"),
        check=FileCheck(images=1, max_abs_difference=0.0, tolerance=1.0, same_labels=1.0),
    )
    wanted = None if budget is None else Budget.parse(budget)
    certificate = certify(load_winner(winner)[0], Labelling.of(dataset), wanted, evidence, winner)
    assert (certificate.budget, certificate.passed) == (text, passed)
    assert certificate.class_iou == {"ground": 0.5, "box": 0.5, "sky": None}
    assert strict.parse(strict.dump(certificate), Certificate, "certificate") == certificate


@pytest.mark.parametrize("figure", ["miou", "parameters", "  raw_p50_milliseconds", "  sky"])
def test_a_changed_figure_in_a_certificate_is_noticed(winner, figure, tmp_path):
    text = (winner / "certificate.yaml").read_text()
    changed = re.sub(rf"^{figure}: .*$", f"{figure}: 1", text, flags=re.MULTILINE)
    assert changed != text
    (tmp_path / "certificate.yaml").write_text(changed)
    with pytest.raises(UserError, match=r"certificate\.yaml: expected the values that it was written with"):
        read_certificate(tmp_path)
    of_earlier_versions = re.sub(r"^values_sha256: .*\n", "", changed, flags=re.MULTILINE)
    (tmp_path / "certificate.yaml").write_text(of_earlier_versions)
    assert read_certificate(tmp_path).values_sha256 == ""
    (tmp_path / "certificate.yaml").write_text(f"# whoever looks at it may write here\n{text}")
    assert read_certificate(tmp_path) == read_certificate(winner)


@pytest.mark.slow
def test_a_failed_measurement_leaves_the_earlier_winner(trained, dataset, tmp_path):
    architecture, weights = load_winner(trained)
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner" / "certificate.yaml").write_text("the old one")
    nowhere = parse_target("torch@cuda:99")
    with pytest.raises(TargetError, match="cuda:99"):
        write_winner(
            tmp_path / "winner",
            Finished(
                architecture=architecture,
                weights=load_weights(weights),
                labelling=Labelling.of(dataset),
                dataset=dataset,
            ),
            Certification(target=nowhere, budget=None),
        )
    assert [file.name for file in tmp_path.iterdir()] == ["winner"]
    assert (tmp_path / "winner" / "certificate.yaml").read_text() == "the old one"


def test_weights_that_do_not_fit_leave_no_winner(trained, dataset, tmp_path):
    with pytest.raises(UserError, match="weights of"):
        write_winner(
            tmp_path / "winner",
            Finished(
                architecture=space.load("erfnet"),
                weights=load_weights(trained / "weights.safetensors"),
                labelling=Labelling.of(dataset),
                dataset=dataset,
            ),
            Certification(target=parse_target(TARGET), budget=None),
        )
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from nas.data import DataSpec, load
from nas.latency import parse_target
from nas.runs.certificate import Certificate
from nas.runs.labelling import Labelling
from nas.runs.trained import load_winner
from nas.training.weights import load_weights
from nas.runs.winner import Finished, Certification, write_winner
folder, trained, pictures = sys.argv[1:]
architecture, weights = load_winner(Path(trained))
dataset = load(DataSpec(name="folder", root=pictures, size=(64, 96)))
target = parse_target("onnxruntime@cpu:1")
labels = Labelling.of(dataset)
finished = Finished(architecture=architecture, weights=load_weights(weights), labelling=labels, dataset=dataset)
write_winner(Path(folder), finished, Certification(target=target, budget=None))
"""


def test_a_process_that_is_killed_leaves_no_half_winner(trained, pictures, tmp_path):
    folder = tmp_path / "winner"
    process = subprocess.Popen([sys.executable, "-c", KILLED, folder, trained, pictures], env=os.environ)
    end = time.monotonic() + 60
    try:  # once the ONNX file exists, a measuring process is being started, which takes seconds
        while not list(tmp_path.glob("*/model.onnx")) and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.glob(".winner*/model.onnx"))
    assert not folder.exists()
    with replace_folder(folder, "file") as fresh:
        assert list(fresh.iterdir()) == []
        (fresh / "file").write_text("new")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_winner_moved_aside_by_a_killed_process_is_restored(tmp_path):
    (tmp_path / ".winner.previous").mkdir()
    (tmp_path / ".winner.previous" / "file").write_text("old")
    with pytest.raises(UserError), replace_folder(tmp_path / "winner", "file"):
        raise UserError("something else went wrong")
    assert [file.name for file in tmp_path.iterdir()] == ["winner"]
    assert (tmp_path / "winner" / "file").read_text() == "old"


def test_folders_without_a_winner_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="expected a winner's folder"):
        read_certificate(tmp_path)
    with pytest.raises(UserError, match="got neither"):
        load_winner(tmp_path)
