"""The examples run as they stand: pruning on the simulated device, a search on a real runtime."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

import space
from nas.data import DataSpec, load
from nas.latency.budget import Budget
from nas.runs.certificate import Certificate, read_certificate
from nas.runs.folder import RunFolder
from nas.search import engine

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example: str, *arguments: str, cwd: Path) -> str:
    """The output of an example."""
    paths = [str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_run_by_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"prune_and_export.py", "own_images.py"}


@pytest.mark.slow
def test_the_example_prunes_and_exports_a_network(tmp_path: Path) -> None:
    told = run("prune_and_export.py", "null@cpu:1", cwd=tmp_path)
    whole, pruned = (float(ms) for ms in re.findall(r"^(?:whole|pruned): +(\d+\.\d+) ms", told, re.M))
    assert 0.6 * whole < pruned <= 0.7 * whole
    architecture = space.load(tmp_path / "pruned.yaml")
    assert architecture.channels
    assert f"{space.parameters(architecture, 11):,} parameters" in told
    assert (tmp_path / "pruned.onnx").stat().st_size > 10_000
    assert "100.000 % of the labels are the same" in told


def test_the_example_on_own_images_searches_its_study_and_prints_the_certified_latency(
    own_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search, which takes minutes, is replaced by one that answers with a certificate of another network."""
    certificate = read_certificate(EXAMPLES.parent / "studies" / "camvid" / "winners" / "camvid-ndnet45")
    asked = []

    def search(run: RunFolder) -> dict[Budget, Certificate]:
        asked.append(run.study())
        return {Budget.parse(run.study().budget): certificate}

    monkeypatch.setattr(engine, "search", search)
    monkeypatch.setattr(sys, "argv", ["own_images.py", str(own_images)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "own_images.py"), run_name="__main__")
    assert f"{certificate.latency} against 2ms: " in capsys.readouterr().out
    (study,) = asked
    assert len(load(study.data).train.images) == 8
    assert set(study.search.seeds) <= set(space.published())


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """A folder as the data set `folder` wants it: some drawn scenes under a list of classes."""
    scenes = load(DataSpec(size=(48, 64), train_images=8, validation_images=4))
    for split, files in (("train", scenes.train), ("val", scenes.validation)):
        for kind, paths in (("images", files.images), ("labels", files.labels)):
            (tmp_path / "own" / split / kind).mkdir(parents=True)
            for path in paths:
                (tmp_path / "own" / split / kind / path.name).write_bytes(path.read_bytes())
    (tmp_path / "own" / "classes.yaml").write_text(f"classes: [{', '.join(scenes.classes)}]\nvoid: 11\n")
    return tmp_path / "own"


@pytest.mark.slow
def test_the_example_on_own_images_leaves_a_certified_winner(own_images: Path, tmp_path: Path) -> None:
    """A whole search on a real runtime, from its start to its end."""
    told = run("own_images.py", str(own_images), cwd=tmp_path)
    found = RunFolder.open(tmp_path / "runs" / "own-images")
    assert {path.name for path in found.winner.iterdir()} == {
        "architecture.yaml", "weights.safetensors", "model.onnx", "certificate.yaml",
    }  # fmt: skip
    certificate = read_certificate(found.winner)
    assert f"against 2ms: {certificate.verdict}" in told
    assert certificate.verdict == Budget.parse("2ms").verdict(certificate.latency)
    (seed,) = found.trials()
    for phase in ("search", "finish"):
        assert [epoch.epoch for epoch in found.progress(seed, phase).history] == [1]
    assert certificate.architecture == seed.architecture.key
    for latency in (certificate.latency, *(trial.latency for trial in (seed, *found.company()))):
        assert latency is not None
        assert latency.target == "onnxruntime@cpu:1"
        assert latency.environment["onnxruntime"] == onnxruntime.__version__
