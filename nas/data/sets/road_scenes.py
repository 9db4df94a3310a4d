"""Street scenes drawn on this machine, with CamVid's classes: no download is needed, and equal seeds give equal scenes.

The pictures are drawn once and kept in $XDG_CACHE_HOME (or ~/.cache) under framebudget/road_scenes-<hash>; the hash
covers everything that they depend on. Drawing a picture of 256x512 takes one core 0.15 seconds, and larger pictures
correspondingly more.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from nas.data.dataset import Dataset, DataSpec, label_map
from nas.data.drawing import drawn
from nas.data.long_work import Guard, ProgressMonitor
from nas.data.pairing import pair_folders
from nas.data.sets.camvid import CLASSES, PALETTE, VOID
from nas.errors import DataError
from nas.storage.cache import cache_folder
from nas.storage.ownership import owned
from space.errors import UserError

GENERATOR = 1
"""Raise this whenever nas/data/scenery draws something else, so that old pictures are not taken for new ones."""

TRAIN_IMAGES = 240
VALIDATION_IMAGES = 60
LOG = logging.getLogger("nas.data")


def prepare(spec: DataSpec, guard: Guard, progress: ProgressMonitor) -> None:
    """Draw the scenes if this machine does not have them yet, each inside a `guard()`, and report them to `progress`.

    Raises: DataError when a root is given, or the cache folder cannot be written.
    """
    if spec.root is not None:
        raise DataError(
            f"data.root: road_scenes is drawn, not read, got {spec.root}; remove it, or name another data set"
        )
    folder = _folder(spec)
    with contextlib.ExitStack() as held:
        with _writing(folder):
            if folder.is_dir():
                return
            held.enter_context(_alone(folder, progress))
        if not folder.is_dir():
            _draw(folder, spec, guard, progress)


def load(spec: DataSpec) -> Dataset:
    """The data set of the scenes that `prepare` has drawn."""
    folder = _folder(spec)
    return Dataset(
        name=spec.name,
        classes=CLASSES,
        palette=PALETTE,
        label_map=label_map(len(CLASSES), void=(VOID,)),
        train=pair_folders(folder / "train" / "images", folder / "train" / "labels")[0],
        validation=pair_folders(folder / "val" / "images", folder / "val" / "labels")[0],
        size=spec.size,
    )


def _counts(spec: DataSpec) -> dict[str, int]:
    return {"train": spec.train_images or TRAIN_IMAGES, "val": spec.validation_images or VALIDATION_IMAGES}


def _folder(spec: DataSpec) -> Path:
    identity = f"{GENERATOR} {tuple(spec.size)} {_counts(spec)} {spec.seed}"
    return cache_folder() / f"road_scenes-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror}); make room there, or set XDG_CACHE_HOME to a folder "
            "that can be written to"
        ) from error


@contextlib.contextmanager
def _alone(folder: Path, progress: ProgressMonitor) -> Iterator[None]:
    """Wait until no other process draws the same scenes, and keep others waiting until this process ends, however it
    ends.
    """
    drawing = folder.with_suffix(".drawing")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(owned(drawing))
        except UserError:
            LOG.info("waiting for another process that draws the same road scenes")
            with progress.over("waited for road scenes", 0):
                held.enter_context(owned(drawing, patience_seconds=math.inf))
        yield


def _draw(folder: Path, spec: DataSpec, guard: Guard, progress: ProgressMonitor) -> None:
    counts = _counts(spec)
    scenes = [(split, index) for split, count in counts.items() for index in range(count)]
    seeds = [(spec.seed, list(counts).index(split), index) for split, index in scenes]
    unfinished = folder.with_suffix(".unfinished")
    with _writing(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        for split in counts:
            (unfinished / split / "images").mkdir(parents=True)
            (unfinished / split / "labels").mkdir()
    LOG.info("drawing %d road scenes, once for all runs", len(scenes))
    with progress.over("drew", len(scenes)), contextlib.closing(drawn(seeds, spec.size, guard)) as files:
        for (split, index), (image, label) in zip(scenes, files, strict=True):
            with _writing(folder):
                (unfinished / split / "images" / f"{index:05d}.jpg").write_bytes(image)
                (unfinished / split / "labels" / f"{index:05d}.png").write_bytes(label)
            progress.count(1)
    with _writing(folder):
        unfinished.rename(folder)
