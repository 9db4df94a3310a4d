"""Which data a run or a training was begun on, so that it does not go on with others, or a network was made on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nas.data.fingerprint import Fingerprint
from nas.storage.files import expanded, require_utf8, write_text
from nas.storage.records import find_record
from space import UserError, strict

FILE = "data.yaml"


@dataclass(frozen=True, kw_only=True)
class DataSeen:
    """What the data were, and where."""

    fingerprint: Fingerprint
    root_from_here: str = ""
    """The way from the folder that this is kept in to the data; empty for drawn ones."""

    @classmethod
    def of(cls, fingerprint: Fingerprint, root: str | None, folder: Path) -> DataSeen:
        """What is to be kept in `folder` of data at `root`, or of drawn ones.

        Raises: UserError for a way that is not UTF-8.
        """
        way = "" if root is None else os.path.relpath(expanded(root).resolve(), folder.resolve())
        require_utf8(way)
        return cls(fingerprint=fingerprint, root_from_here=way)


def hold_to_data(folder: Path, fingerprint: Fingerprint, *, root: str | None, begun: bool) -> None:
    """Keep the fingerprint of the data in the folder of a run or a training; where that has `begun`, the data must be
    those that are kept there, if any are: earlier versions kept none.

    Raises: UserError that says what changed.
    """
    seen = data_seen(folder)
    if begun and seen is not None and (difference := seen.fingerprint.difference(fingerprint)):
        raise UserError(
            f"{folder}: expected the data that it was begun on, but {difference}; what was trained before could not be "
            "compared with what is trained now: put the old data back, or start anew with another --out"
        )
    kept = DataSeen.of(fingerprint, root, folder)
    if kept != seen:
        write_text(folder / FILE, strict.dump(kept))


def data_seen(folder: Path) -> DataSeen | None:
    """What is kept in a folder, or None.

    Raises: UserError when the file is damaged.
    """
    return find_record(folder / FILE, "what the data of a run were", DataSeen)


def data_root(folder: Path, root: str | None) -> str | None:
    """Where the data of a run are: at `root`, or, when they were moved together with the run, in the same place as seen
    from its folder.
    """
    if root is None or expanded(root).is_dir():
        return root
    moved = seen_root(folder)
    return moved if moved is not None and Path(moved).is_dir() else root


def seen_root(folder: Path) -> str | None:
    """Where the data of a training lie as seen from its folder, if they are still there; None where it keeps no place.

    Raises: UserError when the file that says so is damaged.
    """
    seen = data_seen(folder)
    if seen is None or not seen.root_from_here:
        return None
    return os.path.normpath(folder.resolve() / seen.root_from_here)
