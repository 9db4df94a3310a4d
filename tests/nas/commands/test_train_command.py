"""`nas train`: its output and files, resumed trainings, and refused requests."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import space
from nas.runs.trained import load_trained
from nas.storage.ownership import owned
from nas.study import load_study
from nas.training import load_recipe
from nas.training.weights import load_weights, save_weights
from space.head import Head
from space.scale import scale_width


def words(small: Path, pictures: Path, out: Path, *more: str) -> tuple[str, ...]:
    return ("train", str(small), "--data", f"folder:{pictures}", "--input", "64x96", "--out", str(out), *more)


def test_a_training_prints_every_epoch_and_leaves_a_network_that_can_be_used(nas, small, pictures, tmp_path):
    out = tmp_path / "out"
    answer = nas(*words(small, pictures, out, "--epochs", "2", "--batch-size", "3", "--seed", "5"))
    assert answer.code == 0, answer.err
    epochs = re.findall(r"^epoch (\d)/2  loss \d+\.\d+  mIoU +(\d+\.\d) %  \d+\.\d s(.*)$", answer.out, re.M)
    assert [epoch for epoch, _, _ in epochs] == ["1", "2"]
    assert "left" in epochs[0][2]
    assert "3 classes of folder, 6 training and 3 validation images at 64x96" in answer.out
    assert "2 epochs in batches of 3" in answer.out

    card = yaml.safe_load((out / "scores.yaml").read_text())
    assert f"{100 * card['miou']:.1f}" == epochs[1][1]
    assert list(card["class_iou"]) == ["ground", "box", "sky"]
    assert (card["recipe"]["batch_size"], card["recipe"]["seed"], card["size"]) == (3, 5, [64, 96])
    for name, iou in card["class_iou"].items():
        assert re.search(rf"^{name} +{100 * iou:.1f}$", answer.out, re.M)

    trained = load_trained(str(out), None)
    assert trained.architecture == space.load(small)
    assert trained.labelling is not None
    assert (trained.labelling.classes, trained.labelling.size) == (("ground", "box", "sky"), (64, 96))
    assert trained.network(3)(torch.zeros(1, 3, 50, 70)).shape == (1, 3, 50, 70)


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_same_weights(nas, small, pictures, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert nas(*words(small, pictures, whole, "--epochs", "3")).code == 0

    arguments = words(small, pictures, killed, "--epochs", "3")
    with subprocess.Popen(
        [sys.executable, "-m", "nas.cli", *arguments], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 1/3") for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "weights.safetensors").exists()

    assert "go on with --resume" in nas(*arguments).refusal()
    answer = nas(*arguments, "--resume")
    assert answer.code == 0, answer.err
    assert re.search(r"going on after epoch [12]$", answer.out, re.M)
    assert "epoch 1/3" not in answer.out
    assert "epoch 3/3" in answer.out
    wanted, found = (load_weights(folder / "weights.safetensors") for folder in (whole, killed))
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())


def test_a_second_training_in_the_same_folder_is_refused(nas, small, pictures, trained):
    before = (trained / "weights.safetensors").read_bytes()
    assert f"{trained} holds a training already" in nas(*words(small, pictures, trained)).refusal()
    resumed = nas(*words(small, pictures, trained, "--epochs", "2", "--resume"))
    assert "epochs: 1 in the checkpoint, epochs: 2 here" in resumed.refusal()
    assert (trained / "weights.safetensors").read_bytes() == before


def test_a_folder_in_which_another_process_trains_is_left_alone(nas, small, pictures, tmp_path):
    out = tmp_path / "out"
    with owned(out):
        (out / "data.yaml").write_text("of the training under way")
        assert f"{out} is in use by process" in nas(*words(small, pictures, out)).refusal()
        assert (out / "data.yaml").read_text() == "of the training under way"


def test_a_truncated_jpeg_is_named_before_training_begins(nas, small, own_pictures, tmp_path):
    bad = own_pictures / "train" / "images" / "4.jpg"
    bad.write_bytes(bad.read_bytes()[:-600])
    answer = nas(*words(small, own_pictures, tmp_path / "out"))
    assert str(bad) in answer.refusal()
    assert "damaged or cut short" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("train", "erfnt"), "did you mean 'erfnet'?"),
        (("train", "erfnet", "--recipe", "quik"), "did you mean 'quick'?"),
        (("train", "erfnet", "--data", "camvidd:x"), "did you mean 'camvid'?"),
        (("train", "erfnet", "--data", "folder"), "expected folder:DIR"),
        (("train", "erfnet", "--epochs", "0"), "epochs: expected more than 0, got 0"),
        (("train", "erfnet", "--device", "tpu"), "--device: expected cpu, cuda or cuda:N, got 'tpu'"),
        (("train", "erfnet", "--device", "cuda:99"), "got cuda:99 but torch sees"),
        (("train", "erfnet", "--input", "180"), "--input: expected HEIGHTxWIDTH"),
        (("train", "erfnet", "--input", "8x8"), "of 16 to 8192 pixels"),
        (("train", "erfnet", "--input", "99999x99999"), "of 16 to 8192 pixels"),
    ],
)
def test_impossible_trainings_are_refused_in_one_line(nas, tmp_path, given, expected):
    assert expected in nas(*given, "--out", tmp_path / "out").refusal()


def test_a_folder_that_cannot_be_made_is_refused(nas, small, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in nas(*words(small, pictures, tmp_path / "file" / "out")).refusal()


@pytest.mark.parametrize("name", ["study.yaml", "certificate.yaml", "classes.txt"])
def test_a_folder_with_other_contents_is_refused(name, nas, small, pictures, tmp_path):
    (tmp_path / name).touch()
    told = nas(*words(small, pictures, tmp_path)).refusal()
    assert f"expected a folder for a training, got {tmp_path} with its {name}" in told
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_checkpoint_of_another_program_is_left_alone(nas, small, pictures, tmp_path):
    file = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "state_dict": {}}, file)
    before = file.read_bytes()
    told = nas(*words(small, pictures, tmp_path, "--resume")).refusal()
    assert f"expected a checkpoint.pt that `nas train` wrote, got another file in {tmp_path}, which would be" in told
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {file.name: before}


def test_a_training_whose_checkpoint_is_cut_short_begins_anew(nas, small, pictures, trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "out")
    file = out / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-500])
    answer = nas(*words(small, pictures, out, "--epochs", "1", "--resume")).done()
    assert f"{file} is damaged: the training begins anew" in answer.out


@pytest.mark.parametrize("name", ["data.yaml", "init.yaml", "init.safetensors", "form.yaml", "architecture.yaml"])
@pytest.mark.parametrize("more", [(), ("--resume",)], ids=["anew", "resume"])
def test_files_of_the_user_with_the_names_of_training_files_are_left_alone(
    name, more, nas, small, pictures, trained, tmp_path
):
    mine = (space.load("erfnet").to_yaml() if name == "architecture.yaml" else "train: images/train\n").encode()
    if name == "init.safetensors":
        mine = (trained / "weights.safetensors").read_bytes()
    (tmp_path / name).write_bytes(mine)
    given = ("--init", str(tmp_path / name)) if name == "init.safetensors" else ()
    told = nas(*words(small, pictures, tmp_path, *given, *more)).refusal()
    assert f"got {tmp_path} with {name}, which would be lost; give another one" in told
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {name: mine}


def test_files_of_a_training_that_ended_in_its_first_epoch_are_replaced(nas, small, pictures, trained, tmp_path):
    init = tmp_path / "mine.safetensors"
    shutil.copyfile(trained / "weights.safetensors", init)
    out = tmp_path / "out"
    started = words(small, pictures, out, "--epochs", "1", "--init", str(init))
    nas(*started).done()
    for name in ("checkpoint.pt", "progress.yaml", "weights.safetensors", "scores.yaml"):
        (out / name).unlink()
    kept = out / "init.safetensors"
    before = kept.read_bytes()
    told = nas(*words(small, pictures, out, "--init", str(kept))).refusal()
    assert f"expected weights from outside {out}" in told
    assert kept.read_bytes() == before
    nas(*started).done()


def test_weights_without_their_checkpoint_are_not_replaced(nas, small, pictures, trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "out")
    (out / "checkpoint.pt").unlink()
    for name in ("progress.yaml", "scores.yaml"):
        (out / name).unlink()
    told = nas(*words(small, pictures, out, "--resume")).refusal()
    assert "with weights.safetensors, which would be lost" in told
    assert (out / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A narrow ResNet-18 encoder under a linear head, and weights of it in torchvision's names."""
    parent = scale_width(space.load("swiftnet-rn18"), 0.125)
    folder = tmp_path_factory.mktemp("resnet")
    architecture = replace(parent, context=None, decoder=None, head=Head(kind="linear"))
    (folder / "narrow.yaml").write_text(architecture.to_yaml())
    names = {"stem.conv0_norm": "bn1", "stem.conv0": "conv1", "1_3x3": "conv1", "1_norm": "bn1", "2_3x3": "conv2"}
    names |= {"2_norm": "bn2", "projection_norm": "downsample.1", "projection": "downsample.0"}
    state = {"fc.weight": torch.zeros(2, 2)}
    for name, tensor in architecture.build(3).state_dict().items():
        if not name.startswith("head"):
            name = re.sub(r"stage(\d)\.block(\d)", lambda found: f"layer{int(found[1]) + 1}.{found[2]}", name)
            for ours, theirs in names.items():
                name = name.replace(f"{ours}.", f"{theirs}.")
            state[name] = tensor + (0.01 if tensor.is_floating_point() else 0)
    torch.save(state, folder / "resnet18.pth")
    return folder / "narrow.yaml", folder / "resnet18.pth"


def test_a_training_starts_from_pretrained_weights_and_goes_on_without_their_file(nas, resnet, pictures, tmp_path):
    architecture, given = resnet
    file, out = tmp_path / "given.pth", tmp_path / "out"
    shutil.copy(given, file)
    first = nas(*words(architecture, pictures, out, "--epochs", "1", "--init", file)).done().out
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"weights of 40 layers from given.pth (SHA-256 {digest})" in first
    assert "start at random: head.logits" in first
    assert "not used: fc.weight" in first
    assert yaml.safe_load((out / "scores.yaml").read_text())["recipe"]["init"] == f"given.pth (SHA-256 {digest})"
    assert yaml.safe_load((out / "init.yaml").read_text()) == {"file": "given.pth", "sha256": digest}

    started = tmp_path / "started"
    nas(*words(architecture, pictures, started, "--epochs", "1", "--init", file, "--recipe", _still(tmp_path))).done()
    weights, wanted = load_weights(started / "weights.safetensors"), torch.load(file, weights_only=True)
    torch.testing.assert_close(weights["stage2.block0.projection.weight"], wanted["layer3.0.downsample.0.weight"])

    file.unlink()
    for name in ("checkpoint.pt", "progress.yaml", "scores.yaml", "weights.safetensors"):
        (out / name).unlink()  # as if it had been ended in its first epoch
    again = nas(*words(architecture, pictures, out, "--epochs", "1", "--resume")).done().out
    epoch = re.compile(r"^epoch 1/1  loss \S+  mIoU +\S+", re.M)
    assert epoch.search(again)[0] == epoch.search(first)[0]
    assert f"nothing to go on from in {out}: the training begins\n" in again
    assert epoch.search(nas(*words(architecture, pictures, out, "--epochs", "1", "--resume")).out) is None

    file.write_bytes(given.read_bytes() + b"\0")
    other = nas(*words(architecture, pictures, out, "--epochs", "1", "--resume", "--init", file))
    assert "expected the weights that" in other.refusal()


def test_the_output_names_the_form_in_which_folded_weights_train(nas, plain_network, pictures, tmp_path):
    file, out = tmp_path / "folded.safetensors", tmp_path / "out"
    save_weights(file, plain_network((8, 1), rep=True).build(2).state_dict(), {})
    (tmp_path / "rep.yaml").write_text(plain_network((12, 1), rep=True).to_yaml())
    partly = nas(*words(tmp_path / "rep.yaml", pictures, out, "--epochs", "1", "--init", file)).refusal()
    assert "of which nothing fits: stage0.block0" in partly
    assert partly.endswith(", and folded convolutions are taken all together or not at all")
    (tmp_path / "rep.yaml").write_text(plain_network((8, 1), rep=True).to_yaml())
    told = nas(*words(tmp_path / "rep.yaml", pictures, out, "--epochs", "1", "--init", file)).done().out
    assert re.search(
        r"^weights of \d+ layers from .*; re-parameterised convolutions train as the one convolution", told, re.M
    )


def _still(folder: Path) -> str:
    """A recipe that hardly changes the weights."""
    text = "{optimizer: sgd, learning_rate: 1.0e-9, epochs: 1, batch_size: 3}"
    (folder / "still.yaml").write_text(text)
    return str(folder / "still.yaml")


def test_files_that_no_training_can_start_from_are_refused(nas, small, resnet, pictures, tmp_path):
    architecture, file = resnet
    out = tmp_path / "out"
    missing = nas(*words(architecture, pictures, out, "--init", tmp_path / "none.pth"))
    assert "none.pth: expected a file with weights to start from, got no such file" in missing.refusal()
    alien = nas(*words(small, pictures, out, "--init", file))
    assert "of which nothing fits: " in alien.refusal()
    nas(*words(small, pictures, out, "--epochs", "1")).done()
    late = nas(*words(small, pictures, out, "--epochs", "2", "--resume", "--init", file))
    assert "was begun with random weights" in late.refusal()
    assert not (out / "init.yaml").exists()


def test_a_recipe_names_weights_relative_to_its_own_file(resnet, tmp_path):
    (tmp_path / "recipe.yaml").write_text("{optimizer: sgd, learning_rate: 0.1, epochs: 1, batch_size: 2, init: w.pth}")
    assert load_recipe(tmp_path / "recipe.yaml").init == str(tmp_path / "w.pth")
    study = "{data: {name: road_scenes}, budget: 10ms, recipe: {optimizer: sgd, learning_rate: 0.1, epochs: 1, "
    (tmp_path / "study.yaml").write_text(study + "batch_size: 2, init: deep/w.pth}}")
    assert load_study(tmp_path / "study.yaml").recipe.init == str(tmp_path / "deep" / "w.pth")


def test_a_training_that_scores_every_other_epoch_prints_records_and_draws_only_these(
    nas, small, pictures, tmp_path, scalars
):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text("{optimizer: adamw, learning_rate: 0.01, epochs: 3, batch_size: 3, score_every: 2}")
    answer = nas(*words(small, pictures, out, "--recipe", str(recipe))).done().out
    scores = re.findall(r"^epoch \d/3  loss \d+\.\d+ +(?:mIoU +(\d+\.\d) %)? +\d+\.\d s", answer, re.M)
    assert [bool(score) for score in scores] == [False, True, True]
    epochs = yaml.safe_load((out / "progress.yaml").read_text())["history"]
    assert [epoch["scores"] is None for epoch in epochs] == [True, False, False]
    assert [epoch for epoch, _ in scalars(out / "events")["mIoU"]] == [2, 3]
    card = yaml.safe_load((out / "scores.yaml").read_text())
    assert (card["miou"], card["recipe"]["score_every"]) == (epochs[-1]["scores"]["miou"], 2)


RECIPE_IN_STAGES = """
optimizer: adamw
learning_rate: 0.01
epochs: 9
batch_size: 3
encoder: {share: 0.5, batch_size: 6, class_weighting: null, labels: coarse, bias: true}
rate_shares: {decoder: 2, context: 2}
"""


def test_a_training_in_two_stages_finds_its_form_and_is_drawn(nas, pictures, tmp_path, scalars):
    architecture, recipe, out = tmp_path / "narrow.yaml", tmp_path / "recipe.yaml", tmp_path / "out"
    architecture.write_text(scale_width(space.load("erfnet"), 0.125).to_yaml())
    recipe.write_text(RECIPE_IN_STAGES)
    options = ("--recipe", recipe, "--epochs", "2", "--batch-size", "3", "--probe")
    answer = nas(*words(architecture, pictures, out, *map(str, options))).done().out
    assert "1 epoch of the encoder in batches of 3, 1 of the whole network in batches of 3" in answer
    assert f"note: rate_shares: {architecture} has no context\n" in answer
    assert re.findall(r"^(epoch .*)  loss", answer, re.M) == ["epoch 1/2  encoder 1/1", "epoch 2/2"]
    kept = yaml.safe_load((out / "form.yaml").read_text())
    assert f"computes in {kept['precision']}, {kept['layout'].replace('_', ' ')}" in answer
    epochs = yaml.safe_load((out / "progress.yaml").read_text())["history"]
    assert [epoch.get("encoder") for epoch in epochs] == [True, None]
    drawn = scalars(out / "events")
    assert drawn["loss"] == [(epoch["epoch"], pytest.approx(epoch["loss"])) for epoch in epochs]
    assert drawn["mIoU"] == [(epoch["epoch"], pytest.approx(epoch["scores"]["miou"])) for epoch in epochs]
    assert {"learning_rate", "waited_for_data", "waited_for_lane"} <= drawn.keys()
