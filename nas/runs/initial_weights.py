"""The initial weights of a training or a run, copied into its folder: the original file is not needed again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.storage.files import expanded, write_text
from nas.storage.records import find_record
from space import UserError, strict

if TYPE_CHECKING:
    from torch import Tensor

RECORD = "init.yaml"
TENSORS = "init.safetensors"
DIGEST = "sha256_of_file"
"""The metadata key that marks a file as kept initial weights."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """Name and digest of the file that initial weights came from."""

    file: str
    """Name of the file, without folders."""
    sha256: str

    def __str__(self) -> str:
        return f"{self.file} (SHA-256 {self.sha256})"


def hold_to_initial_weights(folder: Path, given: str | None, *, begun: bool, trained: bool) -> InitialWeights | None:
    """Copy the initial weights in the file `given` into a folder, with a record of the file; None where none is given.
    Where the training or run in the folder has `begun`, the file must hold the weights kept there, and those are used
    where none is given. Where something is `trained` already, weights cannot be added.

    Raises: UserError when the file cannot be read, when no network can start from it, when it is the kept copy itself,
    and when it differs from the one that the folder was begun with.
    """
    kept = initial_weights(folder) if begun else None
    if given is None:
        if not begun:
            for name in (RECORD, TENSORS):  # left by another training that was interrupted in its first epoch
                (folder / name).unlink(missing_ok=True)
        return kept
    if kept is None and begun and trained:
        raise UserError(
            f"init: expected none, got {given}: {folder} was begun with random weights; leave init out, or start anew"
        )
    file = expanded(given)
    if kept is not None and not file.is_file():
        return kept
    from nas.training.pretrained import read_tensors, require_known_names
    from nas.training.weights import save_weights

    tensors = None if kept else read_tensors(file)  # raises an error that describes an unreadable file
    if kept is None and file.resolve() == (folder / TENSORS).resolve():
        raise UserError(f"init: expected weights from outside {folder}, got {given}; give another --out")
    with file.open("rb") as content:
        found = InitialWeights(file=file.name, sha256=hashlib.file_digest(content, "sha256").hexdigest())
    if kept is not None:
        if kept.sha256 != found.sha256:
            raise UserError(
                f"init: expected the weights that {folder} was begun with, {kept}, got {found}; leave init as it was, "
                "or start anew with another --out"
            )
        return kept
    assert tensors is not None, "they are read where none are kept"
    require_known_names(tensors, file)
    (folder / RECORD).unlink(missing_ok=True)  # it must never describe other weights than those beside it
    save_weights(folder / TENSORS, tensors, {"file": found.file, DIGEST: found.sha256})
    write_text(folder / RECORD, strict.dump(found))
    return found


def is_kept(folder: Path) -> bool:
    """Whether a folder's file named like kept initial weights was written by `hold_to_initial_weights`.

    Raises: UserError when there is no such file, or it is of another kind or damaged.
    """
    from nas.training.weights import read_metadata

    return DIGEST in read_metadata(folder / TENSORS)


def kept_tensors(folder: Path) -> dict[str, Tensor]:
    """The initial weights kept in a folder.

    Raises: UserError when they cannot be read.
    """
    from nas.training.weights import load_weights

    return load_weights(folder / TENSORS)


def initial_weights(folder: Path) -> InitialWeights | None:
    """Where the initial weights kept in a folder came from; None where there are none.

    Raises: UserError when the record is damaged.
    """
    return find_record(folder / RECORD, "a record of where the initial weights came from", InitialWeights)
