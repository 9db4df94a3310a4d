"""Weights of a network: safetensors files, and loading them into a network with an answer when they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nas.storage.files import write_atomically
from space.errors import UserError, nearest


def save_weights(path: str | Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights and a few words about them (architecture key, data set, ...) to a safetensors file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    data = save(tensors, dict(metadata))  # its `save_file` makes files that nobody else may read
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(data))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises: UserError when there is no such file or it is of another kind or damaged.
    """
    _check_readable(Path(path))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(Path(path), error) from None


def read_metadata(path: str | Path) -> dict[str, str]:
    """What `save_weights` was told about the weights.

    Raises: UserError as `load_weights`.
    """
    _check_readable(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(Path(path), error) from None


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file's tensors, which are not read.

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

    Counters of batch norms (`num_batches_tracked`) may be missing, as in files of 2017.

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


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: expected a safetensors file with weights, got no such file; check the path")


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: expected a safetensors file, got something else or a damaged file ({error}); "
        "use a file written by `nas train`, or write it again"
    )
