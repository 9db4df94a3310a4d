"""`nas predict`: overlays of pictures of any size."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import read_image
from nas.data.pictures import overlay
from nas.runs.trained import load_trained
from nas.training.own_size import View, label_at_own_size
from nas.training.prediction import predict
from nas.training.weights import load_weights, read_metadata, save_weights


@pytest.fixture
def large(pictures, tmp_path):
    """A picture larger than the network's input, and of another shape."""
    file = tmp_path / "large.png"
    Image.open(pictures / "val" / "images" / "0.jpg").resize((250, 130)).save(file)
    return file


def test_every_image_becomes_an_overlay_of_its_own_size(nas, trained, pictures, large, tmp_path):
    small = pictures / "val" / "images" / "1.jpg"
    answer = nas("predict", trained, small, large, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert [line.partition(": ")[0] for line in answer.out.splitlines()] == [
        f"segmenting with {trained}",
        str(tmp_path / "out" / "1.overlay.png"),
        str(tmp_path / "out" / "large.overlay.png"),
    ]
    usable = load_trained(str(trained), None)
    network = usable.network(3)
    for image, name in ((small, "1"), (large, "large")):
        pixels = read_image(image, None)
        label = predict(network, pixels, (64, 96))
        written = np.asarray(Image.open(tmp_path / "out" / f"{name}.overlay.png"))
        assert written.shape == pixels.shape
        np.testing.assert_array_equal(written, overlay(pixels, label, usable.labelling.palette))


def test_shares_of_the_classes_are_printed(nas, trained, pictures, tmp_path):
    answer = nas("predict", trained, pictures / "val" / "images" / "2.jpg", "--out", tmp_path)
    shares = [part.rsplit(" ", 2) for part in answer.out.strip().partition(": ")[2].split(", ")]
    assert {name for name, _, _ in shares} <= {"ground", "box", "sky"}
    assert sum(int(share) for _, share, _ in shares) == pytest.approx(100, abs=2)


def test_a_truncated_image_is_named_and_the_other_images_are_segmented(nas, trained, pictures, tmp_path):
    good = pictures / "val" / "images" / "0.jpg"
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:-500])
    answer = nas("predict", trained, cut, good, "--out", tmp_path / "out")
    assert f"left out: {cut} is damaged or cut short" in answer.out
    assert f"1 of 2 images could not be read, the first: {cut} is damaged" in answer.refusal()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["0.overlay.png"]
    assert "0.overlay.png: " in answer.out
    assert f"{cut} is damaged" in nas("predict", trained, cut, "--out", tmp_path / "out").refusal()


def test_a_file_that_appears_while_images_are_segmented_is_not_replaced(nas, trained, pictures, tmp_path, monkeypatch):
    overlay_of_it = tmp_path / "0.overlay.png"

    def read(*words):
        overlay_of_it.write_text("mine")
        return read_image(*words)

    monkeypatch.setattr("nas.data.read_image", read)
    told = nas("predict", trained, pictures / "val" / "images" / "0.jpg", "--out", tmp_path).refusal()
    assert f"{overlay_of_it}: expected none still" in told
    assert overlay_of_it.read_text() == "mine"


def test_missing_images_and_images_of_the_same_name_are_refused_before_any_is_segmented(
    nas, trained, pictures, tmp_path
):
    good = pictures / "val" / "images" / "0.jpg"
    missing = nas("predict", trained, good, tmp_path / "none.jpg", "--out", tmp_path / "out")
    assert "none.jpg: expected an image, got no such file" in missing.refusal()
    twice = nas("predict", trained, good, pictures / "train" / "images" / "0.jpg", "--out", tmp_path / "out")
    assert "would both become" in twice.refusal()
    (tmp_path / "my own").mkdir()
    folder = nas("predict", trained, good, tmp_path / "my own", "--out", tmp_path / "out")
    assert f"got a folder; give its files, such as '{tmp_path / 'my own'}'/*.jpg" in folder.refusal()
    assert not (tmp_path / "out").exists()


def test_label_files_hold_the_scored_labels_in_the_values_of_the_data_set(nas, trained, pictures, large, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(trained, own)
    words = read_metadata(own / "weights.safetensors")
    assert words["label_values"] == "[0, 1, 2]"
    weights = load_weights(own / "weights.safetensors")
    save_weights(own / "weights.safetensors", weights, {**words, "label_values": "[7, 26, 23]"})
    answer = nas("predict", own, large, "--labels", "--out", tmp_path / "out").done()
    assert answer.out.startswith(f"segmenting with {own}\n{tmp_path / 'out' / 'large.png'}: ")
    written = Image.open(tmp_path / "out" / "large.png")
    assert written.mode == "L"
    seen = label_at_own_size(load_trained(str(own), None).network(3), read_image(large, None), View(size=(64, 96)))
    np.testing.assert_array_equal(np.asarray(written), np.array([7, 26, 23])[seen])

    save_weights(own / "weights.safetensors", weights, {key: words[key] for key in words if key != "label_values"})
    assert "the label values of their classes" in nas("predict", own, large, "--labels").refusal()
    told = nas("predict", own, large, "--labels", "--data", f"folder:{pictures}", "--out", tmp_path / "again").done()
    assert np.isin(np.asarray(Image.open(tmp_path / "again" / "large.png")), (0, 1, 2)).all(), told.out


def test_a_label_file_does_not_replace_its_image(nas, trained, large):
    before = large.read_bytes()
    answer = nas("predict", trained, large, "--labels", "--out", large.parent)
    assert f"{large} is one of the images, which would be lost" in answer.refusal()
    assert large.read_bytes() == before
    assert "--labels goes with images" in nas("predict", trained, "--video", "a.mp4", "--labels").refusal()


def test_nas_predict_replaces_only_its_own_pictures(nas, trained, own_pictures):
    images, labels = (own_pictures / "val" / kind for kind in ("images", "labels"))
    before = {file: file.read_bytes() for file in labels.iterdir()}
    (labels / "0.png").unlink()  # the first would be new
    told = nas("predict", trained, *sorted(images.iterdir()), "--labels", "--out", labels).refusal()
    assert f"expected no {labels / '1.png'}, or one that this version of `nas predict` wrote, got another file" in told
    assert {file: file.read_bytes() for file in labels.iterdir()} == {
        file: data for file, data in before.items() if file.name != "0.png"
    }
    for words in ((), ("--labels",)):
        for _ in range(2):
            nas("predict", trained, *images.iterdir(), *words, "--out", own_pictures / "seen").done()


def test_weights_with_nan_are_refused(nas, trained, pictures, small, tmp_path):
    weights, words = load_weights(trained / "weights.safetensors"), read_metadata(trained / "weights.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    variance = next(name for name in weights if name.endswith("running_var"))
    file = tmp_path / "w.safetensors"
    picture = pictures / "val" / "images" / "0.jpg"
    for bad, said in (
        ({name: torch.full_like(weights[name], torch.nan)}, f"finite weights, got NaN or infinite numbers in {name}"),
        ({name: weights[name].int()}, f"weights of floating point, got int32 in {name}"),
        ({variance: -weights[variance]}, f"variances of at least 0, got negative ones in {variance}"),
    ):
        save_weights(file, {**weights, **bad}, words)
        for command in (
            ("predict", small, picture),
            ("export", small),
            ("evaluate", small, "--data", f"folder:{pictures}"),
        ):
            told = nas(*command, "--weights", file, "--out", tmp_path / "out.onnx").refusal()
            assert f"w.safetensors: expected {said}; use another file" in told


def test_logits_with_nan_are_refused(nas, trained, pictures, small, tmp_path):
    """The weights are finite, but their products lie beyond the range of float32."""
    weights, words = load_weights(trained / "weights.safetensors"), read_metadata(trained / "weights.safetensors")
    head = next(name for name in reversed(weights) if name.startswith("head") and name.endswith("weight"))
    save_weights(tmp_path / "w.safetensors", {**weights, head: torch.full_like(weights[head], 3e38)}, words)
    picture, data = pictures / "val" / "images" / "0.jpg", ("--data", f"folder:{pictures}")
    for command in (
        ("predict", small, picture),
        ("predict", small, picture, "--labels"),
        ("evaluate", small, *data),
        ("evaluate", small, *data, "--at", "labels"),
    ):
        told = nas(*command, "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "out").refusal()
        assert "expected finite logits, got NaN or infinite numbers" in told


def test_the_prefix_of_data_parallel_is_taken_off(nas, trained, pictures, small, tmp_path):
    weights = load_weights(trained / "weights.safetensors")
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    save_weights(tmp_path / "wrapped.safetensors", wrapped, read_metadata(trained / "weights.safetensors"))
    picture = pictures / "val" / "images" / "0.jpg"
    for folder, file in (("plain", trained / "weights.safetensors"), ("wrapped", tmp_path / "wrapped.safetensors")):
        nas("predict", small, picture, "--weights", file, "--out", tmp_path / folder).done()
    written = [(tmp_path / folder / "0.overlay.png").read_bytes() for folder in ("plain", "wrapped")]
    assert written[0] == written[1]
