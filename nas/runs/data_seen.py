"""A record of the data that a run, a training or a network is based on, so that it does not go on with other data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.fingerprint import Fingerprint
from nas.storage.files import expanded, require_utf8, write_text
from nas.storage.records import find_record
from space import UserError, strict

if TYPE_CHECKING:
    from nas.data import DataSpec

FILE = "data.yaml"


@dataclass(frozen=True, kw_only=True)
class DataSeen:
    """A fingerprint of the data, and their location."""

    fingerprint: Fingerprint
    root_from_here: str = ""
    """Relative path from the folder of this record to the data; empty for drawn data."""

    @classmethod
    def of(cls, fingerprint: Fingerprint, root: str | None, folder: Path) -> DataSeen:
        """The record to keep in `folder` for data at `root`, or for drawn data.

        Raises: UserError for a path that is not UTF-8.
        """
        way = "" if root is None else os.path.relpath(expanded(root).resolve(), folder.resolve())
        require_utf8(way)
        return cls(fingerprint=fingerprint, root_from_here=way)


def seen_by(folder: Path, spec: DataSpec, fingerprint: Fingerprint) -> DataSeen | None:
    """The record of the data of `spec` for the `folder` of a pruned or quantized network, by which the data are found
    later. None for data that a folder alone does not determine: drawn pictures, and a part of a data set.

    Raises: UserError for a path that is not UTF-8.
    """
    if spec.root is None or spec.train_images is not None or spec.validation_images is not None:
        return None
    return DataSeen.of(fingerprint, spec.root, folder)


def hold_to_data(folder: Path, fingerprint: Fingerprint, *, root: str | None, begun: bool) -> None:
    """Keep the fingerprint of the data in the folder of a run or a training. If that has `begun`, the data must match
    the fingerprint kept there, if there is one: earlier versions kept none.

    Raises: UserError that says what changed.
    """
    seen = data_seen(folder)
    if begun and seen is not None and (difference := seen.fingerprint.difference(fingerprint)):
        raise UserError(
            f"{folder}: expected the data that it was begun on, but {difference}; networks trained before could not be "
            "compared with those trained now: restore the old data, or start anew with another --out"
        )
    kept = DataSeen.of(fingerprint, root, folder)
    if kept != seen:
        write_text(folder / FILE, strict.dump(kept))


def data_seen(folder: Path) -> DataSeen | None:
    """The record in a folder, or None.

    Raises: UserError when the file is damaged.
    """
    return find_record(folder / FILE, "a record of the data of a run", DataSeen)


def data_root(folder: Path, root: str | None) -> str | None:
    """The folder of a run's data: `root`, or, where the data were moved together with the run, the same relative path
    from the run's folder.
    """
    if root is None or expanded(root).is_dir():
        return root
    moved = seen_root(folder)
    return moved if moved is not None and Path(moved).is_dir() else root


def seen_root(folder: Path) -> str | None:
    """The folder of a training's data by its recorded relative path, which may be gone; None where none is recorded.

    Raises: UserError when the record is damaged.
    """
    seen = data_seen(folder)
    if seen is None or not seen.root_from_here:
        return None
    return os.path.normpath(folder.resolve() / seen.root_from_here)
