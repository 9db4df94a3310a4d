"""A folder that is certified in lower precision: what is certified is used, or it is said that it is not."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nas.commands.certified import measured_as_certified
from nas.data import DataSpec, load, read_image
from nas.data.pictures import overlay
from nas.runs.certificate import read_certificate
from nas.runs.evaluation import Evaluation
from nas.runs.trained import load_trained
from nas.training.evaluation import evaluate
from nas.training.prediction import predict
from space import strict

SIZE = (64, 96)
FORM = "onnxruntime:int8@cpu:1 (convolutions)"
CERTIFIED = f"the network runs on {FORM}, as certified"
NOTE = f"note: what is certified is {FORM}; here PyTorch runs the network in float32: "


@pytest.fixture
def miou(nas, int8, pictures, tmp_path):
    """The mIoU that an evaluation leaves, the form that it names, and what was printed."""

    def told(*words):
        out = tmp_path / "scores"
        answer = nas("evaluate", int8, "--data", f"folder:{pictures}", "--out", out, *words).done()
        kept = strict.parse((out / "evaluation.yaml").read_text(), Evaluation, "evaluation.yaml")
        return kept.miou, kept.form, answer.out

    return told


def test_its_score_is_that_of_the_certified_form(miou, int8, other, pictures):
    data = load(DataSpec(name="folder", root=str(pictures), size=SIZE))
    by_graph, by_weights = evaluate(other[0], data).miou, evaluate(load_trained(str(int8), None).network(3), data).miou
    assert abs(by_graph - by_weights) > 0.01
    found, form, said = miou()
    assert found == pytest.approx(by_graph, abs=1e-6)
    assert form == "onnxruntime:int8@cpu:1"
    assert CERTIFIED in said.splitlines()
    assert "3 validation images of folder at 64x96, by onnxruntime:int8@cpu:1\n" in said
    found, form, said = miou("--device", "cpu")
    assert (found, form) == (pytest.approx(by_weights, abs=1e-6), "")
    assert f"{NOTE}as --device asks" in said.splitlines()


def test_logits_are_those_of_the_weights_which_is_said(miou, nas, int8, pictures, tmp_path):
    assert f"{NOTE}--at labels enlarges logits" in miou("--at", "labels")[2]
    picture = pictures / "val" / "images" / "0.jpg"
    assert f"{NOTE}--labels enlarges logits" in nas("predict", int8, picture, "--labels", "--out", tmp_path).done().out
    said = miou("--input", "32x48")[2]
    assert f"{NOTE}it is certified at 64x96, not at 32x48" in said.splitlines()
    assert said.count("note: the weights were trained at 64x96, this is at 32x48") == 1


def test_its_overlays_are_those_of_the_certified_form(nas, int8, other, pictures, tmp_path):
    file = pictures / "val" / "images" / "0.jpg"
    pixels, usable = read_image(file, None), load_trained(str(int8), None)
    for words, network, line in (((), other[0], CERTIFIED), (("--device", "cpu"), usable.network(3), NOTE)):
        answer = nas("predict", int8, file, "--out", tmp_path, *words).done()
        assert answer.out.splitlines()[1].startswith(line)
        expected = overlay(pixels, predict(network, pixels, SIZE), usable.labelling.palette)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "0.overlay.png")), expected)


def test_a_file_in_full_precision_says_what_is_certified(nas, int8, trained, tmp_path):
    words = ("--out", tmp_path / "m.onnx")
    last = nas("export", int8, *words).done().out.splitlines()[-1]
    assert last == f"note: this is in full precision; what is certified is {FORM}: {int8 / 'model.onnx'}"
    assert "certified" not in nas("export", trained, *words).done().out


@pytest.fixture
def null(int8, certify, tmp_path):
    """The same folder, certified on a target that takes no time."""
    folder = shutil.copytree(int8, tmp_path / "null")
    certify(folder, "null@cpu:1")
    return folder


@pytest.mark.slow
def test_it_is_measured_as_certified(nas, null):
    answer = nas("measure", null, "--within", "20%", "--patience", "0s").done()
    assert answer.out.splitlines()[0] == "1 network on null@cpu:1 at 64x96, batch 1, 3 classes, as certified"


def test_what_is_measured_otherwise_than_certified_says_why(null, certify, tmp_path):
    def asked(*names, **given):
        options = argparse.Namespace(**{"target": "", "input": None, "classes": None, **given})
        said = measured_as_certified(options, [str(name) for name in names])
        return options.target, options.input, options.classes, said

    usual = ("", "180x240", 11)
    assert asked("erfnet") == (*usual, "")
    assert asked("erfnet", null) == ("null@cpu:1", "64x96", 3, ", as certified")
    assert asked(null, target="torch@cpu:1", classes=5) == ("torch@cpu:1", "64x96", 5, ", as certified")
    assert asked(null, target="torch@cpu:1", input="32x48", classes=5) == ("torch@cpu:1", "32x48", 5, "")
    other = shutil.copytree(null, tmp_path / "other")
    (other / "certificate.yaml").write_text(strict.dump(replace(read_certificate(null), num_classes=4)))
    differ = "; what is certified differs in {}, so these are as for any network"
    assert asked(null, other) == (*usual, differ.format("target or input or classes"))
    assert asked(null, other, target="null@cpu:1", input="8x8")[2:] == (11, differ.format("classes"))
    for target, reason in (("onnxruntime@cpu:999", "asks for 999 threads"), ("null@ssh:board", "is on another host")):
        certify(null, target)
        *found, said = asked(null)
        assert found == ["", "64x96", 3]
        assert said.startswith(f", as certified but for the target: {target} {reason}")
