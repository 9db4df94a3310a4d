"""The drawn street scenes: the same for the same seed, safe in their cache, and not predictable from colour alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nas.data import DataSpec, check, class_shares, load, read_image, read_label
from nas.data.drawing import drawn, worth_it
from nas.data.scenery import draw_scene
from nas.errors import DataError, HaltedError
from nas.host.cores import usable_cores
from nas.storage.ownership import owned
from nas.terminal import ProgressLine

SIZE = (60, 80)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "framebudget"


def spec(**changes: object) -> DataSpec:
    return DataSpec(**{"size": SIZE, "train_images": 3, "validation_images": 1, **changes})  # type: ignore[arg-type]


def test_a_scene_depends_on_its_generator_only() -> None:
    first, again, other = (draw_scene(np.random.default_rng(seed), SIZE) for seed in (3, 3, 4))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[1] != other[1]).any()


@pytest.mark.parametrize("size", [(60, 80), (90, 64), (33, 47)])
def test_a_scene_has_the_requested_size(size: tuple[int, int]) -> None:
    image, label = draw_scene(np.random.default_rng(0), size)
    assert image.shape == (*size, 3)
    assert label.shape == size
    assert image.dtype == label.dtype == np.uint8
    assert label.max() <= 11


def test_every_class_occurs_and_no_class_dominates() -> None:
    pixels = np.zeros(12)
    for seed in range(30):
        pixels += np.bincount(draw_scene(np.random.default_rng(seed), (90, 120))[1].ravel(), minlength=12)
    shares = pixels / pixels.sum()
    assert shares.min() > 0.0005
    assert shares.max() < 0.55


@pytest.mark.slow
def test_colour_alone_does_not_determine_the_classes() -> None:
    """The best guess from a pixel's colour, learned from 20 scenes, is often wrong in 10 other scenes."""
    votes = np.zeros((16**3, 12))
    right = total = 0
    for seed in range(30):
        image, label = draw_scene(np.random.default_rng(seed), (90, 120))
        bins = (image // 16).astype(int) @ np.array([256, 16, 1])
        if seed < 20:
            np.add.at(votes, (bins.ravel(), label.ravel()), 1)
        else:
            right += int((votes.argmax(axis=1)[bins] == label).sum())
            total += label.size
    assert right / total < 0.75


def test_pictures_are_drawn_once_and_pass_their_check(cache: Path) -> None:
    dataset = load(spec())
    check(dataset)
    drawn = dataset.train.images[0].stat().st_mtime_ns
    assert load(spec()) == dataset
    assert dataset.train.images[0].stat().st_mtime_ns == drawn
    assert (len(dataset.train), len(dataset.validation)) == (3, 1)
    assert read_image(dataset.train.images[0], SIZE).shape == (*SIZE, 3)
    assert class_shares(dataset).sum() == pytest.approx(1.0)


def test_labels_on_disk_are_the_drawn_labels(cache: Path) -> None:
    dataset = load(spec(seed=5))
    _, label = draw_scene(np.random.default_rng([5, 0, 2]), SIZE)
    read = read_label(dataset, dataset.train.labels[2], None)
    assert (read == np.where(label == 11, 255, label)).all()


def test_scenes_with_other_settings_are_kept_in_other_folders(cache: Path) -> None:
    wishes = ({}, {"seed": 1}, {"size": (64, 80)})
    roots = {load(spec(train_images=1, **each)).train.images[0].parents[2] for each in wishes}
    assert len(roots) == 3


def test_an_unfinished_drawing_of_a_killed_process_is_replaced(cache: Path) -> None:
    folder = load(spec()).train.images[0].parents[2]
    folder.rename(folder.with_suffix(".unfinished"))
    next((folder.with_suffix(".unfinished") / "train" / "images").iterdir()).unlink()
    check(load(spec()))
    assert not folder.with_suffix(".unfinished").exists()


LOAD = """
from nas.data import DataSpec, load
print(len(load(DataSpec(size=(60, 80), train_images=3, validation_images=1)).train))
"""


def test_processes_that_load_at_the_same_time_share_one_drawing(cache: Path) -> None:
    command = [sys.executable, "-c", LOAD]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [each.communicate(timeout=120)[0].strip() for each in asking] == ["3"] * 3
    assert len(list(cache.glob("road_scenes-*/"))) == 1


def test_a_root_and_an_unwritable_cache_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="drawn, not read"):
        load(spec(root=str(tmp_path)))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        load(spec())


SEEDS = [(0, 0, index) for index in range(5)]


def painters_of(process: int) -> list[int]:
    """The drawing processes of a process."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = each.joinpath("cmdline").read_bytes().split(b"\0")
            if b"nas.data.scenery" in words and str(process).encode() in words:
                found.append(int(each.name))
    return found


def test_several_processes_draw_the_same_files_in_order() -> None:
    entered = []

    @contextlib.contextmanager
    def guard() -> Iterator[None]:
        entered.append(1)
        yield

    alone = list(drawn(SEEDS, SIZE, guard, 1))
    assert len(entered) == len(SEEDS)
    assert list(drawn(SEEDS, SIZE, guard, 2)) == alone
    assert len(entered) == 2 * len(SEEDS)
    assert len(set(alone)) == len(SEEDS)
    assert painters_of(os.getpid()) == []


def test_large_drawings_use_all_cores_and_small_ones_one_process() -> None:
    assert worth_it(4, (60, 80)) == 1
    assert worth_it(300, (8192, 8192)) <= usable_cores()
    assert worth_it(1_000_000, (60, 80)) == usable_cores()


def test_drawing_processes_end_with_the_drawing() -> None:
    with contextlib.closing(drawn(SEEDS, SIZE, contextlib.nullcontext, 2)) as files:
        next(files)
        assert len(painters_of(os.getpid())) == 2
    assert painters_of(os.getpid()) == []


def test_a_killed_drawing_process_is_reported() -> None:
    with contextlib.closing(drawn(SEEDS * 100, SIZE, contextlib.nullcontext, 2)) as files:
        next(files)
        os.kill(painters_of(os.getpid())[0], signal.SIGKILL)
        with pytest.raises(HaltedError, match="ended by SIGKILL"):
            list(files)
    assert painters_of(os.getpid()) == []


DRAW = """
from contextlib import closing, nullcontext
from nas.data.drawing import drawn
with closing(drawn([(0, 0, index) for index in range(10000)], (60, 80), nullcontext, 2)) as files:
    for _ in files:
        print(flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_drawing_processes_end_with_the_process_that_started_them(number: signal.Signals) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", DRAW], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    with asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        assert len(painters_of(asking.pid)) == 2
        os.kill(asking.pid, number)
        asking.communicate(timeout=120)
    assert asking.returncode
    deadline = time.monotonic() + 60
    while painters_of(asking.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not painters_of(asking.pid)


def test_the_progress_of_drawing_is_reported(cache: Path) -> None:
    progress = ProgressLine(silent=True)
    load(spec(), progress=progress)
    assert progress.done == 4


def test_waiting_for_the_drawing_of_another_process_is_logged(cache: Path) -> None:
    folder = load(spec()).train.images[0].parents[2]
    folder.rename(cache / "hidden")
    code = f"import logging; logging.basicConfig(level=logging.INFO){LOAD}"
    with contextlib.ExitStack() as drawing:
        drawing.enter_context(owned(folder.with_suffix(".drawing")))
        with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as asking:
            assert asking.stderr is not None
            assert "waiting for another process" in asking.stderr.readline()
            (cache / "hidden").rename(folder)
            drawing.close()
            assert "drawing" not in asking.stderr.read()
    assert asking.returncode == 0


def test_scenes_are_drawn_on_a_disk_without_locks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates NFS without its lock service, which no test can mount."""

    def flock(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    dataset = load(spec())
    assert (len(dataset.train), len(dataset.validation)) == (3, 1)
    assert [each.name for each in cache.iterdir()] == [dataset.train.images[0].parents[2].name]
