"""The state of a training on disk: tensors, numbers and text, read without unpickling."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import DamagedError
from nas.host.room import is_shortage
from nas.storage.files import write_atomically
from nas.training.recipe import Recipe
from nas.training.scores import EpochReport, Scores
from space import strict
from space.errors import UserError

FORMAT = 2
TAIL = re.compile(rb"framebudget checkpoint (\d{1,9}) ([0-9a-f]{64})\Z")
"""The comment at the end of a file, which `torch.save` writes as a ZIP archive: the format, and the SHA-256 of
everything before the comment. Files of format 1 have no comment."""
END = b"PK\x05\x06"
"""Start of a ZIP archive's last record, whose last two bytes are the length of the comment."""
END_BYTES = 22
TAIL_BYTES = 200  # at the end of a file, that hold its comment


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training between two epochs.

    No random state is stored: what an epoch draws depends only on the recipe's seed and the epoch's number.
    """

    epoch: int
    """Number of finished epochs."""
    identity: Mapping[str, str]
    """Texts (architecture, recipe, data set) that must be equal in the training that continues."""
    network: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]
    average: Mapping[str, Tensor] = field(default_factory=dict)
    """Moving average of the network over the steps; empty if there is none."""
    history: Sequence[EpochReport] = field(default=())
    """Reports of the finished epochs; empty in files of format 1."""


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, leaving the old file in place until the new one is complete."""
    state = {
        "epoch": checkpoint.epoch,
        "identity": dict(checkpoint.identity),
        "network": dict(checkpoint.network),
        "optimizer": dict(checkpoint.optimizer),
        "scaler": dict(checkpoint.scaler),
        "average": dict(checkpoint.average),
        "history": [asdict(report) for report in checkpoint.history],
    }
    buffer = io.BytesIO()  # not the file: `torch.save` reports a full disk as a RuntimeError
    torch.save(state, buffer)
    archive = buffer.getvalue()[:-2]
    tail = f"framebudget checkpoint {FORMAT} {hashlib.sha256(archive).hexdigest()}".encode()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(archive)
            file.write(len(tail).to_bytes(2, "little"))
            file.write(tail)

    write_atomically(Path(path), write)


def load_checkpoint(path: str | Path, identity: Mapping[str, str]) -> Checkpoint:
    """Read a checkpoint of the training that `identity` describes; its tensors are on the CPU.

    Raises: DamagedError when the file is damaged; UserError when it is missing, or when it belongs to another training,
    with what differs.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path}: expected a checkpoint, got no such file; check the path or start the training anew"
        ) from None
    checkpoint = _parsed(data, path)
    for what, expected in identity.items():
        came = _complete(what, str(checkpoint.identity.get(what, "")))
        if came != expected:
            raise UserError(
                f"{path}: the checkpoint is of another {what}: {_difference(came, expected)}; "
                f"continue with the {what} it was made with, or start a new training"
            )
    return checkpoint


def is_checkpoint(path: Path) -> bool:
    """Whether a file ends with the comment of a checkpoint. Damage elsewhere does not matter; files of format 1 do not
    count.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return TAIL.search(file.read()) is not None


def _complete(what: str, text: str) -> str:
    """A recipe of an earlier version, completed with newer fields at their defaults; other texts as they are."""
    if what == "recipe":
        with contextlib.suppress(UserError):
            return strict.dump(strict.parse(text, Recipe, what))
    return text


def _parsed(data: bytes, path: str | Path) -> Checkpoint:
    """The checkpoint in the bytes of a file, after verifying that they are those that were written."""
    tail = TAIL.search(data[-TAIL_BYTES:])
    if tail is None and not (data[-END_BYTES:].startswith(END) and data.endswith(b"\0\0")):
        raise _damaged(path, "unexpected end of file")
    if tail is not None and int(tail[1]) != FORMAT:
        raise UserError(
            f"{path}: expected checkpoint format {FORMAT}, got {int(tail[1])}; "
            "continue with the version that wrote it, or start anew"
        )
    if tail is not None and hashlib.sha256(data[: -len(tail[0]) - 2]).hexdigest().encode() != tail[2]:
        raise _damaged(path, "checksum mismatch")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        reports = [_report(each) for each in state.pop("history", [])]
        state.pop("format", None)  # of format 1
        return Checkpoint(history=reports, **state)
    except Exception as error:  # whatever torch raises for a damaged file of format 1
        if is_shortage(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _damaged(path, reason) from None


def _report(values: Mapping[str, Any]) -> EpochReport:
    scores = values["scores"]
    return EpochReport(**{**values, "scores": None if scores is None else Scores(**scores)})


def _damaged(path: str | Path, reason: str) -> DamagedError:
    return DamagedError(
        f"{path}: expected a checkpoint, got something else or a damaged file ({reason}); delete it and start anew"
    )


def _difference(came: str, expected: str) -> str:
    """The first few lines that differ, as "x in the checkpoint, y here"."""
    before, here = came.splitlines(), expected.splitlines()
    removed = [line.strip() for line in before if line not in here][:4]
    added = [line.strip() for line in here if line not in before][:4]
    return f"{'; '.join(removed) or 'nothing'} in the checkpoint, {'; '.join(added) or 'nothing'} here"
