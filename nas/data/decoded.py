"""Pictures decoded once per machine: kept as they are in memory, shared by all processes through the page cache.

Under $XDG_CACHE_HOME/framebudget (or ~/.cache/framebudget), `pictures/` holds the pixels and classes of every pair that
there is room for, and `samples/` what the check found in them. Names are digests of what the contents depend on: paths,
sizes and times of the two files, and how label values are read. What cannot be kept is decoded whenever it is shown.
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
"""To be raised whenever files are decoded otherwise, so that nothing old is taken for new."""
HEADER = b"framebudget pictures %d %8d %8d\n"  # format, height and width; image and label follow
HEADER_BYTES = len(HEADER % (FORMAT, 0, 0))
SHARE_OF_SAMPLES = 32
"""One in so many bytes is for what the check found, which is kept longer than what it was found in."""
_SAYING = threading.Lock()


class DecodedPairs:
    """The pairs of one split by index."""

    def __init__(self, dataset: Dataset, split: SplitName) -> None:
        self._dataset = dataset
        self._split = dataset.split(split)
        self._pictures, self._samples = _folders(dataset.cache_gigabytes)
        reading = (FORMAT, dataset.label_map, dataset.label_colours)
        self._reading = hashlib.blake2b(repr(reading).encode(), digest_size=20)

    def __len__(self) -> int:
        return len(self._split)

    def pairs(self, indices: Sequence[int], threads: int) -> list[Pair]:
        """Images and classes of several samples, to be read only; what is not kept yet is decoded in threads.

        Raises: DataError when a file is missing, unreadable or contradicts its partner.
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
        """What is in a pair; both are kept where they are not yet, if that can be.

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
        """Labelled pixels of each class in a pair, (C,): as they were found, or else of its label alone.

        Raises: DataError when the label is missing, unreadable or holds a value that is no class.
        """
        found = self._kept_sample(index, self._name(index))
        if found is not None:
            return found.pixels
        return pixels_of_classes(self._dataset, read_label(self._dataset, self._split.labels[index], None))

    def _files(self, index: int) -> tuple[Path, Path]:
        return self._split.images[index], self._split.labels[index]

    def _name(self, index: int) -> str:
        """What is kept of a pair is called so; empty where the files cannot be looked at."""
        hashed = self._reading.copy()
        for path in self._files(index):
            try:
                status = os.stat(path)
            except OSError:
                return ""
            # Whoever copies or unpacks a file can set back when it was written, not when it changed. Inodes are left
            # out: some network file systems number them anew at each mount.
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
    """Where pictures and what was found in them are kept; None where nothing is to be."""
    if gigabytes == 0:
        return None, None
    try:
        root = cache_folder()
        pictures, samples = root / "pictures", root / "samples"
        if gigabytes is None:
            there = next(parent for parent in pictures.parents if parent.is_dir())
            whole = (shutil.disk_usage(there).free + BoundedFolder(pictures, 0).held_bytes()) // 2
        else:
            whole = int(gigabytes * 1e9)
    except (UserError, OSError) as error:
        _say(f"decoded pictures are not kept ({error}): all are decoded in every epoch")
        return None, None
    of_samples = whole // SHARE_OF_SAMPLES
    return BoundedFolder(pictures, whole - of_samples), BoundedFolder(samples, of_samples)


def _keep(folder: BoundedFolder, name: str, parts: Sequence[bytes | memoryview]) -> None:
    """Keep something if it can be; why it cannot is said once, and training goes on."""
    try:
        if folder.keep(name, parts):
            return
        reason = "there is no more room for them; see data.cache_gigabytes, and what is free on the disk"
    except OSError as error:
        reason = f"{cache_folder()} cannot be written ({error.strerror}); make room, or set XDG_CACHE_HOME"
    _say(f"some pictures are decoded in every epoch and not kept decoded: {reason}")


def _say(words: str) -> None:
    """Warn, once in a process, whichever of its threads finds out."""
    with _SAYING:
        _said(words)


@functools.cache
def _said(words: str) -> None:
    logging.getLogger("nas.data").warning("%s", words)


def _written(sample: Sample) -> bytes:
    """What was found in a pair, as JSON behind its digest."""
    values = asdict(sample)
    del values["label_path"]
    text = json.dumps(values).encode()
    return digest([text]).encode() + b"\n" + text


def _parsed(data: bytes, label_path: Path) -> Sample | None:
    """What `_written` wrote; None for anything else."""
    said, _, text = data.partition(b"\n")
    if said != digest([text]).encode():
        return None
    values: dict[str, Any] = json.loads(text)
    return Sample(label_path=label_path, **{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
