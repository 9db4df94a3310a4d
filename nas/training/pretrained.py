"""Starting a network from pretrained weights of others, whose tensors have other names.

The known layouts are torchvision's ResNet-18 and MobileNetV2 (classifiers on ImageNet), the checkpoints of ERFNet's and
of SwiftNet's authors, and our own. A network takes the weights that it has in common with the file: block by block in
the order of computation, up to the first block that differs in its layers or their shapes. Layers behind a block that
starts afresh would read features that they were not trained on. Files are read by safetensors or `weights_only`:
nothing is unpickled.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas.data import MEAN, STD
from nas.host.room import is_shortage
from nas.host.words import one_line
from nas.training.layouts import Layout, Row, kind_of, layout_of
from nas.training.weights import load_weights, require_usable
from space import Architecture
from space.errors import UserError
from space.scopes import block_of

Named = TypeVar("Named")

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Names under which training scripts store the network's tensors beside those of an optimiser."""
PREFIX = "module."
COUNTER = "num_batches_tracked"
CLASSES_WITH_VOID = 20
"""Number of classes of heads for Cityscapes that also tell void apart, as the last class."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a network took from a file of weights."""

    layers: tuple[str, ...]
    """Our layers that took the file's weights."""
    fresh: tuple[str, ...]
    """Our layers that start afresh."""
    unused: tuple[str, ...]
    """Tensors of the file that no layer took, except counters of batch norms."""
    reason: str
    """Why the layers from the first fresh block on start afresh; empty if all could be taken."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, float32 on the CPU: a safetensors file, or a state dict that `torch.save` wrote, alone or
    in a dictionary with other values. The prefix of `DataParallel` is removed.

    Raises: UserError when there is no such file, or it holds something else, or numbers unfit for any network.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{path}: expected a file with weights to start from, got a folder; name the file in it")
    if not file.is_file():
        raise UserError(f"{path}: expected a file with weights to start from, got no such file; check the path")
    state: Mapping[str, object] = load_weights(file) if file.suffix == ".safetensors" else _read_saved(file)
    for wrapper in WRAPPERS:
        inside = state.get(wrapper)
        if isinstance(inside, Mapping):
            state = inside
    tensors = without_prefix({str(name): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)})
    if not tensors:
        raise UserError(f"{path}: expected tensors by name, as a state dict has them, got none; save the state dict")
    require_usable(tensors, path)
    return {
        name: tensor.float().contiguous() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }


def without_prefix(tensors: Mapping[str, Named]) -> dict[str, Named]:
    """Tensors, or facts about them, by names without the prefix that `DataParallel` puts in front of all names."""
    while tensors and all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _read_saved(file: Path) -> Mapping[str, object]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # among others for files that would run code
        raise UserError(
            f"{file}: expected a state dict, got a file that holds more than tensors, numbers and text, or is damaged; "
            "it is not opened: save the state dict alone, preferably as safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if is_shortage(error):
            raise
        words = ": ".join(filter(None, (type(error).__name__, one_line(error, 150))))
        came = f"something else or a damaged file ({words})" if file.stat().st_size else "an empty file"
        raise UserError(f"{file}: expected a state dict, got {came}; save the state dict again") from None
    if not isinstance(state, Mapping):
        raise UserError(f"{file}: expected a state dict, got a {type(state).__name__}; save the state dict alone")
    return state


def require_known_names(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Require that a network can start from tensors with these names; `source` names the file.

    Raises: UserError when the names belong to no known network.
    """
    if kind_of(tensors) is None:
        raise UserError(
            f"{source}: expected the names of torchvision's ResNet-18 or MobileNetV2, of ERFNet's or SwiftNet's "
            f"authors, or of `nas train`, got {', '.join(list(tensors)[:3])}; rename the tensors"
        )


def take_weights(network: nn.Module, architecture: Architecture, tensors: Mapping[str, Tensor], source: str) -> Taken:
    """Copy the weights that `architecture` has in common with the network of `tensors` into `network`, which was built
    from it with its auxiliary heads. If the file's network normalises images differently, the difference is folded into
    its first layer.

    Heads with 20 classes of ERFNet's and SwiftNet's authors lose the last class, void, if ours have 19.

    Raises: UserError when the names belong to no known network, or the first layer does not read an image of three
    colours; `source` names the file.
    """
    expected = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}
    require_known_names(tensors, source)
    layout = layout_of(tensors, architecture, expected)
    assert layout is not None, "the names are known"
    given = dict(tensors)
    if layout.mean is not None and layout.std is not None:
        given |= _read_as_ours(given, layout.first, layout.mean, layout.std, layout.pooled_norm, source)
    taken: dict[str, Tensor] = {}
    used: set[str] = set()
    reason = ""
    layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name in expected))
    for row in layout.rows:
        found, reason = _taken(row, given, expected, void=False)
        reason = reason or _left_out(row, layout, layers)
        if reason:
            break
        taken |= {ours: tensor for ours, (_, tensor) in found.items()}
        used |= {theirs for theirs, _ in found.values()}
    for head in () if reason else layout.heads:
        for row in head:
            found, why = _taken(row, given, expected, void=layout.void)
            reason = reason or why
            if why:
                break
            taken |= {ours: tensor for ours, (_, tensor) in found.items()}
            used |= {theirs for theirs, _ in found.values()}
    network.load_state_dict(taken, strict=False)
    with_weights = {name.rpartition(".")[0] for name in taken}
    return Taken(
        layers=tuple(layer for layer in layers if layer in with_weights),
        fresh=tuple(layer for layer in layers if layer not in with_weights),
        unused=tuple(name for name in tensors if name not in used and not name.endswith(COUNTER)),
        reason=reason,
    )


def _left_out(row: Row, layout: Layout, layers: Sequence[str]) -> str:
    """Why a block starts afresh although all that the file has of it fits: one of our layers in or before the block is
    missing from the file. Empty if none is. `layers` are ours in the order of computation.
    """
    named = {layer for each in (*layout.rows, *sum(layout.heads, ())) for layer in each}
    blocks = {block_of(layer) for layer in row}
    end = max(index for index, layer in enumerate(layers) if block_of(layer) in blocks)
    missing = [layer for layer in layers[: end + 1] if layer not in named]
    return f"the file has no {missing[0]}" if missing else ""


def _taken(
    row: Row, given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, void: bool
) -> tuple[dict[str, tuple[str, Tensor]], str]:
    """For each tensor of one of our blocks, the file's name and tensor; or the reason why the block starts afresh."""
    found: dict[str, tuple[str, Tensor]] = {}
    for ours, theirs in row.items():
        wanted = [name for name in expected if name.rpartition(".")[0] == ours]
        if not wanted:
            return {}, f"there is no {ours} here"
        ending = {name.rpartition(".")[2] for name in wanted}
        if f"{theirs}.bias" in given and "bias" not in ending:
            return {}, f"{ours} has no bias here, {theirs} in the file has one"
        for name in wanted:
            kind = name.rpartition(".")[2]
            other = f"{theirs}.{kind}"
            if other not in given:
                if kind == "bias" and "running_mean" not in ending:
                    continue  # ours starts at 0, which is the same as no bias
                return {}, f"the file has no {other}"
            tensor = given[other]
            if void:
                tensor = _without_void(tensor, tuple(expected[name].shape))
            if tensor.shape != expected[name].shape:
                shape = tuple(expected[name].shape)
                return {}, f"{name} is of shape {shape} here, {other} in the file of {tuple(tensor.shape)}"
            found[name] = (other, tensor)
    return found, ""


def _without_void(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A head's tensor of 20 classes without the last one, if `shape` has 19; any other tensor as it is."""
    if tensor.dim() != len(shape):
        return tensor
    sizes = list(enumerate(zip(tensor.shape, shape, strict=True)))
    differs = [axis for axis, (have, want) in sizes if have != want]
    more = [axis for axis, size in sizes if size == (CLASSES_WITH_VOID, CLASSES_WITH_VOID - 1)]
    return tensor.narrow(more[0], 0, CLASSES_WITH_VOID - 1) if len(more) == 1 and differs == more else tensor


def _read_as_ours(
    given: Mapping[str, Tensor],
    first: str,
    mean: Sequence[float],
    std: Sequence[float],
    pooled_norm: str,
    source: str,
) -> dict[str, Tensor]:
    """The first layer of a network that reads (value - mean) / std, with values of 0..1, adapted to images that are
    normalised as ours. Inside the image its results are the same; beside it, where both pad with zeros, these stand for
    another colour.

    The remaining constant goes into the bias or, if there is none, into the running means of the batch norm behind it.
    `pooled_norm` names a batch norm over the convolution's channels and those of the pooled image.

    Raises: UserError when the tensors in `source` do not have these shapes.
    """
    if not (len(mean) == len(std) == 3 and min(std) > 0):
        raise UserError(
            f"{source}: expected a mean and a positive deviation for each of three colours, got {len(mean)} means and "
            f"the deviations {', '.join(f'{each:g}' for each in std) or 'none'}; use another file"
        )
    weight = _shaped(given, f"{first}.weight", (None, 3, None, None), source)
    out = weight.shape[0]
    ours_mean, ours_std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
    their_mean, their_std = (torch.as_tensor(each, dtype=torch.float64).flatten() for each in (mean, std))
    factor, offset = ours_std / their_std, (ours_mean - their_mean) / their_std  # theirs = factor * ours + offset
    constant = torch.einsum("oikl,i->o", weight, offset)
    changed = {f"{first}.weight": weight * factor[None, :, None, None]}
    if f"{first}.bias" in given:
        changed[f"{first}.bias"] = _shaped(given, f"{first}.bias", (out,), source) + constant
    else:
        norm = re.compile(re.escape(first).replace("conv", "bn") + r"(\.\d+)?\.running_mean")
        means_of = [name for name in given if norm.fullmatch(name)]
        changed |= {name: _shaped(given, name, (out,), source) - constant for name in means_of}
    if pooled_norm:
        epsilon = 1e-3
        names = (f"{pooled_norm}.running_mean", f"{pooled_norm}.running_var")
        means, variances = (_shaped(given, name, (out + 3,), source).clone() for name in names)
        means[-3:] = (means[-3:] - offset) / factor
        variances[-3:] = ((variances[-3:] + epsilon) / factor**2 - epsilon).clamp(min=0)
        changed |= {f"{pooled_norm}.running_mean": means, f"{pooled_norm}.running_var": variances}
    return {name: tensor.float() for name, tensor in changed.items()}


def _shaped(given: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...], source: str) -> Tensor:
    """A tensor of a file in float64, which must have the given shape; None stands for any size.

    Raises: UserError when it is missing or has another shape.
    """
    came = tuple(given[name].shape) if name in given else None
    known = came is not None and len(came) == len(shape)
    if not known or any(want not in (None, have) for have, want in zip(came or (), shape, strict=True)):
        sizes = " x ".join("any" if each is None else str(each) for each in shape)
        got = "none" if came is None else f"one of {' x '.join(map(str, came)) or 'a single number'}"
        raise UserError(f"{source}: expected a tensor {name} of {sizes}, got {got}; use another file")
    return given[name].double()
