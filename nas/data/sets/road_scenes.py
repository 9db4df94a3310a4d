"""Street views drawn on this machine, with CamVid's classes: needs no download and is the same for the same seed.

The pictures are drawn once and kept in $XDG_CACHE_HOME (or ~/.cache) under framebudget/road_scenes-<hash>; the hash
covers everything that they depend on. Drawing takes some seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
from pathlib import Path

from nas.data.dataset import Dataset, DataSpec, label_map
from nas.data.pairing import pair_folders
from nas.data.sets.camvid import CLASSES, PALETTE, VOID
from nas.storage.cache import cache_folder
from space.errors import DataError

GENERATOR = 1
"""To be raised whenever nas/data/scenery draws something else, so that no old pictures are taken for new ones."""

TRAIN_IMAGES = 240
VALIDATION_IMAGES = 60


def load(spec: DataSpec) -> Dataset:
    """The data set, drawn first if this machine does not have it yet.

    Raises: DataError when a root is given, or the cache folder cannot be written.
    """
    if spec.root is not None:
        raise DataError(
            f"data.root: road_scenes is drawn, not read, got {spec.root}; remove it, or name another data set"
        )
    folder = _drawn(spec)
    return Dataset(
        name=spec.name,
        classes=CLASSES,
        palette=PALETTE,
        label_map=label_map(len(CLASSES), void=(VOID,)),
        train=pair_folders(folder / "train" / "images", folder / "train" / "labels")[0],
        validation=pair_folders(folder / "val" / "images", folder / "val" / "labels")[0],
        size=spec.size,
    )


def _drawn(spec: DataSpec) -> Path:
    counts = {"train": spec.train_images or TRAIN_IMAGES, "val": spec.validation_images or VALIDATION_IMAGES}
    identity = f"{GENERATOR} {tuple(spec.size)} {counts} {spec.seed}"
    folder = cache_folder() / f"road_scenes-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Other processes wait here instead of drawing the same; the lock ends with its process, however that ends.
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                unfinished = folder.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                _draw(unfinished, spec, counts)
                unfinished.rename(folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror}); make room there, or set XDG_CACHE_HOME to another folder"
        ) from error
    return folder


def _draw(folder: Path, spec: DataSpec, counts: dict[str, int]) -> None:
    import numpy as np
    from PIL import Image

    from nas.data.scenery import draw_scene

    logging.getLogger("nas.data").info("drawing %d road scenes, once for all runs", sum(counts.values()))
    for number, (split, count) in enumerate(counts.items()):
        images, labels = folder / split / "images", folder / split / "labels"
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            image, label = draw_scene(np.random.default_rng([spec.seed, number, index]), spec.size)
            Image.fromarray(image).save(images / f"{index:05d}.jpg", quality=95, subsampling=0)
            Image.fromarray(label).save(labels / f"{index:05d}.png")
