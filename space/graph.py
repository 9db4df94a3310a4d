"""A network as a list of layers whose channels know where they come from.

Blocks, fusions and decoders are functions that add layers to a `Graph`, in the order of computation. Everything
else is read from that list: the `nn.Module`, parameters, multiply-adds, the layers a latency table is keyed by, and
the groups of channels that can only be cut together (`space.channels`).

Every channel of every tensor is an *atom*, an integer. A convolution makes new atoms, normalisation and activation
keep their input's, concatenation joins them, and a sum or a gate ties the atoms of its terms pairwise. So does a
depthwise or grouped convolution keep them; which of them it reads together is a matter of `space.channels`.

Sizes are kept as strides against the input image: a tensor of stride s is ceil(H / s) x ceil(W / s). All strided
layers round up and all upsampling aims at a stride, so that any input size works, odd ones included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from space.rules import IMAGE_CHANNELS

Atoms = NDArray[np.int64]
Pair = tuple[int, int]
LayerKind = Literal[
    "image", "conv", "deconv", "norm", "act", "dropout", "max_pool", "average_pool", "grid_pool", "resize", "repeat",
    "shuffle", "cat", "add", "gate",
]  # fmt: skip
Paths = Literal["", "pointwise", "pair"]
PARAMETRIC = ("conv", "deconv", "norm", "act")
WHOLE: Pair = (1, 1)  # the grid of one cell: the mean of a map


@dataclass(frozen=True, kw_only=True)
class Norm:
    """What batch normalisation adds to the variance, and how much of each batch its running statistics take."""

    epsilon: float = 1e-5
    momentum: float = 0.1


@dataclass(eq=False, slots=True)  # frozen, it would take three times as long to make, and a search makes millions
class Node:
    """One layer: what it does, what it reads (indices of earlier nodes) and the channels it gives out. Not to be
    changed.
    """

    index: int
    channels: Atoms
    kind: LayerKind
    inputs: tuple[int, ...]
    output_stride: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    group: int = 0
    """Channels that each output of a convolution reads where its outputs are its input's channels; 0 where it reads all
    and makes new ones.
    """
    mode: str = ""
    grid: Pair | None = None
    """Rows and columns of pooled cells; 0 columns for as many as keep them square."""
    name: str = ""
    bias: bool = False
    probability: float = 0.0
    norm: Norm = Norm()
    """Of a normalisation, and of those that training adds."""
    paths: Paths = ""
    """What training adds to a convolution with bias (`space.paths`): `pointwise`, two 1x1 ones in a row and the
    identity where it neither strides nor widens (RDRNet); `pair`, a second one like it.
    """

    @property
    def shape(self) -> tuple[object, ...]:
        """What it does and what it reads: the same at all widths."""
        return (
            self.kind, self.inputs, self.output_stride, self.kernel, self.stride, self.dilation, self.group, self.mode,
            self.grid,
        )  # fmt: skip


class Graph:
    """A network under construction; `nodes` is the result."""

    def __init__(
        self,
        *,
        activation: str,
        align_corners: bool,
        levels: int = 1,
        norm: Norm = Norm(),
        head_norm: Norm = Norm(),
        rep: bool = False,
    ) -> None:
        self.nodes: list[Node] = []
        self.ties: list[tuple[Atoms, Atoms]] = []
        self.fixed: list[Atoms] = []
        self.outputs: list[Node] = []
        self.encoder_nodes = 0
        """How many of the first nodes are those of the stem and the stages, on the first level of an image pyramid."""
        self.activation = activation
        self.align_corners = align_corners
        self.levels = levels
        self.rep = rep
        self._norm = norm
        self._head_norm = head_norm
        self.level = 0
        self._atoms = 0
        self._scope = ""
        self._made: dict[str, tuple[Atoms, Atoms]] = {}
        self.image = self._add(
            Node(0, self._new_atoms(IMAGE_CHANNELS, fixed=True), "image", inputs=(), output_stride=(1, 1))
        )

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the layers added inside."""
        outer, self._scope = self._scope, f"{self._scope}{name}."
        yield
        self._scope = outer

    @contextmanager
    def head_scope(self, name: str) -> Iterator[None]:
        """The same for a head, whose normalisation may be another."""
        norm, self._norm = self._norm, self._head_norm
        with self.scope(name):
            yield
        self._norm = norm

    def conv(
        self,
        x: Node,
        width: int,
        kernel: int | Pair,
        name: str,
        *,
        stride: int | Pair = 1,
        dilation: int = 1,
        bias: bool = False,
        fixed: bool = False,
        paths: Paths = "",
    ) -> Node:
        """Convolution with padding that keeps ceil(size / stride). A name used before shares its weights."""
        assert bias or not paths, "what is folded into a convolution leaves it a bias"
        kernel, stride, path = _pair(kernel), _pair(stride), self._path(name)
        return self._add(
            Node(
                self._next,
                self._weights(path, x, width, fixed),
                "conv",
                inputs=(x.index,),
                output_stride=(x.output_stride[0] * stride[0], x.output_stride[1] * stride[1]),
                name=path,
                kernel=kernel,
                stride=stride,
                dilation=_dilation(kernel, dilation),
                bias=bias,
                norm=self._norm,
                paths=paths,
                grid=x.grid,
            )
        )

    def depthwise(self, x: Node, name: str, *, kernel: int | Pair = 3, stride: int = 1, dilation: int = 1) -> Node:
        """Convolution of each channel by itself; no bias. What comes out counts as the channels that came in."""
        return self.grouped(x, name, 1, kernel=kernel, stride=stride, dilation=dilation)

    def grouped(
        self, x: Node, name: str, group: int, *, kernel: int | Pair = 3, stride: int = 1, dilation: int = 1
    ) -> Node:
        """Convolution of each `group` neighbours together; no bias.

        What comes out counts as the channels that came in: neighbours in a group are cut together or not at all.
        """
        assert len(x.channels) % group == 0, f"{len(x.channels)} channels are no whole groups of {group}"
        kernel = _pair(kernel)
        return self._add(
            Node(
                self._next,
                x.channels,
                "conv",
                inputs=(x.index,),
                output_stride=(x.output_stride[0] * stride, x.output_stride[1] * stride),
                name=self._path(name),
                kernel=kernel,
                stride=(stride, stride),
                dilation=_dilation(kernel, dilation),
                group=group,
                grid=x.grid,
            )
        )

    def deconv(self, x: Node, width: int, kernel: int, name: str, *, fixed: bool = False) -> Node:
        """Transposed convolution that halves the stride, with bias (ERFNet's upsampler)."""
        path = self._path(name)
        return self._add(
            Node(
                self._next,
                self._weights(path, x, width, fixed),
                "deconv",
                inputs=(x.index,),
                output_stride=(x.output_stride[0] // 2, x.output_stride[1] // 2),
                name=path,
                kernel=(kernel, kernel),
                stride=(2, 2),
                bias=True,
            )
        )

    def norm(self, x: Node, name: str, *, per_level: bool = True) -> Node:
        """Batch normalisation; in an image pyramid each level has its own unless told otherwise."""
        path = self._path(name)
        if self.levels > 1 and per_level:
            path += f"_level{self.level}"
        return self._add(
            Node(self._next, x.channels, "norm", (x.index,), x.output_stride, name=path, norm=self._norm, grid=x.grid)
        )

    def act(self, x: Node, name: str) -> Node:
        """The architecture's activation; PReLU has a slope per channel."""
        path = self._path(name) if self.activation == "prelu" else ""
        return self._add(
            Node(
                self._next, x.channels, "act", (x.index,), x.output_stride, name=path, mode=self.activation, grid=x.grid
            )
        )

    def norm_act(self, x: Node, name: str = "", *, per_level: bool = True) -> Node:
        """Batch normalisation, then activation."""
        return self.act(self.norm(x, f"{name}norm", per_level=per_level), f"{name}act")

    def dropout(self, x: Node, probability: float) -> Node:
        """Dropout of whole channels; nothing at probability 0."""
        if probability == 0:
            return x
        return self._add(Node(self._next, x.channels, "dropout", (x.index,), x.output_stride, probability=probability))

    def max_pool(self, x: Node, kernel: int) -> Node:
        """Max pooling by 2."""
        return self._window(x, "max_pool", kernel, 2)

    def average_pool(self, x: Node, kernel: int = 3, stride: int = 2) -> Node:
        """Average pooling. Odd kernels are centred, and the zeros around the map count; even ones are as long as their
        stride, and at the far edges average what is there.
        """
        assert kernel % 2 or kernel == stride, "an even window is as long as its stride"
        return self._window(x, "average_pool", kernel, stride)

    def grid_pool(self, x: Node, rows: int, columns: int = 0) -> Node:
        """Average over so many rows and columns; 0 for as many columns as keep the cells square, one of each for the
        mean of the whole map.
        """
        return self._add(Node(self._next, x.channels, "grid_pool", (x.index,), x.output_stride, grid=(rows, columns)))

    def resize(self, x: Node, output_stride: Pair, *, mode: str = "bilinear") -> Node:
        """Interpolation to the size of tensors at `output_stride`; the node itself when it already has that size."""
        if x.output_stride == output_stride and not x.grid:
            return x
        return self._add(Node(self._next, x.channels, "resize", (x.index,), output_stride, mode=mode))

    def repeat(self, x: Node) -> Node:
        """Every pixel repeated to the image's size: what is beyond its far edges is cut off."""
        return self._add(
            Node(self._next, x.channels, "repeat", (x.index,), output_stride=(1, 1), stride=x.output_stride)
        )

    def shuffle(self, x: Node, factor: int) -> Node:
        """Depth to space: `factor` squared neighbouring channels are the pixels of one, row by row; what is beyond the
        far edges is cut off. Of channels that are fixed.
        """
        output_stride = (x.output_stride[0] // factor, x.output_stride[1] // factor)
        fewer = x.channels[:: factor**2]
        return self._add(Node(self._next, fewer, "shuffle", (x.index,), output_stride, stride=(factor, factor)))

    def cat(self, parts: Sequence[Node]) -> Node:
        """Concatenation of channels."""
        first = parts[0]
        assert {(part.output_stride, part.grid) for part in parts} == {(first.output_stride, first.grid)}, (
            "concatenated tensors have one size"
        )
        channels = np.concatenate([part.channels for part in parts])
        inputs = tuple(part.index for part in parts)
        return self._add(Node(self._next, channels, "cat", inputs, first.output_stride, grid=first.grid))

    def add(self, *terms: Node) -> Node:
        """Sum; its terms' channels are tied to each other. The mean of a map is added to every pixel."""
        return self._together("add", terms)

    def gate(self, x: Node, gate: Node) -> Node:
        """`x` times the sigmoid of `gate`, which has a value for every pixel or one for all; it ties their channels."""
        assert gate.grid in (x.grid, WHOLE), "a gate is as large as what it opens, or the mean of a map"
        return self._together("gate", (x, gate))

    def drop_unused(self) -> None:
        """Forget layers that no output depends on, such as an activation after the last tap of a ladder."""
        used = {node.index for node in self.outputs} | {self.image.index}
        for node in reversed(self.nodes):
            if node.index in used:
                used.update(node.inputs)
        if len(used) == len(self.nodes):
            return
        place = {old: new for new, old in enumerate(sorted(used))}
        self.encoder_nodes = sum(old < self.encoder_nodes for old in used)
        moved = {old: self._moved(old, place) for old in place}
        self.nodes = list(moved.values())
        self.outputs = [moved[node.index] for node in self.outputs]
        self.image = moved[self.image.index]

    def _moved(self, old: int, place: dict[int, int]) -> Node:
        """A node at its new place; itself where it keeps its own, for then all before it keep theirs."""
        node = self.nodes[old]
        if place[old] == old:
            return node
        return replace(node, index=place[old], inputs=tuple(place[index] for index in node.inputs))

    def _weights(self, path: str, x: Node, width: int, fixed: bool) -> Atoms:
        """Output atoms of a convolution; weights used twice tie both uses, at the input too."""
        if path not in self._made:
            self._made[path] = (x.channels, self._new_atoms(width, fixed))
        read, out = self._made[path]
        if read is not x.channels:
            self._tie(read, x.channels)
        return out

    def _tie(self, left: Atoms, right: Atoms) -> None:
        assert len(left) == len(right), f"cannot add {len(left)} channels to {len(right)}"
        if left is not right:
            self.ties.append((left, right))

    def _new_atoms(self, count: int, fixed: bool = False) -> Atoms:
        atoms = np.arange(self._atoms, self._atoms + count)
        self._atoms += count
        if fixed:
            self.fixed.append(atoms)
        return atoms

    @property
    def atom_count(self) -> int:
        """How many atoms there are."""
        return self._atoms

    def _path(self, name: str) -> str:
        return self._scope + name

    @property
    def _next(self) -> int:
        """The index of the layer that is added next."""
        return len(self.nodes)

    def _together(self, kind: Literal["add", "gate"], terms: Sequence[Node]) -> Node:
        """A layer that joins tensors value by value. Means of maps are spread over the others."""
        first, *others = terms
        largest = first if first.grid != WHOLE else next((term for term in others if term.grid != WHOLE), first)
        for term in others:
            assert term.grid == WHOLE or (term.output_stride, term.grid) == (largest.output_stride, largest.grid), (
                "tensors that are joined value by value have one size"
            )
            self._tie(first.channels, term.channels)
        inputs = tuple([term.index for term in terms])
        return self._add(Node(self._next, first.channels, kind, inputs, largest.output_stride, grid=largest.grid))

    def _window(self, x: Node, kind: Literal["max_pool", "average_pool"], kernel: int, stride: int) -> Node:
        """Pooling over a moving window."""
        assert x.grid is None, "cells of a grid are not pooled again"
        output_stride = (x.output_stride[0] * stride, x.output_stride[1] * stride)
        return self._add(
            Node(self._next, x.channels, kind, (x.index,), output_stride, kernel=_pair(kernel), stride=_pair(stride))
        )

    def _add(self, node: Node) -> Node:
        assert node.index == self._next, "layers are added in the order of computation"
        self.nodes.append(node)
        return node


def _pair(value: int | Pair) -> Pair:
    return value if isinstance(value, tuple) else (value, value)


def _dilation(kernel: Pair, dilation: int) -> Pair:
    """Of each axis: a single row or column has none."""
    return (dilation if kernel[0] > 1 else 1, dilation if kernel[1] > 1 else 1)
