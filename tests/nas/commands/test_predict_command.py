"""`nas predict`: overlays of pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nas.data import read_image
from nas.data.pictures import overlay
from nas.runs.trained import load_trained
from nas.training.prediction import predict


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


def test_a_truncated_image_is_named_and_the_others_are_done(nas, trained, pictures, tmp_path):
    good = pictures / "val" / "images" / "0.jpg"
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:-500])
    answer = nas("predict", trained, cut, good, "--out", tmp_path / "out")
    assert f"left out: {cut} is damaged or cut short" in answer.out
    assert f"1 of 2 images could not be read, the first: {cut} is damaged" in answer.refusal()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["0.overlay.png"]
    assert "0.overlay.png: " in answer.out
    assert f"{cut} is damaged" in nas("predict", trained, cut, "--out", tmp_path / "out").refusal()


def test_images_that_are_missing_or_of_one_name_are_refused_before_any_is_done(nas, trained, pictures, tmp_path):
    good = pictures / "val" / "images" / "0.jpg"
    missing = nas("predict", trained, good, tmp_path / "none.jpg", "--out", tmp_path / "out")
    assert "none.jpg: expected an image, got no such file" in missing.refusal()
    twice = nas("predict", trained, good, pictures / "train" / "images" / "0.jpg", "--out", tmp_path / "out")
    assert "would both become" in twice.refusal()
    folder = nas("predict", trained, good, tmp_path, "--out", tmp_path / "out")
    assert f"{tmp_path}: expected an image, got a folder; give its files" in folder.refusal()
    assert not (tmp_path / "out").exists()
