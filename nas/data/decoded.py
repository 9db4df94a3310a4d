"""Pictures decoded once per machine: stored as raw arrays, and shared by all processes through the page cache.

Under $XDG_CACHE_HOME/framebudget (or ~/.cache/framebudget), `pictures/` holds the pixels and classes of as many pairs
as there is room for, and `samples/` what the check found in them. File names are digests of everything that the
contents depend on: paths, sizes and times of the two files, and how label values are read. Pairs that cannot be stored
are decoded each time they are shown.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.dataset import Dataset, SplitName
from nas.data.files import read_label
from nas.data.sample import Pair, Sample, decode_pair, decode_sample, digest, pixels_of_classes
from nas.storage.bounded import BoundedFolder
from nas.storage.cache import cache_folder
from space.errors import UserError

FORMAT = 1
"""Raise this whenever files are decoded differently, so that old entries are not taken for new ones."""
HEADER = b"framebudget pictures %d %8d %8d\n"  # format, height and width; the pixels of image and label follow
HEADER_BYTES = len(HEADER % (FORMAT, 0, 0))
SHARE_OF_SAMPLES = 32
"""One byte in this many is reserved for the findings of the check, which are kept longer than the pictures."""
_WARNING = threading.Lock()


class DecodedPairs:
    """The decoded pairs of one split, by index."""

    def __init__(self, dataset: Dataset, split: SplitName) -> None:
        self._dataset = dataset
        self._split = dataset.split(split)
        self._pictures, self._samples = _folders(dataset.cache_gigabytes)
        reading = (FORMAT, dataset.label_map, dataset.label_colours)
        self._reading = hashlib.blake2b(repr(reading).encode(), digest_size=20)

    def __len__(self) -> int:
        return len(self._split)

    def pairs(self, indices: Sequence[int], threads: int) -> list[Pair]:
        """Images and classes of several samples, read-only; those not stored yet are decoded in threads.

        Raises: DataError when a file is missing, unreadable or contradicts its counterpart.
        """
        names = [self._name(index) for index in indices]
        found = [self._kept_pair(name) for name in names]
        missing = [place for place, pair in enumerate(found) if pair is None]

        def decode(place: int) -> Pair:
            pair = decode_pair(self._dataset, *self._files(indices[place]))
            self._keep_pair(names[place], pair)
            return pair

        if len(missing) > 1 and threads > 1:
            with ThreadPoolExecutor(max_workers=threads) as pool:
                decoded = iter(list(pool.map(decode, missing)))
        else:
            decoded = map(decode, missing)
        return [next(decoded) if pair is None else pair for pair in found]

    def sample(self, index: int) -> Sample:
        """What a pair contains; the pair and these findings are stored if they are not yet and there is room.

        Raises: DataError as `pairs` does.
        """
        name = self._name(index)
        found = self._kept_sample(index, name)
        if found is None:
            pair, found = decode_sample(self._dataset, *self._files(index))
            if self._kept_pair(name) is None:
                self._keep_pair(name, pair)
            if self._samples and name:
                _keep(self._samples, name, [_written(found)])
        return found

    def class_pixels(self, index: int) -> tuple[int, ...]:
        """Labelled pixels of each class in a pair, (C,): from the stored findings, or else from its label alone.

        Raises: DataError when the label is missing, unreadable or holds a value that is no class.
        """
        found = self._kept_sample(index, self._name(index))
        if found is not None:
            return found.pixels
        return pixels_of_classes(self._dataset, read_label(self._dataset, self._split.labels[index], None))

    def _files(self, index: int) -> tuple[Path, Path]:
        return self._split.images[index], self._split.labels[index]

    def _name(self, index: int) -> str:
        """The name under which a pair is stored; empty if its files cannot be inspected."""
        hashed = self._reading.copy()
        for path in self._files(index):
            try:
                status = os.stat(path)
            except OSError:
                return ""
            # Copying or unpacking a file can restore its modification time, but not its change time. Inodes are left
            # out: some network file systems renumber them at each mount.
            seen = f"{os.path.abspath(path)}\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\0"
            hashed.update(seen.encode(errors="surrogateescape"))
        return hashed.hexdigest()

    def _kept_sample(self, index: int, name: str) -> Sample | None:
        kept = self._samples.opened(name) if self._samples and name else None
        return None if kept is None else _parsed(kept[:], self._split.labels[index])

    def _kept_pair(self, name: str) -> Pair | None:
        kept = self._pictures.opened(name) if self._pictures and name else None
        if kept is None:
            return None
        header = kept[:HEADER_BYTES].split()
        numbers = [int(word) for word in header[2:] if word.isdigit()]
        if header[:2] != HEADER.split()[:2] or len(numbers) != 3 or numbers[0] != FORMAT:
            return None
        height, width = numbers[1:]
        if len(kept) != HEADER_BYTES + 4 * height * width:
            return None
        pixels = np.frombuffer(kept, dtype=np.uint8, offset=HEADER_BYTES)
        image, label = pixels[: 3 * height * width], pixels[3 * height * width :]
        return Pair(image=image.reshape(height, width, 3), label=label.reshape(height, width))

    def _keep_pair(self, name: str, pair: Pair) -> None:
        if self._pictures and name:
            parts = [np.ascontiguousarray(pixels).data for pixels in (pair.image, pair.label)]
            _keep(self._pictures, name, [HEADER % (FORMAT, *pair.size), *parts])


def _folders(gigabytes: float | None) -> tuple[BoundedFolder | None, BoundedFolder | None]:
    """The folders that store pictures and findings; None if nothing is to be stored."""
    if gigabytes == 0:
        return None, None
    try:
        root = cache_folder()
        pictures, samples = root / "pictures", root / "samples"
        if gigabytes is None:
            existing = next(parent for parent in pictures.parents if parent.is_dir())
            whole = (shutil.disk_usage(existing).free + BoundedFolder(pictures, 0).held_bytes()) // 2
        else:
            whole = int(gigabytes * 1e9)
    except (UserError, OSError) as error:
        _warn(f"decoded pictures cannot be stored ({error}): every epoch decodes all of them")
        return None, None
    of_samples = whole // SHARE_OF_SAMPLES
    return BoundedFolder(pictures, whole - of_samples), BoundedFolder(samples, of_samples)


def _keep(folder: BoundedFolder, name: str, parts: Sequence[bytes | memoryview]) -> None:
    """Store something if possible. If not, the reason is logged once and training goes on."""
    try:
        if folder.keep(name, parts):
            return
        reason = "there is no more room; see data.cache_gigabytes and the free space on the disk"
    except OSError as error:
        reason = f"{cache_folder()} cannot be written to ({error.strerror}); make room there, or set XDG_CACHE_HOME"
    _warn(f"some decoded pictures cannot be stored and are decoded in every epoch: {reason}")


def _warn(words: str) -> None:
    """Log a warning once per process, whichever of its threads calls."""
    with _WARNING:
        _warn_once(words)


@functools.cache
def _warn_once(words: str) -> None:
    logging.getLogger("nas.data").warning("%s", words)


def _written(sample: Sample) -> bytes:
    """The findings on a pair as JSON, preceded by its digest."""
    values = asdict(sample)
    del values["label_path"]
    text = json.dumps(values).encode()
    return digest([text]).encode() + b"\n" + text


def _parsed(data: bytes, label_path: Path) -> Sample | None:
    """The findings that `_written` wrote; None for anything else."""
    stored, _, text = data.partition(b"\n")
    if stored != digest([text]).encode():
        return None
    values: dict[str, Any] = json.loads(text)
    return Sample(label_path=label_path, **{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
