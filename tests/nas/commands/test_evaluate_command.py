"""`nas evaluate`: its scores, its sources of data, and refused weights."""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import space
from nas.data import DataSpec
from nas.data.sets.cityscapes import CATEGORIES
from nas.runs.evaluation import Evaluation
from nas.runs.folder import RunFolder
from nas.study import Study
from nas.training import load_recipe
from nas.training.weights import load_weights, read_metadata, save_weights
from space import strict


def shares(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z][\w() ]*?) {2,}(\d+\.\d|-)$", text, re.M | re.I))


def test_evaluated_scores_are_those_of_the_training(nas, trained, pictures):
    answer = nas("evaluate", trained, "--data", f"folder:{pictures}")
    assert answer.code == 0, answer.err
    card = yaml.safe_load((trained / "scores.yaml").read_text())
    wanted = {**card["class_iou"], "mean (mIoU)": card["miou"], "pixel accuracy": card["pixel_accuracy"]}
    assert shares(answer.out) == {name: f"{100 * share:.1f}" for name, share in wanted.items()}
    assert "3 validation images of folder at 64x96" in answer.out


def test_one_note_names_data_and_size_that_differ_from_those_of_the_training(nas, trained, small, pictures, tmp_path):
    elsewhere = tmp_path / "w.safetensors"
    words = {**read_metadata(trained / "weights.safetensors"), "data": "camvid"}
    save_weights(elsewhere, load_weights(trained / "weights.safetensors"), words)
    data = ("--data", f"folder:{pictures}")
    answer = nas("evaluate", small, "--weights", elsewhere, *data, "--input", "32x48").done()
    assert re.findall("^note: the weights.*", answer.out, re.M) == [
        "note: the weights were trained on camvid, but are used on folder",
        "note: the weights were trained at 64x96, but are used at 32x48",
    ]
    for words in ((), ("--input", "64x96")):
        assert "note" not in nas("evaluate", trained, *data, *words).done().out


def test_an_architecture_file_and_weights_can_be_evaluated_instead_of_a_folder(nas, trained, small, pictures):
    one = nas("evaluate", trained, "--data", f"folder:{pictures}")
    other = nas("evaluate", small, "--weights", trained / "weights.safetensors", "--data", f"folder:{pictures}")
    assert other.code == 0, other.err
    assert shares(one.out) == shares(other.out) != {}


def test_a_network_in_a_run_is_scored_on_the_data_of_its_study(nas, trained, pictures, tmp_path):
    data = DataSpec(name="folder", root=str(pictures), size=(64, 96), validation_images=2)
    run = tmp_path / "run"
    shutil.copytree(trained, run / "winner")
    (run / "study.yaml").write_text(Study(data=data, budget="10ms", recipe=load_recipe("quick")).to_yaml())
    assert "validation images" not in nas("evaluate", run).out, "a study is no run, nor about what lies below it"
    (run / "trials").mkdir()
    for folder in (run, run / "winner"):
        assert "2 validation images of folder at 64x96" in nas("evaluate", folder).out
    assert "2 validation images of folder at 32x48" in nas("evaluate", run, "--input", "32x48").out
    (run / "winner" / "data.yaml").rename(run / "data.yaml")  # where a search keeps its record of three images
    changed = "note: since the training the validation images and the validation labels have changed"
    assert changed in nas("evaluate", run).out
    assert "note: " not in nas("evaluate", run, "--data", f"folder:{pictures}").out


@pytest.mark.parametrize("name", ["evaluation.yaml", "confusion.csv", "confusion.svg"])
def test_an_evaluation_replaces_only_files_of_an_evaluation(nas, trained, pictures, tmp_path, name):
    words = ("evaluate", trained, "--data", f"folder:{pictures}", "--out", tmp_path)
    (tmp_path / name).write_text("mine")
    assert f"expected no {tmp_path / name}, or one that this version of `nas evaluate` wrote" in nas(*words).refusal()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "mine"}
    (tmp_path / name).unlink()
    for _ in range(2):
        nas(*words).done()


def test_errors_for_unfinished_searches_and_trainings_name_the_command_that_goes_on(nas, trained, pictures, tmp_path):
    data = DataSpec(name="folder", root=str(pictures), size=(64, 96))
    study = Study(data=data, budget="10ms", recipe=load_recipe("quick"))
    run = RunFolder.create(tmp_path / "my run", study).root
    training = shutil.copytree(trained, tmp_path / "training")
    for name in ("architecture.yaml", "weights.safetensors", "scores.yaml"):
        (training / name).unlink()
    begun = shutil.copytree(training, tmp_path / "begun")
    for name in ("checkpoint.pt", "progress.yaml"):
        (begun / name).unlink()  # interrupted in its first epoch
    for command in ("evaluate", "export", "show", "measure"):
        assert f"without a winner yet; wait for it, or go on with: nas search --resume '{run}'" in (
            nas(command, run).refusal()
        )
        for folder in (training, begun):
            assert "that is not finished; wait for it, or repeat its `nas train` command with --resume" in (
                nas(command, folder).refusal()
            )


def test_weights_of_another_architecture_are_refused_by_their_first_mismatch(nas, trained, pictures):
    answer = nas("evaluate", "erfnet", "--weights", trained / "weights.safetensors", "--data", f"folder:{pictures}")
    first = next(iter(space.load("erfnet").build(3).state_dict()))
    assert f"expected {first} of shape (13, 3, 3, 3), got" in answer.refusal()


def test_weights_of_the_same_shapes_but_another_architecture_are_refused(nas, trained, pictures, tmp_path):
    other = tmp_path / "dilated.yaml"
    text = (trained / "architecture.yaml").read_text()
    changed = re.sub(r"rates: \[(.*)\]", lambda match: "rates: [" + match[1].replace("1", "3", 1) + "]", text, count=1)
    assert changed != text
    other.write_text(changed)
    weights = trained / "weights.safetensors"
    answer = nas("evaluate", other, "--weights", weights, "--data", f"folder:{pictures}")
    assert "has the same shapes but differs otherwise" in answer.refusal()


def test_weights_without_metadata_can_be_evaluated_on_given_data(nas, trained, small, pictures, tmp_path):
    bare = tmp_path / "bare.safetensors"
    save_weights(bare, load_weights(trained / "weights.safetensors"), {})
    assert "expected the data set to work on" in nas("evaluate", small, "--weights", bare).refusal()
    answer = nas("evaluate", small, "--weights", bare, "--data", f"folder:{pictures}", "--input", "64x96")
    assert shares(answer.out) == shares(nas("evaluate", trained, "--data", f"folder:{pictures}").out) != {}


@pytest.mark.slow
def test_a_quantized_network_finds_the_data_of_its_training(nas, trained, tmp_path):
    words = ("--target", "onnxruntime@cpu:1", "--images", "2", "--within", "20%", "--patience", "0s")
    nas("quantize", trained, *words, "--out", tmp_path / "quantized").done()
    assert "3 validation images of folder at 64x96" in nas("evaluate", tmp_path / "quantized").done().out


@pytest.mark.parametrize("classes", ['["a"]', "[1, 2, 3]", "{", '["ground", "box"]'])
def test_contradictory_metadata_of_weights_are_refused(nas, trained, small, tmp_path, classes):
    file = tmp_path / "w.safetensors"
    words = {"classes": classes, "palette": "[[0, 0, 0], [1, 1, 1], [2, 2, 2]]", "size": "64x96", "data": "folder"}
    save_weights(file, load_weights(trained / "weights.safetensors"), words)
    assert "expected metadata with classes" in nas("evaluate", small, "--weights", file).refusal()


def test_missing_weights_data_and_classes_are_named(nas, trained, own_pictures, tmp_path):
    assert "architecture without weights; give --weights" in nas("evaluate", "erfnet").refusal()
    assert "got neither; check the path" in nas("evaluate", tmp_path).refusal()
    elsewhere = shutil.copytree(trained, tmp_path / "elsewhere")
    (elsewhere / "data.yaml").unlink()
    assert "give --data folder:DIR" in nas("evaluate", elsewhere).refusal()
    (own_pictures / "classes.txt").write_text("ground\nwall\nsky")
    answer = nas("evaluate", trained, "--data", f"folder:{own_pictures}")
    assert "the classes of the weights (ground, box, sky)" in answer.refusal()
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(trained / "architecture.yaml", alone)
    assert "give --weights" in nas("evaluate", alone).refusal()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((trained / "weights.safetensors").read_bytes()[:5000])
    assert str(damaged) in nas("evaluate", trained, "--weights", damaged).refusal()


def test_a_pickle_is_not_taken_for_weights(nas, small, tmp_path: Path):
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, file)
    assert "expected a safetensors file" in nas("evaluate", small, "--weights", file).refusal()


def test_the_data_of_a_training_are_found_from_its_folder(nas, trained):
    told = nas("evaluate", trained)
    assert told.code == 0, told.err
    assert nas("show", trained).out.splitlines()[-1].count("at 64x96 with 3 classes") == 1


@pytest.mark.slow
def test_iou_of_categories_is_that_of_cityscapes(nas, small, tmp_path):
    """As in its evalPixelLevelSemanticLabeling.py, a class taken for another one of its category counts as right."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        label = np.kron(random.integers(0, 19, (8, 12)), np.ones((8, 8))).astype(np.uint8)
        picture = random.integers(0, 255, (64, 96, 3)).astype(np.uint8)
        for kind, name, pixels in (("leftImg8bit", "leftImg8bit", picture), ("gtFine", "gtFine_labelTrainIds", label)):
            folder = tmp_path / "city" / kind / split / "ulm"
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / f"ulm_000000_000019_{name}.png")
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", space.load(small).build(19).state_dict(), {})
    data = ("--data", f"cityscapes:{tmp_path / 'city'}", "--input", "64x96", "--out", tmp_path / "out")
    told = nas("evaluate", small, "--weights", tmp_path / "w.safetensors", *data).done().out
    (_, *classes), *rows = csv.reader((tmp_path / "out" / "confusion.csv").read_text().splitlines())
    counts = np.array([row[1:] for row in rows], dtype=int)
    wanted = {}
    for name in dict.fromkeys(CATEGORIES):
        inside = np.array([each == name for each in CATEGORIES])
        right = counts[inside][:, inside].sum()
        missed, wrong = counts[inside].sum() - right, counts[~inside][:, inside].sum()
        wanted[name] = right / (right + missed + wrong)
    found = strict.parse((tmp_path / "out" / "evaluation.yaml").read_text(), Evaluation, "it")
    assert found.category_iou == pytest.approx(wanted)
    assert found.category_miou == pytest.approx(np.mean(list(wanted.values())))
    assert max(wanted.values()) > max(iou for iou in found.class_iou.values() if iou is not None)
    assert len(classes) == 19
    table = told[told.index("category") :]
    assert shares(table) == {
        name: f"{100 * iou:.1f}" for name, iou in {**wanted, "mean of categories": found.category_miou}.items()
    }


def test_the_output_names_the_size_at_which_scores_are_computed(nas, trained):
    told = nas("evaluate", trained).done().out
    assert "scored at 64x96, as training and search do; --at labels scores as benchmarks do" in told
    there = nas("evaluate", trained, "--at", "labels", "--input", "32x48", "--window", "24x32").done().out
    assert "scored at the labels' own size, as benchmarks do" in there
    assert "pictures at 32x48, by windows of 24x32" in there


def test_scores_at_label_size_differ_when_the_network_sees_another_size(nas, trained):
    """When the network sees pictures at their own size, both scores are the same."""
    assert shares(nas("evaluate", trained, "--at", "labels").out) == shares(nas("evaluate", trained).out) != {}
    smaller = (
        nas("evaluate", trained, "--input", "32x48"),
        nas("evaluate", trained, "--input", "32x48", "--at", "labels"),
    )
    assert shares(smaller[0].out) != shares(smaller[1].out)


def test_scores_and_confusion_are_written(nas, trained, pictures, tmp_path):
    out = tmp_path / "scores"
    words = ("--at", "labels", "--flip", "--scales", "0.5,1")
    answer = nas("evaluate", trained, *words, "--split", "train", "--out", out).done()
    assert "6 train images of folder" in answer.out
    kept = strict.parse((out / "evaluation.yaml").read_text(), Evaluation, "evaluation.yaml")
    assert (kept.split, kept.images, kept.at, kept.scales, kept.flip, kept.window) == (
        "train", 6, "labels", (0.5, 1.0), True, None,
    )  # fmt: skip
    assert kept.weights_sha256 == hashlib.sha256((trained / "weights.safetensors").read_bytes()).hexdigest()
    header, *rows = csv.reader((out / "confusion.csv").read_text().splitlines())
    assert header[1:] == [row[0] for row in rows] == ["ground", "box", "sky"]
    counts = np.array([row[1:] for row in rows], dtype=np.int64)
    labels = [np.asarray(Image.open(path)) for path in (pictures / "train" / "labels").glob("*.png")]
    assert counts.sum(1).tolist() == [sum(int((label == index).sum()) for label in labels) for index in range(3)]
    iou = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    assert list(kept.class_iou.values()) == pytest.approx(iou.tolist())
    svg = ElementTree.parse(out / "confusion.svg")
    assert {"ground", "box", "sky", "predicted", "labelled"} <= {"".join(each.itertext()) for each in svg.iter()}


def test_a_missing_split_is_refused_with_the_names_of_existing_splits(nas, trained, own_pictures):
    words = ("evaluate", trained, "--data", f"folder:{own_pictures}", "--split", "test")
    assert "expected a test split with labels, got only train and val" in nas(*words).refusal()
    shutil.copytree(own_pictures / "val", own_pictures / "test")
    (own_pictures / "test" / "images" / "0.jpg").unlink()
    (own_pictures / "test" / "labels" / "0.png").unlink()
    assert "on 2 test images of folder" in nas(*words).done().out
    (own_pictures / "test" / "labels" / "1.png").unlink()
    assert "has no label" in nas(*words).refusal()
    assert nas("evaluate", trained, "--data", f"folder:{own_pictures}").code == 0  # nobody asked for it


def test_an_impossible_output_folder_is_refused_before_scoring(nas, trained, tmp_path):
    (tmp_path / "file").touch()
    answer = nas("evaluate", trained, "--out", tmp_path / "file" / "out")
    assert "cannot make the folder" in answer.refusal()
    assert "images" not in answer.out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--flip",), "--flip goes with --at labels"),
        (("--scales", "1,2"), "--scales goes with --at labels"),
        (("--window", "32x32"), "--window goes with --at labels"),
        (("--at", "labels", "--scales", "1,x"), "--scales: expected numbers such as 0.75,1,1.25, got '1,x'"),
        (("--at", "labels", "--scales", "99"), "scales: expected 0.125 to 8, got 99"),
        (("--at", "labels", "--window", "big"), "--window: expected HEIGHTxWIDTH"),
    ],
)
def test_impossible_flips_scales_and_windows_are_refused(nas, trained, words, answer):
    assert answer in nas("evaluate", trained, *words).refusal()
