"""Finding the files of a data set on disk and pairing every image with its label."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nas.data.dataset import DataSpec, Split
from space.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def root_of(spec: DataSpec, layout: str) -> Path:
    """The folder of a data set that lies on disk; `layout` says in a few words what must be in it.

    Raises: DataError when no root is given, it is not a folder, or a seed is given.
    """
    if spec.seed:
        raise DataError(f"data.seed: only road_scenes is drawn from a seed, got {spec.seed} for {spec.name}; remove it")
    if spec.root is None:
        raise DataError(f"data.root: {spec.name} needs the folder that holds {layout}; set data.root to it")
    root = Path(os.path.expanduser(spec.root))  # no error without a home
    if not root.is_dir():
        raise DataError(f"data.root: {root} is not a folder; expected one that holds {layout}")
    return root


def pair_folders(images: Path, labels: Path) -> Split:
    """Pairs images/NAME.jpg or .png with labels/NAME.png by name, sorted by name.

    Raises: DataError when a folder is missing, a name has only one of the two, or there is no pair at all.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"{folder} is missing; expected images in {images} and their labels in {labels}")
    return pair(by_stem(images, IMAGE_SUFFIXES), by_stem(labels, (".png",)), images, labels)


def by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files of a folder with one of the suffixes, by name without suffix; hidden files are left out.

    Raises: DataError when two files differ in the suffix only.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes:
            continue
        if path.stem in found:
            raise DataError(f"{path} and {found[path.stem].name} have the same name; remove one of them")
        found[path.stem] = path
    return found


def pair(images: dict[str, Path], labels: dict[str, Path], image_root: Path, label_root: Path) -> Split:
    """Joins images and labels that share a key, sorted by key.

    Raises: DataError when a key has only one of the two, or there is no pair at all.
    """
    for name in sorted(images.keys() - labels.keys()):
        raise DataError(f"{images[name]} has no label in {label_root}; add the label '{name}' or remove the image")
    for name in sorted(labels.keys() - images.keys()):
        raise DataError(f"{labels[name]} has no image in {image_root}; add the image '{name}' or remove the label")
    if not images:
        raise DataError(f"{image_root} holds no images ({', '.join(IMAGE_SUFFIXES)}); expected at least one")
    names = sorted(images)
    return Split(images=tuple(images[name] for name in names), labels=tuple(labels[name] for name in names))


def thin(split: Split, count: int | None) -> Split:
    """At most `count` pairs, evenly spread: neighbours in a video are alike, so the first ones would show little."""
    if count is None or count >= len(split):
        return split
    chosen = [index * len(split) // count for index in range(count)]
    return Split(images=_pick(split.images, chosen), labels=_pick(split.labels, chosen))


def _pick(paths: tuple[Path, ...], chosen: Iterable[int]) -> tuple[Path, ...]:
    return tuple(paths[index] for index in chosen)
