"""Finding the files of a data set on disk and pairing every image with its label."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from nas.data.dataset import DataSpec, Split
from nas.errors import DataError
from nas.host.words import counted
from nas.storage.files import OWNER, expanded

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")
LABEL_SUFFIXES = (".png",)
OTHER_PICTURES = (
    ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm", ".pnm",
    ".tga", ".npy", ".mat", ".exr", ".hdr", ".dng", ".raw",
)  # fmt: skip
"""Suffixes of files that are probably pictures or labels but are not read."""
MOST_NAMED = 3  # files listed in a message


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The pictures in a folder and its sub-folders."""

    files: dict[str, Path]
    """Files by their path inside the folder, without suffix; composed and decomposed accents give the same name."""
    others: dict[str, Path]
    """Files that look like pictures but are of formats that are not read, by the same names."""


def root_of(spec: DataSpec, layout: str) -> Path:
    """The folder of a data set on disk; `layout` says in a few words what it must hold.

    Raises: DataError when no root is given, it is not a folder, or a seed is given.
    """
    if spec.seed:
        raise DataError(f"data.seed: only road_scenes is drawn from a seed, got {spec.seed} for {spec.name}; remove it")
    if spec.root is None:
        raise DataError(f"data.root: {spec.name} needs the folder that holds {layout}; set data.root to it")
    root = expanded(spec.root)
    if not root.is_dir():
        raise DataError(f"data.root: {root} is not a folder; expected one that holds {layout}")
    return root


def pair_folders(images: Path, labels: Path) -> tuple[Split, tuple[str, ...]]:
    """Pair images/NAME.jpg or .png with labels/NAME.png, sorted by name, sub-folders included. The second value holds
    sentences for the user about files that were left out.

    Raises: DataError when a folder is missing, an image has no label or the reverse, or there is no pair at all.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(
                f"{folder} is missing; expected images in {images} and their labels in {labels}{_beside(folder)}"
            )
    found, labelled = find(images, IMAGE_SUFFIXES), find(labels, LABEL_SUFFIXES)
    _explain_unread(found, labelled)
    split = pair(found.files, labelled.files, images, labels)
    return split, tuple(filter(None, (_left_out(images, found), _left_out(labels, labelled))))


def find(folder: Path, suffixes: tuple[str, ...]) -> Listing:
    """The pictures in a folder and its sub-folders with one of the suffixes; hidden files and folders are left out.

    Raises: DataError when two files differ only in their suffix, or a folder cannot be read.
    """
    files: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for path in _walk(folder):
        suffix = path.suffix.lower()
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if suffix in suffixes:
            if name in files:
                raise DataError(f"{path} and {files[name].name} have the same name; remove one of them")
            files[name] = path
        elif suffix in IMAGE_SUFFIXES or suffix in OTHER_PICTURES:
            others[name] = path
    return Listing(files=files, others=others)


def pair(images: dict[str, Path], labels: dict[str, Path], image_root: Path, label_root: Path) -> Split:
    """Pair images and labels that have the same key, sorted by key.

    Raises: DataError when a key has only an image or only a label, or there is no pair at all.
    """
    for name in sorted(images.keys() - labels.keys()):
        hint = _nearly(name, labels)
        raise DataError(
            f"{images[name]} has no label in {label_root}; add the label '{name}' or remove the image{hint}"
        )
    for name in sorted(labels.keys() - images.keys()):
        hint = _nearly(name, images)
        raise DataError(
            f"{labels[name]} has no image in {image_root}; add the image '{name}' or remove the label{hint}"
        )
    if not images:
        raise DataError(f"{image_root} holds no images ({', '.join(IMAGE_SUFFIXES)}); expected at least one")
    names = sorted(images)
    return Split(images=tuple(images[name] for name in names), labels=tuple(labels[name] for name in names))


def thin(split: Split, count: int | None) -> Split:
    """At most `count` pairs, evenly spread: neighbours in a video are alike, so the first ones would vary little."""
    if count is None or count >= len(split):
        return split
    chosen = [index * len(split) // count for index in range(count)]
    return Split(images=_pick(split.images, chosen), labels=_pick(split.labels, chosen))


def _pick(paths: tuple[Path, ...], chosen: Iterable[int]) -> tuple[Path, ...]:
    return tuple(paths[index] for index in chosen)


def _walk(folder: Path) -> list[Path]:
    """All files, sorted by path, except hidden ones (`.DS_Store`, `._a.png`) and those that a Mac adds to archives."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}); check the folder and its permissions")

    found = []
    seen = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder that has been visited
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [each for each in folders if not each.startswith(".") and each != "__MACOSX"]
        found += [Path(place, each) for each in files if not each.startswith(".")]
        # A folder called a.png is listed like a file, so that it is refused by name and not silently searched.
        found += [Path(place, each) for each in folders if each.lower().endswith(IMAGE_SUFFIXES)]
    return sorted(found)


def _explain_unread(images: Listing, labels: Listing) -> None:
    """Refuse a file that has the name of an image or label but a format that is not read.

    Raises: DataError.
    """
    for name in sorted(labels.others.keys() & images.files.keys() - labels.files.keys()):
        path = labels.others[name]
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise DataError(
                f"{path}: expected a label as PNG, got a JPEG, whose compression mixes the values of neighbouring "
                "classes; export the label again as PNG (converting this file would keep the damage)"
            )
        raise DataError(f"{path}: expected a label as PNG, got {path.suffix}, which is not read; convert it")
    for name in sorted(images.others.keys() & labels.files.keys() - images.files.keys()):
        path = images.others[name]
        raise DataError(f"{path}: expected an image as JPEG or PNG, got {path.suffix}, which is not read; convert it")


def _left_out(folder: Path, found: Listing) -> str:
    """A sentence about the files that were not read; empty if there are none."""
    if not found.others:
        return ""
    names = sorted(path.relative_to(folder).as_posix() for path in found.others.values())
    kinds = ", ".join(sorted({path.suffix.lower() for path in found.others.values()}))
    more = "" if len(names) <= MOST_NAMED else f" and {len(names) - MOST_NAMED} more"
    files, them = counted(len(names), "file is", "files are"), "it" if len(names) == 1 else "them"
    return f"{folder}: {files} not read ({kinds}): {', '.join(names[:MOST_NAMED])}{more}; convert {them}"


def _nearly(name: str, others: dict[str, Path]) -> str:
    """A hint at the name that was probably meant, as the end of a sentence."""
    by_case = [path for other, path in others.items() if other.lower() == name.lower()]
    if by_case:
        return f" (there is {by_case[0].name}: the names differ in capitals)"
    last = PurePath(name).name
    by_place = [path for other, path in others.items() if PurePath(other).name == last]
    if by_place:
        return f" (there is {by_place[0]}: both must lie in the same sub-folder)"
    by_start = [path for other, path in others.items() if other.startswith(name) or name.startswith(other)]
    return f" (there is {by_start[0].name}: rename it)" if by_start else ""


def _beside(folder: Path) -> str:
    """The folders found where one is missing, as the end of a sentence; without the working folders of commands, such
    as the one just created for results.
    """
    place = next(parent for parent in folder.parents if parent.is_dir())
    folders = [each for each in place.iterdir() if each.is_dir() and not each.name.startswith(".")]
    names = sorted(each.name for each in folders if not (each / OWNER).exists())
    return f"; {place} holds the folders {', '.join(names[:6])}" if names else ""
