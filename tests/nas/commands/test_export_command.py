"""`nas export`: exported files give the outputs of PyTorch, and replace no file of the user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from nas.export import formats
from nas.runs.trained import load_trained


def outputs(file, image):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.get_outputs()[0].name, session.run(None, {"image": image.numpy()})[0]


def test_exported_labels_and_logits_are_those_of_pytorch(nas, trained, tmp_path):
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = load_trained(str(trained), None).network(3)(image).numpy()
    labels, logits = tmp_path / "labels.onnx", tmp_path / "deep" / "logits.onnx"

    answer = nas("export", trained, "--out", labels)
    assert answer.code == 0, answer.err
    assert "image (1, 3, 64, 96) -> labels (1, 64, 96)" in answer.out
    assert "100.000 % of the labels are the same (2 images)" in answer.out
    assert "classes: ground, box, sky" in answer.out
    name, found = outputs(labels, image)
    assert name == "labels"
    assert (found == expected.argmax(1)).mean() > 0.999

    answer = nas("export", trained, "--logits", "--out", logits)
    assert "-> logits (1, 3, 64, 96)" in answer.out
    name, found = outputs(logits, image)
    assert name == "logits"
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected))


def test_a_network_can_be_exported_at_another_size(nas, trained, tmp_path):
    answer = nas("export", trained, "--input", "48x80", "--out", tmp_path / "m.onnx")
    assert answer.code == 0, answer.err
    assert outputs(tmp_path / "m.onnx", torch.zeros(1, 3, 48, 80))[1].shape == (1, 48, 80)


def test_weights_with_nan_leave_no_exported_file(nas, trained, small, tmp_path):
    from nas.training.weights import load_weights, read_metadata, save_weights

    weights = load_weights(trained / "weights.safetensors")
    first = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[first] = torch.full_like(weights[first], float("nan"))
    save_weights(tmp_path / "nan.safetensors", weights, read_metadata(trained / "weights.safetensors"))
    answer = nas("export", small, "--weights", tmp_path / "nan.safetensors", "--out", tmp_path / "out" / "m.onnx")
    assert "expected finite weights, got " in answer.refusal()
    assert not (tmp_path / "out").exists()


def test_a_folder_is_refused_as_output_file(nas, trained, tmp_path):
    refusal = nas("export", trained, "--out", tmp_path).refusal()
    assert f"got the folder {tmp_path}; give {tmp_path / 'model.onnx'}" in refusal


def test_a_file_of_the_user_is_not_overwritten(trained, nas):
    before = (trained / "weights.safetensors").read_bytes()
    told = nas("export", trained, "--out", trained / "weights.safetensors").refusal()
    assert "expected a new file, or one that ends in .onnx" in told
    assert (trained / "weights.safetensors").read_bytes() == before


def test_a_file_name_without_the_suffix_of_its_format_is_refused(nas, trained, tmp_path):
    told = nas("export", trained, "--out", tmp_path / "x.foo").refusal()
    assert f"expected a file that ends in .onnx, got {tmp_path / 'x.foo'}; give {tmp_path / 'x.foo'}.onnx, say" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_openvino_loads_the_pair_afresh_and_gives_the_labels_of_pytorch(nas, trained, tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino")
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = load_trained(str(trained), None).network(3)(image).numpy()
    monkeypatch.chdir(tmp_path)
    model, weights = Path("model.xml"), Path("model.bin")
    for earlier in (model, weights):
        earlier.write_text("of an earlier export")
    answer = nas("export", trained, "--format", "openvino").done()
    assert f"{model}, {weights}: image (1, 3, 64, 96) -> labels (1, 64, 96)" in answer.out
    assert "100.000 % of the labels are the same (2 images)" in answer.out
    assert {file.name for file in tmp_path.iterdir()} == {"model.xml", "model.bin"}

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(image.numpy())[0]
    assert [each.any_name for each in compiled.outputs] == ["labels"]
    assert found.shape == (1, 64, 96)
    assert (found == expected.argmax(1)).mean() > 0.999
    kinds = {
        output.get_element_type() for each in openvino.Core().read_model(model).get_ops() for output in each.outputs()
    }
    assert openvino.Type.f32 in kinds
    assert openvino.Type.f16 not in kinds, "weights were halved"


@pytest.mark.parametrize("there", ["m.bin", "m.xml"])
def test_half_of_a_pair_of_files_is_not_overwritten(nas, trained, there, tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / there).write_text("mine")
    told = nas("export", trained, "--format", "openvino", "--out", tmp_path / "m.xml").refusal()
    assert f"of an earlier export, or none of them, got {tmp_path / there}, which would be lost" in told
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_the_weights_of_a_pair_are_found_by_its_name(nas, trained, tmp_path):
    pytest.importorskip("openvino")
    told = nas("export", trained, "--format", "openvino", "--out", tmp_path / "m.onnx").refusal()
    assert f"expected a file that ends in .xml, got {tmp_path / 'm.onnx'}" in told
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused_with_the_known_ones(nas, trained):
    told = nas("export", trained, "--format", "open-vino").refusal()
    assert f"expected one of {', '.join(formats.names())}; got 'open-vino'; did you mean 'openvino'?" in told


def test_a_format_whose_library_is_missing_names_the_package_to_install(nas, trained, tmp_path):
    if formats.load("tensorrt").missing() is None:
        pytest.skip("TensorRT is here")
    told = nas("export", trained, "--format", "tensorrt", "--out", tmp_path / "m.engine").refusal()
    assert "tensorrt cannot be written here: pip install 'tensorrt<11'" in told
    assert list(tmp_path.iterdir()) == []
