"""Folders certified in lower precision: commands use the certified form, or print a note that they do not."""

from __future__ import annotations

import argparse
import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nas.commands.shared.certified import form_to_run, measured_as_certified, say_untrained
from nas.data import DataSpec, load, read_image
from nas.data.pictures import overlay
from nas.latency import parse_target
from nas.runs.certificate import read_certificate
from nas.runs.evaluation import Evaluation
from nas.runs.trained import load_trained
from nas.training.evaluation import evaluate
from nas.training.prediction import predict
from space import strict

SIZE = (64, 96)
FORM = "onnxruntime:int8@cpu:1 (convolutions)"
CERTIFIED = f"the network runs on {FORM}, as certified, but on all cores"
NOTE = f"note: the certificate is for {FORM}; here PyTorch runs the network in float32: "


@pytest.fixture
def miou(nas, int8, pictures, tmp_path):
    """The mIoU, the form and the graph in the files of an evaluation, and its printed output."""

    def told(*words):
        out = tmp_path / "scores"
        answer = nas("evaluate", int8, "--data", f"folder:{pictures}", "--out", out, *words).done()
        kept = strict.parse((out / "evaluation.yaml").read_text(), Evaluation, "evaluation.yaml")
        return kept.miou, (kept.form, kept.graph_sha256), answer.out

    return told


def test_evaluation_scores_the_certified_form(miou, int8, other, pictures):
    data = load(DataSpec(name="folder", root=str(pictures), size=SIZE))
    by_graph, by_weights = evaluate(other[0], data).miou, evaluate(load_trained(str(int8), None).network(3), data).miou
    assert abs(by_graph - by_weights) > 0.01
    found, form, said = miou()
    assert found == pytest.approx(by_graph, abs=1e-6)
    assert form == (FORM, hashlib.sha256((int8 / "model.onnx").read_bytes()).hexdigest())
    assert CERTIFIED in said.splitlines()
    assert "3 validation images of folder at 64x96, by onnxruntime:int8@cpu\n" in said
    found, form, said = miou("--device", "cpu")
    assert (found, form) == (pytest.approx(by_weights, abs=1e-6), ("", ""))
    assert f"{NOTE}as --device asks" in said.splitlines()


def test_logits_come_from_the_weights_and_a_note_states_it(miou, nas, int8, pictures, tmp_path):
    assert f"{NOTE}--at labels resizes logits" in miou("--at", "labels")[2]
    picture = pictures / "val" / "images" / "0.jpg"
    assert f"{NOTE}--labels resizes logits" in nas("predict", int8, picture, "--labels", "--out", tmp_path).done().out
    said = miou("--input", "32x48")[2]
    assert f"{NOTE}it is certified at 64x96, not at 32x48" in said.splitlines()
    assert said.count("note: the weights were trained at 64x96, but are used at 32x48") == 1


def test_overlays_show_the_certified_form(nas, int8, other, pictures, tmp_path):
    file = pictures / "val" / "images" / "0.jpg"
    pixels, usable = read_image(file, None), load_trained(str(int8), None)
    for words, network, line in (((), other[0], CERTIFIED), (("--device", "cpu"), usable.network(3), NOTE)):
        answer = nas("predict", int8, file, "--out", tmp_path, *words).done()
        assert answer.out.splitlines()[1].startswith(line)
        expected = overlay(pixels, predict(network, pixels, SIZE), usable.labelling.palette)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "0.overlay.png")), expected)


def test_an_export_in_full_precision_names_the_certified_form(nas, int8, trained, tmp_path):
    words = ("--out", tmp_path / "m.onnx")
    last = nas("export", int8, *words).done().out.splitlines()[-1]
    assert last == f"note: this file is in full precision; the certificate is for {FORM}: {int8 / 'model.onnx'}"
    assert "certified" not in nas("export", trained, *words).done().out


@pytest.fixture
def recertified(int8, certify, tmp_path):
    """`recertified(target, **changed)`: the same folder with another certificate, in INT8 unless it says otherwise."""
    folder = shutil.copytree(int8, tmp_path / "recertified")

    def write(target, **changed):
        certify(folder, target)
        certificate = replace(read_certificate(folder), **{"precision": "int8", **changed})
        (folder / "certificate.yaml").write_text(strict.dump(certificate))
        return folder

    return write


@pytest.fixture
def asked(capsys):
    """The target of the certified form that would run for a folder, if any, and the printed note."""

    def form(folder, **words):
        options = argparse.Namespace(architecture=str(folder), weights=None, device=None)
        found = form_to_run(options, SIZE, **words)
        return found and str(found.target), capsys.readouterr().out

    return form


def test_labels_do_not_depend_on_the_cores_of_the_certificate(asked, recertified):
    folder = recertified("onnxruntime:int8@cpu:999", form="onnxruntime:int8@cpu:999")
    runs = "the network runs on onnxruntime:int8@cpu:999, as certified, but on all cores\n"
    assert asked(folder) == ("onnxruntime:int8@cpu", runs)
    found, said = asked(folder, as_timed=True)
    assert found is None
    assert "float32: onnxruntime:int8@cpu:999 asks for 999 threads" in said, "how fast a video runs does"


def test_a_certificate_without_a_form_is_named_by_its_target(nas, asked, recertified, tmp_path):
    folder = recertified("onnxruntime:int8@cpu")
    assert asked(folder) == ("onnxruntime:int8@cpu", "the network runs on onnxruntime:int8@cpu, as certified\n")
    last = nas("export", folder, "--out", tmp_path / "m.onnx").done().out.splitlines()[-1]
    assert last.endswith(f"the certificate is for onnxruntime:int8@cpu: {folder / 'model.onnx'}")
    assert asked(recertified("onnxruntime@cpu", precision="fp32")) == (None, "")


@pytest.mark.parametrize("form", ["onnxruntime@cpu:1", "openvino:int8@cpu:1", "foo"])
def test_a_certificate_of_a_form_that_was_not_timed_is_refused(nas, int8, tmp_path, form):
    folder = shutil.copytree(int8, tmp_path / "edited")
    file = folder / "certificate.yaml"
    text = file.read_text()
    assert "form: onnxruntime:int8@cpu:1 (convolutions)" in text
    file.write_text(text.replace("form: onnxruntime:int8@cpu:1 (convolutions)", f"form: {form}"))
    said = nas("measure", folder, "--target", "null@cpu:1").refusal()
    assert str(file) in said
    assert form in said


def test_a_certificate_with_an_unknown_runtime_can_be_used(nas, asked, recertified, tmp_path):
    """The machine that certified the network may have the runtime of another package."""
    folder = recertified("of-others:int8@cpu")
    found, said = asked(folder)
    assert found is None
    assert "float32: expected a runtime of " in said
    last = nas("export", folder, "--out", tmp_path / "m.onnx").done().out.splitlines()[-1]
    assert last == "note: this file is in full precision; the certificate is for of-others:int8@cpu"
    options = argparse.Namespace(target="", input=None, classes=None)
    said = measured_as_certified(options, [str(folder)])
    assert said.startswith(", input size and classes of its certificate; not on its target: expected a runtime of ")


@pytest.mark.parametrize("command", ["predict", pytest.param("evaluate", marks=pytest.mark.slow)])
def test_a_runtime_that_refuses_the_certified_graph_gives_advice(nas, recertified, pictures, tmp_path, command):
    folder = recertified("onnxruntime:int8@cpu")
    (folder / "model.onnx").write_bytes(b"no graph")
    recertified("onnxruntime:int8@cpu")
    words = (pictures / "val" / "images" / "0.jpg",) if command == "predict" else ("--data", f"folder:{pictures}")
    told = nas(command, folder, *words, "--out", tmp_path / "out").refusal()
    assert f"{folder}: expected onnxruntime:int8@cpu to run the certified form, but " in told
    assert told.strip().endswith("give --device cpu to have PyTorch run the network in float32")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def null(recertified):
    """The same folder, certified on a target that takes no time."""
    return recertified("null@cpu:1", precision="fp32")


@pytest.mark.slow
def test_a_certified_folder_is_measured_on_its_target_at_its_size(nas, null):
    answer = nas("measure", null, "--within", "20%", "--patience", "0s").done()
    assert answer.out.splitlines()[0] == "1 network on null@cpu:1 at 64x96, batch 1, 3 classes, as certified"


def test_the_output_names_the_terms_of_measurement_that_come_from_certificates(null, certify, tmp_path):
    def asked(*names, **given):
        options = argparse.Namespace(**{"target": "", "input": None, "classes": None, **given})
        said = measured_as_certified(options, [str(name) for name in names])
        return options.target, options.input, options.classes, said

    usual = ("", "180x240", 11)
    assert asked() == asked("erfnet") == asked("erfnet", null) == (*usual, "")
    assert asked(null) == ("null@cpu:1", "64x96", 3, ", as certified")
    assert asked(null, target="null@cpu:1", input="64X96", classes=3)[3] == ", as certified"
    asked_for = asked(null, target="torch@cpu:1", classes=5)
    assert asked_for == ("torch@cpu:1", "64x96", 5, ", input size of its certificate")
    assert asked(null, input="32x48") == ("null@cpu:1", "32x48", 3, ", target and classes of its certificate")
    assert asked(null, target="torch@cpu:1", input="32x48", classes=5) == ("torch@cpu:1", "32x48", 5, "")
    other = shutil.copytree(null, tmp_path / "other")
    assert asked(null, other, input="32x48")[3] == ", target and classes of their certificates"
    (other / "certificate.yaml").write_text(strict.dump(replace(read_certificate(null), num_classes=4)))
    differ = "; the certificates differ in classes, so options not given have their usual defaults"
    assert asked(null, other) == (*usual, differ)
    assert asked(null, other, target="null@cpu:1", input="32x48")[2:] == (11, differ)
    assert asked(null, other, classes=3) == ("null@cpu:1", "64x96", 3, ", target and input size of their certificates")
    for target, reason in (("onnxruntime@cpu:999", "asks for 999 threads"), ("null@ssh:board", "is on another host")):
        certify(null, target)
        *found, said = asked(null)
        assert found == ["", "64x96", 3]
        assert said.startswith(f", input size and classes of its certificate; not on its target: {target} {reason}")


def test_a_note_names_a_certified_network_of_which_only_the_architecture_is_timed(int8, capsys):
    target = parse_target("onnxruntime:int8@cpu:1")
    say_untrained(["erfnet", str(int8)], target, SIZE, 3)
    assert capsys.readouterr().out == ""
    for terms in ((target, (32, 48), 3), (target, SIZE, 5), (parse_target("torch@cpu:1"), SIZE, 3)):
        say_untrained(["erfnet", str(int8)], *terms)
        assert capsys.readouterr().out == (
            f"note: {int8}: the certificate is for {FORM} at 64x96 for 3 classes; here its architecture is timed, "
            "untrained\n"
        )
