"""Changed certified files are refused wherever they are read; weights without metadata can be used."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

import space
from nas.latency import parse_target
from nas.runs.certificate import read_certificate
from nas.runs.trained import deployed_graph, load_architecture, load_trained
from nas.training.weights import load_weights, read_metadata, save_weights
from space import UserError, strict
from space.scale import scale_width


@pytest.fixture
def certified(trained, certify, tmp_path):
    """A trained network with the certificate of its files, as a winner's folder has it."""
    folder = tmp_path / "run" / "winner"
    shutil.copytree(trained, folder)
    certify(folder, "null@cpu:1")
    return folder


def change_weights(folder):
    file = folder / "weights.safetensors"
    weights = load_weights(file)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = weights[name] + 1
    save_weights(file, weights, read_metadata(file))


def test_certified_files_can_be_loaded(certified):
    assert load_trained(str(certified), None).architecture == load_architecture(str(certified.parent))


def test_every_command_refuses_changed_weights_of_a_certified_folder(nas, certified, pictures, tmp_path):
    change_weights(certified)
    picture = next((pictures / "val" / "images").iterdir())
    for command in (
        ("predict", certified, picture, "--out", tmp_path / "out"),
        ("export", certified.parent, "--out", tmp_path / "m.onnx"),
        ("evaluate", certified, "--data", f"folder:{pictures}"),
        ("prune", certified, "--budget", "1ms", "--target", "null@cpu:1", "--out", tmp_path / "pruned"),
        ("predict", certified / "architecture.yaml", "--weights", certified / "weights.safetensors", picture),
    ):
        answer = nas(*command)
        assert answer.code == 2, (command, answer.out)
        assert "weights.safetensors: expected the file that certificate.yaml beside it certifies" in answer.err
        assert "Traceback" not in answer.err
    assert {path.name for path in tmp_path.iterdir()} <= {"run"}


def test_a_changed_architecture_of_a_certified_folder_is_refused(nas, certified):
    file = certified / "architecture.yaml"
    file.write_text(scale_width(space.load(file), 2.0).to_yaml())
    answer = nas("measure", certified, "--target", "null@cpu:1", "--input", "64x96")
    assert answer.code == 2
    assert "architecture.yaml: expected the file that certificate.yaml beside it certifies" in answer.err
    with pytest.raises(UserError, match="remove the certificate"):
        load_trained(str(certified), None)


def test_a_folder_whose_certificate_was_removed_can_be_used(certified):
    change_weights(certified)
    (certified / "certificate.yaml").unlink()
    assert load_trained(str(certified), None).labelling.classes == ("ground", "box", "sky")


def test_a_graph_in_int8_is_timed_only_on_its_target_at_its_certified_size(trained, certify, tmp_path):
    """The graph is of no use on other targets or sizes: INT8 of a GPU is another graph, and each has one input size."""
    folder = shutil.copytree(trained, tmp_path / "int8")
    (folder / "model.onnx").write_bytes(b"a graph")
    certify(folder, "onnxruntime:int8@cpu:1")
    certificate = read_certificate(folder)
    words = strict.dump(replace(certificate, precision="int8", form="onnxruntime:int8@cpu:1"))
    (folder / "certificate.yaml").write_text(words)
    size = certificate.latency.height, certificate.latency.width
    for target in ("onnxruntime:int8@cpu:1", "openvino:int8@cpu"):
        assert deployed_graph(str(folder), parse_target(target), size, 3) == b"a graph"
        assert deployed_graph(str(folder), parse_target(target), (size[0] + 8, size[1]), 3) is None
        assert deployed_graph(str(folder), parse_target(target), size, 4) is None
    for target in ("tensorrt:int8@cuda:0", "onnxruntime@cpu:1", "null@cpu:1"):
        assert deployed_graph(str(folder), parse_target(target), size, 3) is None


@pytest.mark.share(4)
@pytest.mark.parametrize("name", space.published())
def test_the_number_of_classes_is_read_from_the_head_of_weights(name, tmp_path):
    architecture = scale_width(space.load(name), 0.1)
    (tmp_path / "a.yaml").write_text(architecture.to_yaml())
    save_weights(tmp_path / "w.safetensors", architecture.build(7).state_dict(), {})
    trained = load_trained(str(tmp_path / "a.yaml"), str(tmp_path / "w.safetensors"))
    assert trained.labelling is None
    assert trained.head_classes() == 7


@pytest.mark.slow
def test_weights_without_metadata_need_no_data(nas, pictures, tmp_path):
    torch.manual_seed(0)
    architecture = scale_width(space.load("ndnet29-fcn32"), 0.25)
    (tmp_path / "a.yaml").write_text(architecture.to_yaml())
    save_weights(tmp_path / "w.safetensors", architecture.build(7).state_dict(), {})
    network = (tmp_path / "a.yaml", "--weights", tmp_path / "w.safetensors", "--input", "64x96")
    answer = nas("export", *network, "--out", tmp_path / "m.onnx")
    assert answer.code == 0, answer.err
    assert "classes: class 0, class 1, class 2, class 3, class 4, class 5, class 6" in answer.out
    answer = nas("predict", *network, "--out", tmp_path / "out", next((pictures / "val" / "images").iterdir()))
    assert answer.code == 0, answer.err
    answer = nas(
        "prune", *network, "--epochs", "0", "--budget", "9ms", "--target", "null@cpu:1", "--out", tmp_path / "pruned"
    )
    assert answer.code == 0, answer.err
    assert "certificate: PASS" in answer.out
    assert load_trained(str(tmp_path / "pruned"), None).head_classes() == 7


def test_weights_without_the_last_layer_of_the_network_are_refused(nas, tmp_path):
    save_weights(tmp_path / "w.safetensors", {"something": torch.zeros(3)}, {})
    answer = nas("export", "erfnet", "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "m.onnx")
    assert answer.code == 2
    assert "the last layer of erfnet, got no such weight" in answer.err


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--seed"])
@pytest.mark.parametrize("number", ["9" * 300, "-" + "9" * 5000, "1e3"], ids=["300 digits", "5000 digits", "1e3"])
def test_enormous_and_fractional_numbers_are_refused(nas, option, number):
    answer = nas("train", "erfnet", f"{option}={number}")
    assert answer.code == 2
    assert "expected a whole number of at most 1,000,000,000" in answer.err
    assert len(answer.err) < 1000
