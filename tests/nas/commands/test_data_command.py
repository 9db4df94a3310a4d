"""`nas data`, and the data of other commands: pictures, labels and paths."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from nas.data import DataSpec, check, load


def test_the_table_lists_images_labels_and_classes(nas, own_pictures):
    shutil.copy(own_pictures / "val" / "images" / "0.jpg", own_pictures / "val" / "images" / "other.webp")
    told = nas("data", f"folder:{own_pictures}").done().out
    assert "train       6 images of 64x96 (HxW); labels grey" in told
    assert "validation  3 images of 64x96 (HxW); labels grey" in told
    labels = [np.array(Image.open(path)) for path in (own_pictures / "train" / "labels").iterdir()]
    labelled = np.concatenate([label[label != 255] for label in labels])
    for value, name in enumerate(("ground", "box", "sky")):
        row = re.search(rf"^ +{value} +{name} +([\d.]+) +(\d+) +([\d.]+) +(\d+)$", told, re.M)
        assert row, told
        assert float(row[1]) == pytest.approx(100 * (labelled == value).mean(), abs=0.06)
        assert row[2] == str(sum((label == value).any() for label in labels))
    assert re.search(r"^ +void, of all pixels +3\.1 +3\.1$", told, re.M), told
    assert told.count("note: ") == 1
    assert "1 file is not read (.webp): other.webp" in told


def test_nas_data_decodes_every_file_anew_and_caches_none(nas, own_pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = DataSpec(name="folder", root=str(own_pictures), size=(64, 96))
    check(load(spec))
    kept = sorted((tmp_path / "cache").rglob("samples/??/*"))
    assert len(kept) == 9
    shutil.rmtree(tmp_path / "cache")
    nas("data", f"folder:{own_pictures}").done()
    assert not list((tmp_path / "cache").rglob("??/*"))


def test_nas_data_reads_the_data_of_a_study(nas, own_pictures, tmp_path):
    study = tmp_path / "study.yaml"
    recipe = "{optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}"
    study.write_text(f"data: {{name: folder, root: {own_pictures}, size: [96, 64]}}\nbudget: 5ms\nrecipe: {recipe}\n")
    assert "are height and width swapped? sizes are HxW: 64x96" in nas("data", study).done().out
    assert "note" not in nas("data", study, "--input", "64x96").done().out


def test_bad_class_lists_and_data_names_are_refused_in_one_line(nas, own_pictures):
    (own_pictures / "classes.txt").write_text("ground\n\nsky\n")
    assert "line 2: expected the name of the next label value" in nas("data", f"folder:{own_pictures}").refusal()
    assert "give folder:" in nas("data", own_pictures).refusal()


@pytest.fixture
def home(own_pictures, tmp_path, monkeypatch):
    """A home folder that holds the pictures; commands run in another folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def test_a_tilde_is_the_home_wherever_a_path_is_given(nas, small, home):
    shutil.copy(small, home / "small.yaml")
    study = "data: {name: folder, root: ~/pictures, size: [64, 96]}\nbudget: 5ms\nrecipe: " + (
        "{optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}\n"
    )
    (home / "study.yaml").write_text(study)
    assert "6 images" in nas("data", "~/study.yaml").done().out
    assert "6 images" in nas("data", "folder:~/pictures").done().out
    size = ("--input", "64x96")
    nas("train", "~/small.yaml", "--data", "folder:~/pictures", *size, "--epochs", "1", "--out=~/out").done()
    assert (home / "out" / "weights.safetensors").is_file()
    nas("evaluate", "~/out", "--data=folder:~/pictures").done()
    nas(
        "predict", "~/small.yaml", "--weights=~/out/weights.safetensors", "~/pictures/val/images/0.jpg", "--out=~/p"
    ).done()
    assert (home / "p" / "0.overlay.png").is_file()
    assert os.listdir(home / "elsewhere") == []


def test_a_training_does_not_go_on_with_other_labels(nas, small, own_pictures, tmp_path):
    def train(*more):
        data = ("--data", f"folder:{own_pictures}", "--input", "64x96")
        return nas("train", small, *data, "--epochs", "1", "--out", tmp_path / "out", *more)

    train().done()
    train("--resume").done()
    path = own_pictures / "train" / "labels" / "0.png"
    before = path.read_bytes()
    Image.fromarray(np.array([1, 0, 2, *range(3, 256)], np.uint8)[np.array(Image.open(path))]).save(path)
    assert "but the train labels have changed" in train("--resume").refusal()
    (tmp_path / "out" / "data.yaml").unlink()  # as an earlier version left it
    train("--resume").done()
    path.write_bytes(before)
    assert "but the train labels have changed" in train("--resume").refusal()


def test_pictures_are_seen_and_shown_as_viewers_show_them(nas, trained, own_pictures, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(own_pictures / "val" / "images" / "0.jpg").copy()
    upright.save(tmp_path / "0.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    nas("predict", trained, tmp_path / "0.png", tmp_path / "turned.png", "--out", tmp_path / "out").done()
    overlays = [np.array(Image.open(tmp_path / "out" / f"{name}.overlay.png")) for name in ("0", "turned")]
    np.testing.assert_array_equal(*overlays)


@pytest.mark.parametrize("images", [1, 3])
def test_a_batch_of_one_image_trains_although_a_norm_sees_a_single_value(images, nas, small, own_pictures, tmp_path):
    for kind in ("images", "labels"):
        for path in sorted((own_pictures / "train" / kind).iterdir())[images:]:
            path.unlink()
    data = ("--data", f"folder:{own_pictures}", "--input", "32x32", "--batch-size", "1")
    assert "epoch 2/2" in nas("train", small, *data, "--epochs", "2", "--out", tmp_path / "out").done().out
