"""Weights of a network: safetensors files, and loading them into a network with a clear error if they do not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nas.errors import DamagedError
from nas.storage.files import write_atomically
from space.errors import UserError, nearest

VARIANCE = "running_var"
FLOATING = ("weight", "bias", "running_mean", VARIANCE)
"""Kinds of tensors of a layer that are floating point; counters are integers."""
CHECKSUM = "sha256"
"""Key of a file's metadata that holds a checksum of its tensors and of its other metadata."""


def save_weights(path: str | Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights and metadata (architecture key, data set, ...) to a safetensors file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    # Not `save_file`, whose files no other user may read.
    data = save(tensors, {**metadata, CHECKSUM: _checksum(tensors, metadata)})
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(data))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises: UserError when there is no such file; DamagedError when it is of another kind or damaged.
    """
    _check_readable(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            words = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise _unreadable(Path(path), error) from None
    written = words.pop(CHECKSUM, None)
    if written is not None and written != _checksum(tensors, words):  # files of other programs have none
        raise _unreadable(Path(path), "checksum mismatch")
    return tensors


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata that `save_weights` wrote.

    Raises: UserError as `load_weights`.
    """
    _check_readable(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            words = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(Path(path), error) from None
    words.pop(CHECKSUM, None)
    return words


def _checksum(tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> str:
    """Checksum of the names, types, shapes and bytes of tensors (on the CPU, contiguous), and of other metadata."""
    digest = hashlib.sha256(json.dumps(dict(sorted(words.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, without reading the tensors.

    Raises: UserError as `load_weights`.
    """
    _check_readable(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise _unreadable(Path(path), error) from None


def load_into(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a network of the same architecture and number of classes; `source` names them in errors.

    Counters of batch norms (`num_batches_tracked`) may be missing, as in files from 2017.

    Raises: UserError naming the first weight that is missing, unknown or of another shape, before any is copied.
    """
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name in weights:
            if weights[name].shape != tensor.shape:
                raise UserError(
                    f"{source}: expected {name} of shape {tuple(tensor.shape)}, "
                    f"got {tuple(weights[name].shape)}; "
                    "these weights belong to another architecture or number of classes"
                )
        elif not name.endswith("num_batches_tracked"):
            raise UserError(
                f"{source}: expected {name} of shape {tuple(tensor.shape)}, got no such weight; "
                "use the weights that were saved with this architecture"
            )
    for name, tensor in weights.items():
        if name not in expected:
            raise UserError(
                f"{source}: unknown weight {name} of shape {tuple(tensor.shape)}; {nearest(name, expected)} "
                "Use the weights that were saved with this architecture"
            )
    network.load_state_dict(dict(weights), strict=False)


def require_usable(weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Require numbers that a network can compute with; with others it would give an answer all the same. Weights of
    layers must be floating point, since rounding to integers loses them; all must be finite; and no variance may be
    negative. `source` names them.

    Raises: UserError naming the first weight that breaks these rules.
    """
    for name, tensor in weights.items():
        kind, wrong = name.rpartition(".")[2], ""
        if kind in FLOATING and not tensor.is_floating_point():
            wrong = f"weights of floating point, got {str(tensor.dtype).removeprefix('torch.')}"
        elif tensor.is_floating_point() and not tensor.float().isfinite().all():  # some short types lack `isfinite`
            wrong = "finite weights, got NaN or infinite numbers"
        elif kind == VARIANCE and (tensor.float() < 0).any():
            wrong = "variances of at least 0, got negative ones"
        if wrong:
            raise UserError(f"{source}: expected {wrong} in {name}; use another file")


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: expected a safetensors file with weights, got no such file; check the path")


def _unreadable(path: Path, error: Exception | str) -> DamagedError:
    return DamagedError(
        f"{path}: expected a safetensors file, got something else or a damaged file ({error}); "
        "use a file written by `nas train`, or write it again"
    )
