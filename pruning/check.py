"""Compares our groups of channels with those that torch-pruning finds by tracing the network.

Ours come from the architecture's graph (`space.channels`), torch-pruning's from autograd through the `nn.Module` built
from it. Where they differ, one of the two would cut wrongly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from pruning.surgery import Cutter
from space.channels import parametric
from space.graph import Node

if TYPE_CHECKING:
    from space.network import Network

Slice = tuple[str, Literal["out", "in"], int]  # layer, its output or input channels, index

SIZE = (64, 64)  # size of the image that is traced
MOST_SLICES = 64  # slices of a channel that is compared; torch-pruning's effort grows with their square


def differing_groups(cutter: Cutter, network: Network) -> list[str]:
    """Groups whose first or last channel is in other slices than torch-pruning finds: none, unless we are wrong.

    Takes some tenths of a second. Networks that are not `comparable` are skipped, and so are channels in more than
    MOST_SLICES slices. The network is not changed.

    Raises: UntraceableError when torch-pruning cannot trace the network.
    """
    if not comparable(cutter):
        return []
    slices, traced = slices_of_channels(cutter), Traced(network)
    differing = []
    for name, (node, indices) in _ends(cutter).items():
        ours = slices_at(cutter, slices, node, indices)
        if len(ours) <= MOST_SLICES and traced.slices(node.name, indices) != ours:
            differing.append(name)
    return differing


def comparable(cutter: Cutter) -> bool:
    """Whether torch-pruning can find the groups of this network.

    It mistakes a PReLU of one channel for one with a shared slope, and a depthwise convolution of one channel for a
    dense one. It does not support granules of grouped convolutions.
    """
    nodes = parametric(cutter.graph)
    mistaken = (node for node in nodes if node.kind == "act" or node.group_width)
    return all(len(cutter.positions(node)) > 1 for node in mistaken) and all(node.group_width <= 1 for node in nodes)


def slices_of_channels(cutter: Cutter) -> dict[int, set[Slice]]:
    """By channel, all slices that are cut with it, according to our graph."""
    slices: dict[int, set[Slice]] = {}
    for node in parametric(cutter.graph):
        for index, channel in enumerate(cutter.positions(node).tolist()):
            slices.setdefault(channel, set()).add((node.name, "out", index))
        if _dense(node):
            for index, channel in enumerate(cutter.read_positions(node).tolist()):
                slices.setdefault(channel, set()).add((node.name, "in", index))
    return slices


def slices_at(cutter: Cutter, slices: dict[int, set[Slice]], node: Node, indices: Iterable[int]) -> set[Slice]:
    """All slices that are cut with these outputs of a layer, from those that `slices_of_channels` found."""
    channels = cutter.positions(node)
    return set().union(*(slices[int(channels[index])] for index in indices))


def producers(cutter: Cutter) -> list[Node]:
    """The layers that produce channels which can be cut."""
    free = set().union(*(cutter.map.members(name).tolist() for name in cutter.map.names))
    return [node for node in parametric(cutter.graph) if _dense(node) and int(cutter.positions(node)[0]) in free]


class UntraceableError(RuntimeError):
    """torch-pruning cannot trace a network; the message contains the error that it raised."""


class Traced:
    """A network as traced by torch-pruning.

    A convolution is put in front of the network: torch-pruning does not see an image that no layer produces, and gets
    the slices of everything concatenated with it wrong.

    Raises: UntraceableError when torch-pruning cannot trace it, here or in `group`.
    """

    def __init__(self, network: Network) -> None:
        import torch
        import torch_pruning
        from torch import nn

        like = next(network.parameters())
        with torch.random.fork_rng(devices=[]):  # drawing its weights must not advance the caller's random state
            source = nn.Conv2d(3, 3, 1).to(device=like.device, dtype=like.dtype)
        image = torch.zeros((1, 3, *SIZE), device=like.device, dtype=like.dtype)
        self._network = network
        was_training = network.training
        try:
            with torch.enable_grad(), _untraceable_errors():
                self._graph = torch_pruning.DependencyGraph().build_dependency(
                    nn.Sequential(source, network),
                    example_inputs=image,
                    forward_fn=lambda model, image: model(image),
                    verbose=False,
                )
        finally:
            network.train(was_training)  # tracing switches to evaluation mode
        self._names = {module: name for name, module in network.named_modules()}

    def group(self, layer: str, indices: Iterable[int]) -> Any:
        """torch-pruning's group of these outputs of a convolution."""
        import torch_pruning

        convolution, wanted = self._network.layer(layer), list(indices)
        with _untraceable_errors():
            return self._graph.get_pruning_group(convolution, torch_pruning.prune_conv_out_channels, idxs=wanted)

    def slices(self, layer: str, indices: Iterable[int]) -> set[Slice]:
        """All slices that are cut with these outputs of a convolution."""
        from torch import nn

        slices: set[Slice] = set()
        for dependency, at in self.group(layer, indices):
            name = self._names.get(dependency.layer)
            if name is None:  # torch-pruning's own placeholders for cat, add and the like
                continue
            one_sided = isinstance(dependency.layer, (nn.BatchNorm2d, nn.PReLU)) or dependency.layer.groups > 1
            outwards = one_sided or self._graph.is_out_channel_pruning_fn(dependency.pruning_fn)
            slices |= {(name, "out" if outwards else "in", int(index)) for index in at}
        return slices


@contextlib.contextmanager
def _untraceable_errors() -> Iterator[None]:
    """Turn any exception inside into an UntraceableError; the library has no exception type of its own."""
    try:
        yield
    except Exception as error:
        raise UntraceableError(f"{type(error).__name__}: {error}") from error


def _dense(node: Node) -> bool:
    return node.kind in ("conv", "deconv") and not node.group_width


def _ends(cutter: Cutter) -> dict[str, tuple[Node, list[int]]]:
    """By group, a layer that produces its channels, and the indices of the first and the last in its output."""
    found: dict[str, tuple[Node, list[int]]] = {}
    for node in producers(cutter):
        channels = cutter.positions(node)
        groups = cutter.map.group_of_channel[channels]
        for group in dict.fromkeys(groups.tolist()):
            name = cutter.map.names[group]
            if name not in found:
                slices = (groups == group).nonzero()[0]
                found[name] = (node, sorted({int(slices[0]), int(slices[-1])}))
    return found
