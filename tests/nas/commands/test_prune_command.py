"""`nas prune`: a compact network inside a measured budget, rebuilt from its files."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import space
from nas.commands.shared.output import say_certificate
from nas.latency.runtimes import null
from nas.runs.certificate import read_certificate
from nas.runs.trained import load_trained
from nas.storage.ownership import owned
from nas.training import load_recipe
from space import strict
from space.scale import scale_width

TARGET = ("--target", "null@cpu:1")
SIZE = (32, 48)
INPUT = ("--input", "32x48")


@pytest.fixture(scope="session")
def wide(nas, pictures, tmp_path_factory):
    """A short encoder of half ERFNet's width, trained for an epoch, and the milliseconds that it takes on TARGET."""
    folder = tmp_path_factory.mktemp("wide")
    whole = scale_width(space.load("erfnet-encoder"), 0.5)
    stages = tuple(replace(stage, depth=1) for stage in whole.stages)
    (folder / "encoder.yaml").write_text(replace(whole, stages=stages).to_yaml())
    out = folder / "out"
    data = ("--data", f"folder:{pictures}")
    nas("train", folder / "encoder.yaml", *data, *INPUT, "--epochs", "1", "--out", out).done()
    seconds = space.multiply_adds(space.load(out / "architecture.yaml"), SIZE, 3) / null.MULTIPLY_ADDS_PER_SECOND
    return out, 1e3 * seconds + null.CALL_NANOSECONDS / 1e6


@pytest.mark.parametrize("with_data", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_pruned_network_is_inside_the_budget_and_can_be_rebuilt(nas, wide, pictures, tmp_path, with_data, scalars):
    trained, milliseconds = wide
    out = tmp_path / "compact"
    earlier = out / "events" / "events.out.tfevents.1.of-an-interrupted-pruning"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(strict.dump(replace(load_recipe("quick"), probe=True)))
    data = ("--data", f"folder:{pictures}", "--epochs", "4", "--steps", "2", "--recipe", recipe) if with_data else ()
    answer = nas("prune", trained, "--budget", f"{0.6 * milliseconds:.3f}ms", *TARGET, *data, "--out", out)
    assert answer.code == 0, answer.err
    certificate = read_certificate(out)
    architecture = space.load(out / "architecture.yaml")
    whole = space.load(trained / "architecture.yaml")
    depths = [(now.depth, before.depth) for now, before in zip(architecture.stages, whole.stages, strict=True)]
    assert all(now <= before for now, before in depths)
    assert with_data or architecture.without_channels() == whole  # only data show the worth of blocks
    assert 0 < space.parameters(architecture, 3) < space.parameters(whole, 3)
    assert certificate.parameters == space.parameters(architecture, 3)
    assert certificate.passed
    assert certificate.latency.p50_milliseconds <= 0.6 * milliseconds + 0.001
    assert (certificate.miou is None) == (not with_data)
    assert earlier.exists()
    losses = re.findall(r"^epoch \d/\d  loss ([\d.]+)", answer.out, re.M)
    assert len(losses) == (4 if with_data else 0), "one epoch after the first cut, three after the second"
    drawn = scalars(out / "events").get("loss", [])
    assert drawn == [(epoch, pytest.approx(float(loss), abs=6e-4)) for epoch, loss in enumerate(losses, start=1)]
    assert ("note: `probe` is for nas train and nas search" in answer.out) == with_data
    assert re.search(r"whole .* ms.*\npruned .* ms", answer.out)
    if with_data:
        nas("evaluate", out).done()  # the path to the data is kept

    network = architecture.build(3)
    network.load_state_dict(load_file(out / "weights.safetensors"))
    image = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network.eval()(image).argmax(1).numpy()
    assert (session.run(None, {"image": image.numpy()})[0] == expected).mean() > 0.999


@pytest.mark.slow
def test_a_pruned_network_can_be_used_like_any_other(nas, wide, pictures, tmp_path):
    trained, milliseconds = wide
    out = tmp_path / "compact"
    answer = nas("prune", trained, "--budget", f"{0.7 * milliseconds:.3f}ms", *TARGET, "--out", out)
    assert answer.code == 0, answer.err
    assert load_trained(str(out), None).network(3).architecture.channels
    answer = nas("evaluate", out, "--data", f"folder:{pictures}")
    assert answer.code == 0, answer.err
    assert "mIoU" in answer.out


@pytest.mark.slow
def test_an_unreachable_budget_is_refused_with_the_lowest_latency(nas, wide, tmp_path):
    refusal = nas("prune", wide[0], "--budget", "0.001ms", *TARGET, "--out", tmp_path / "compact").refusal()
    assert re.search(r"the fastest cut that was measured takes \d+\.\d+ ms", refusal)
    assert not (tmp_path / "compact").exists()


@pytest.mark.slow
def test_estimates_begin_with_the_table_that_comes_with_the_package(nas, wide, tmp_path):
    words = ("--target", "onnxruntime@cpu:1", "--within", "20%", "--patience", "0s", "--out", tmp_path / "compact")
    told = nas("prune", wide[0], "--budget", "1000ms", *words).done().out
    assert "estimates begin with a table that comes with the package" in told
    assert "`nas measure --calibrate` makes a table of this device" in told
    assert "nothing is cut" in told


def test_an_unsure_certificate_is_printed_with_the_reason_and_the_command_that_settles_it(
    wide, certify, tmp_path, capsys
):
    folder = shutil.copytree(wide[0], tmp_path / "certified")
    certify(folder, "null@cpu:1")
    unsure = "the budget lies inside the interval; `nas measure FOLDER` measures again"
    say_certificate(replace(read_certificate(folder), budget="9ms", passed=None, unsure=unsure), folder)
    told = capsys.readouterr().out
    assert "certificate: UNSURE" in told
    assert f"`nas measure {folder}`" in told


def test_a_folder_that_another_process_works_on_is_refused(nas, wide, tmp_path):
    with owned(tmp_path / "run"):
        assert "is in use by process" in nas("prune", wide[0], "--budget", "5ms", "--out", tmp_path / "run").refusal()


def test_a_pruned_network_does_not_replace_the_original(nas, wide, certify, tmp_path):
    folder = tmp_path / "certified"
    folder.mkdir()
    for name in ("architecture.yaml", "weights.safetensors", "data.yaml"):
        shutil.copyfile(wide[0] / name, folder / name)
    certify(folder, "null@cpu:1")
    told = nas("prune", folder, "--budget", "5ms", *TARGET, "--out", folder).refusal()
    lost = f"expected another folder than that of the given network, got {folder}, where it would be lost"
    assert lost in told
    weights = wide[0] / "weights.safetensors"
    for architecture in (folder, folder / "architecture.yaml"):
        words = ("prune", architecture, "--weights", weights, "--budget", "5ms", *TARGET)
        assert lost in nas(*words, "--out", folder).refusal()
    assert lost in nas("quantize", folder, "--target", "onnxruntime@cpu:1", "--out", folder).refusal()
    (folder / "labels.csv").write_text("mine")
    words = ("prune", wide[0], "--budget", "5ms", "--target", "null@cpu:9999", "--out", folder)
    assert f"got {folder} with labels.csv, which would be lost; give another one" in nas(*words).refusal()
    (folder / "labels.csv").unlink()
    (folder / "events").mkdir()
    answer = nas(*words)
    assert "asks for 9999 threads" in answer.refusal()
    assert f"note: {folder} holds a certificate of 2020-01-01 (null@cpu:1, network " in answer.out


def test_a_folder_with_other_contents_is_left_unchanged(nas, wide):
    before = sorted(each.name for each in wide[0].iterdir())
    told = nas("prune", wide[0], "--budget", "5ms", *TARGET, "--out", wide[0]).refusal()
    assert "which would be lost; give another one" in told
    assert sorted(each.name for each in wide[0].iterdir()) == before


def test_weights_of_another_architecture_are_refused_with_the_first_mismatch(nas, wide, tmp_path):
    weights = ("--weights", wide[0] / "weights.safetensors", "--budget", "5ms")
    refusal = nas("prune", "erfnet", *weights, *TARGET, "--out", tmp_path / "compact").refusal()
    assert "stem" in refusal


@pytest.mark.parametrize("importance", ["fisher", "taylor"])
def test_gradients_need_data(nas, wide, importance):
    assert "--data" in nas("prune", wide[0], "--budget", "5ms", "--importance", importance).refusal()


def test_epochs_need_data(nas, wide):
    assert "--data" in nas("prune", wide[0], "--budget", "5ms", "--epochs", "3").refusal()
