"""The state of a training on disk: tensors, numbers and text, read without unpickling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.storage.files import write_atomically
from space.errors import UserError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training between two epochs.

    Nothing random is stored: what an epoch draws depends on the recipe's seed and the epoch's number only.
    """

    epoch: int
    """How many epochs are finished."""
    identity: Mapping[str, str]
    """Texts (architecture, recipe, data set) that must be the same in the training that goes on."""
    network: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any]


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, leaving the old file in place until the new one is complete."""
    state = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "identity": dict(checkpoint.identity),
        "network": dict(checkpoint.network),
        "optimizer": dict(checkpoint.optimizer),
        "scaler": dict(checkpoint.scaler),
    }
    write_atomically(Path(path), lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: str | Path, identity: Mapping[str, str]) -> Checkpoint:
    """Read a checkpoint of the training that `identity` describes; its tensors are on the CPU.

    Raises: UserError when the file is missing, damaged, or of another training, saying what differs.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: expected a checkpoint, got no such file; check the path or start the training anew")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise UserError(
                f"{path}: expected checkpoint format {FORMAT}, got {state['format']}; "
                "continue with the version that wrote it, or start anew"
            )
        checkpoint = Checkpoint(**{name: value for name, value in state.items() if name != "format"})
    except UserError:
        raise
    except Exception as error:  # whatever torch makes of a file that is cut short, overwritten or no checkpoint at all
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: expected a checkpoint, got another or a damaged file ({reason}); delete it and start anew"
        ) from None
    for what, expected in identity.items():
        came = checkpoint.identity.get(what, "")
        if came != expected:
            raise UserError(
                f"{path}: the checkpoint is of another {what}: {_difference(came, expected)}; "
                f"continue with the {what} it was made with, or start a new training"
            )
    return checkpoint


def _difference(came: str, expected: str) -> str:
    """The first few lines that differ, as 'x in the checkpoint, y here'."""
    before, here = came.splitlines(), expected.splitlines()
    removed = [line.strip() for line in before if line not in here][:4]
    added = [line.strip() for line in here if line not in before][:4]
    return f"{'; '.join(removed) or 'less'} in the checkpoint, {'; '.join(added) or 'less'} here"
