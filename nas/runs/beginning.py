"""The weights that a training or a run begins with, kept beside it: the file they came from is not needed again."""

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
"""The word of its metadata by which it is known."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Where weights came from."""

    file: str
    """Its name, without folders."""
    sha256: str

    def __str__(self) -> str:
        return f"{self.file} (SHA-256 {self.sha256})"


def hold_to_beginning(folder: Path, given: str | None, *, begun: bool, trained: bool) -> Beginning | None:
    """Keep the weights in the file `given` in a folder, and what the file was; None where none is given. Where what is
    in the folder has `begun`, they must be those that are kept there, which are taken where none is given; where
    something is `trained` already, there must be some.

    Raises: UserError when the file cannot be read, when no network can start from it, when it would be replaced, and
    when it is another than the one it was begun with.
    """
    kept = beginning(folder) if begun else None
    if given is None:
        if not begun:
            for name in (RECORD, TENSORS):  # of another training, that was ended in its first epoch
                (folder / name).unlink(missing_ok=True)
        return kept
    if kept is None and begun and trained:
        raise UserError(f"init: expected none, got {given}: {folder} was begun at random; leave it out, or start anew")
    file = expanded(given)
    if kept is not None and not file.is_file():
        return kept
    from nas.training.pretrained import read_tensors, require_known_names
    from nas.training.weights import save_weights

    tensors = None if kept else read_tensors(file)  # which says what a file is that cannot be read
    if kept is None and file.resolve() == (folder / TENSORS).resolve():
        raise UserError(f"init: expected weights that lie elsewhere than in {folder}, got {given}; give another --out")
    with file.open("rb") as content:
        found = Beginning(file=file.name, sha256=hashlib.file_digest(content, "sha256").hexdigest())
    if kept is not None:
        if kept.sha256 != found.sha256:
            raise UserError(
                f"init: expected the weights that {folder} was begun with, {kept}, got those of {found}; leave init as "
                "it was, or start anew with another --out"
            )
        return kept
    assert tensors is not None, "they were read"
    require_known_names(tensors, file)
    (folder / RECORD).unlink(missing_ok=True)  # it says nothing of what is put in their place
    save_weights(folder / TENSORS, tensors, {"file": found.file, DIGEST: found.sha256})
    write_text(folder / RECORD, strict.dump(found))
    return found


def is_kept(folder: Path) -> bool:
    """Whether the file in a folder that has the name of weights to begin with was written as such.

    Raises: UserError when there is none, or it is of another kind or damaged.
    """
    from nas.training.weights import read_metadata

    return DIGEST in read_metadata(folder / TENSORS)


def kept_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights that are kept in a folder.

    Raises: UserError when they cannot be read.
    """
    from nas.training.weights import load_weights

    return load_weights(folder / TENSORS)


def beginning(folder: Path) -> Beginning | None:
    """Where the weights came from that are kept in a folder; None where there are none.

    Raises: UserError when the file that says so is damaged.
    """
    return find_record(folder / RECORD, "where the first weights came from", Beginning)
