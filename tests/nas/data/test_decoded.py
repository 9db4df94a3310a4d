"""The cache of decoded pictures: each is decoded once per machine, and shown the same with and without the cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.data import Dataset, DataSpec, check, class_shares, decoded, load, make_loader, read_label, sample
from nas.errors import DataError

PICTURE_BYTES = 4 * 64 * 96


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    decoded._warn_once.cache_clear()
    return tmp_path / "cache" / "framebudget"


def shown(dataset: Dataset, split: str = "train") -> tuple[Tensor, Tensor]:
    batches = list(make_loader(dataset, split, batch_size=2, augmentation=None, backend="torch").epoch(0))  # type: ignore[arg-type]
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any further reading of picture files fail, without touching the files, whose times must not change."""

    def read_bytes(path: Path) -> bytes:
        raise DataError(f"{path} is read")

    monkeypatch.setattr(sample, "read_bytes", read_bytes)


def test_pictures_that_were_checked_or_shown_are_not_decoded_again(
    load_tiny: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_tiny()
    first, shares = shown(replace(dataset, cache_gigabytes=0)), class_shares(replace(dataset, cache_gigabytes=0))
    findings = check(dataset)
    unread(monkeypatch)
    assert check(dataset) == findings
    assert same(shown(dataset), first)
    assert class_shares(dataset).tolist() == shares.tolist()
    with pytest.raises(DataError, match="is read"):
        check(replace(dataset, cache_gigabytes=0))


def test_a_file_that_changed_is_read_again(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    dataset = load_tiny()
    before = check(dataset)
    path = tiny_root / "train" / "labels" / "0.png"
    Image.fromarray(np.full((64, 96), 2, np.uint8)).save(path)
    assert check(dataset).fingerprint != before.fingerprint
    assert (read_label(dataset, path, None) == 2).all()
    assert any((label == 2).all() for label in shown(dataset)[1])
    path.unlink()
    with pytest.raises(DataError, match=f"{path} is missing"):
        shown(dataset)


def test_a_file_that_changed_is_read_again_though_size_and_time_of_writing_are_as_before(
    tiny_root: Path, load_tiny: Callable[..., Dataset]
) -> None:
    dataset = load_tiny()
    before = check(dataset)
    path = tiny_root / "train" / "images" / "0.jpg"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-40] ^= 1  # in the middle of the compressed data
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check(dataset).fingerprint.train_images != before.fingerprint.train_images


def test_the_same_files_under_another_class_list_are_other_labels(tiny_root: Path) -> None:
    def classes(text: str) -> set[int]:
        (tiny_root / "classes.yaml").write_text(text)
        return set(shown(load(DataSpec(name="folder", root=str(tiny_root), size=(64, 96))))[1].unique().tolist())

    (tiny_root / "classes.txt").unlink()
    assert classes("classes: [a, b, c, d]") == {0, 1, 2, 3, 255}
    assert classes("classes: [a, b, c, d]\nvoid: [d]") == {0, 1, 2, 255}


@pytest.mark.parametrize("kind", ["pictures", "samples"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"x" + data[1:]])
def test_damaged_cache_entries_are_decoded_from_the_files_again(
    kind: str,
    damage: Callable[[bytes], bytes],
    cache: Path,
    load_tiny: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = load_tiny()
    findings, first = check(dataset), shown(dataset)
    kept = list((cache / kind).glob("??/*"))
    assert len(kept) == 8
    for file in kept:
        file.write_bytes(damage(file.read_bytes()))
    assert check(dataset) == findings
    assert same(shown(dataset), first)
    assert same(shown(dataset, "validation"), shown(replace(dataset, cache_gigabytes=0), "validation"))
    unread(monkeypatch)  # the damaged entries are whole again
    assert check(dataset) == findings
    assert same(shown(dataset), first)


def test_a_cache_smaller_than_the_data_keeps_its_limit_and_all_pictures_are_shown(
    cache: Path, load_tiny: Callable[..., Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_tiny()
    small = replace(dataset, cache_gigabytes=2.2 * PICTURE_BYTES / 1e9)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            check(small)
            assert same(shown(small), shown(replace(dataset, cache_gigabytes=0)))
    assert len(list((cache / "pictures").glob("??/*"))) == 2
    assert sum(file.stat().st_size for file in cache.rglob("??/*")) <= 2.2 * PICTURE_BYTES
    assert caplog.text.count("see data.cache_gigabytes") == 1


def test_pictures_that_find_no_room_cost_no_writing_in_any_epoch(
    cache: Path, load_tiny: Callable[..., Dataset]
) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        """Inode and time of writing of each file, which change when a file is written anew."""
        return {file: (file.stat().st_ino, file.stat().st_ctime_ns) for file in cache.rglob("??/*")}

    small = replace(load_tiny(), cache_gigabytes=2.2 * PICTURE_BYTES / 1e9)
    check(small)
    kept = files()
    assert {file.parent.parent.name for file in kept} == {"pictures", "samples"}
    for _ in range(2):
        shown(small)
        shown(small, "validation")
        assert files() == kept


def test_training_goes_on_without_a_writable_cache(
    tmp_path: Path,
    load_tiny: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    dataset = load_tiny()
    with caplog.at_level(logging.WARNING):
        assert same(shown(dataset), shown(replace(dataset, cache_gigabytes=0)))
        check(dataset)
    assert caplog.text.count("make room there, or set XDG_CACHE_HOME") == 1


def test_the_size_of_the_cache_is_part_of_a_study() -> None:
    assert load(DataSpec(train_images=1, validation_images=1, size=(32, 48), cache_gigabytes=2)).cache_gigabytes == 2
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(DataError, match="cache_gigabytes: expected 0 or more"):
            DataSpec(cache_gigabytes=wrong)
