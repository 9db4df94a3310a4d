"""A network as a list of layers that records where every channel comes from.

Blocks, fusions and decoders add their layers to a `Graph`, in the order of computation. Everything else is derived from
that list: the `nn.Module`, parameters, multiply-adds, the layers that a latency table prices, and the groups of
channels that can only be cut together (`space.channels`).

Every channel of every tensor is an *atom*, an integer. A convolution makes new atoms; normalisation, activation and
depthwise or grouped convolutions keep the atoms of their input; a concatenation joins the atoms of its parts; a sum or
a gate ties the atoms of its terms pairwise. Which channels a grouped convolution reads together is worked out in
`space.channels`.

Sizes are stored as strides against the input image: a tensor at output stride s has ceil(H / s) x ceil(W / s) pixels.
All strided layers round up and all upsampling targets a stride, so any input size works, odd sizes included.
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
WHOLE: Pair = (1, 1)  # a grid of one cell: the mean of the feature map


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Numbers of a batch normalisation: the epsilon added to the variance, the momentum of the running statistics."""

    epsilon: float = 1e-5
    momentum: float = 0.1


@dataclass(eq=False, slots=True)  # freezing it would triple the construction time, and a search constructs millions
class Node:
    """One layer: its operation, its inputs (indices of earlier nodes) and its output channels. Treat it as frozen."""

    index: int
    channels: Atoms
    kind: LayerKind
    inputs: tuple[int, ...]
    output_stride: Pair
    """Stride of the output against the image, (vertical, horizontal)."""
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    """Stride of a convolution or a pool, factor of a transposed convolution or a shuffle, repetitions of a repeat."""
    dilation: Pair = (1, 1)
    group_width: int = 0
    """Channels per group of a depthwise (1) or grouped convolution, which keeps its input's atoms; 0 for a dense
    convolution, which reads all channels and makes new atoms.
    """
    mode: str = ""
    grid: Pair | None = None
    """Rows and columns of pooled cells; 0 columns: as many as keep the cells square."""
    name: str = ""
    bias: bool = False
    probability: float = 0.0
    norm: Norm = Norm()
    """Numbers of this normalisation, or of those in the training paths of a convolution."""
    paths: Paths = ""
    """Paths that training adds to a convolution with bias (`space.paths`): `pointwise`, two consecutive 1x1
    convolutions, and the identity where input and output shapes agree (RDRNet); `pair`, a second convolution like it.
    """

    @property
    def shape(self) -> tuple[object, ...]:
        """Operation and inputs, without the widths: equal for the same layer at any width."""
        return (
            self.kind, self.inputs, self.output_stride, self.kernel, self.stride, self.dilation, self.group_width,
            self.mode, self.grid,
        )  # fmt: skip


class Graph:
    """A network under construction; `nodes` is the result, in the order of computation."""

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
        """Number of leading nodes that make up the stem and the stages (on the first level of an image pyramid)."""
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
        """Like `scope`, with the normalisation of heads (`head_norm`)."""
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
        """Convolution, padded to an output of ceil(size / stride). Using a name twice shares the weights."""
        assert bias or not paths, "folding normalised paths into a convolution leaves it a bias"
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
        """Depthwise convolution without bias; the output has the input's atoms."""
        return self.grouped(x, name, 1, kernel=kernel, stride=stride, dilation=dilation)

    def grouped(
        self, x: Node, name: str, group_width: int, *, kernel: int | Pair = 3, stride: int = 1, dilation: int = 1
    ) -> Node:
        """Grouped convolution without bias, over groups of `group_width` neighbouring channels.

        The output has the input's atoms; the channels of a group are cut together or not at all.
        """
        assert len(x.channels) % group_width == 0, f"{len(x.channels)} channels are no whole groups of {group_width}"
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
                group_width=group_width,
                grid=x.grid,
            )
        )

    def deconv(self, x: Node, width: int, kernel: int, name: str, *, fixed: bool = False) -> Node:
        """Transposed convolution with bias that doubles the resolution (ERFNet's upsampler)."""
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
        """Batch normalisation; with `per_level`, each level of an image pyramid has its own."""
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
        """Dropout of whole channels; no layer is added at probability 0."""
        if probability == 0:
            return x
        return self._add(Node(self._next, x.channels, "dropout", (x.index,), x.output_stride, probability=probability))

    def max_pool(self, x: Node, kernel: int) -> Node:
        """Max pooling with stride 2."""
        return self._window(x, "max_pool", kernel, 2)

    def average_pool(self, x: Node, kernel: int = 3, stride: int = 2) -> Node:
        """Average pooling. Odd kernels are centred, with zero padding included in the mean. Even kernels are as large
        as their stride, and windows that cross the bottom or right edge average only the pixels inside.
        """
        assert kernel % 2 or kernel == stride, "an even window is as long as its stride"
        return self._window(x, "average_pool", kernel, stride)

    def grid_pool(self, x: Node, rows: int, columns: int = 0) -> Node:
        """Adaptive average pooling to `rows` x `columns` cells. 0 columns: as many as keep the cells square; 1 x 1: the
        mean of the whole map.
        """
        return self._add(Node(self._next, x.channels, "grid_pool", (x.index,), x.output_stride, grid=(rows, columns)))

    def resize(self, x: Node, output_stride: Pair, *, mode: str = "bilinear") -> Node:
        """Interpolation to the size of tensors at `output_stride`; the node itself when it already has that size."""
        if x.output_stride == output_stride and not x.grid:
            return x
        return self._add(Node(self._next, x.channels, "resize", (x.index,), output_stride, mode=mode))

    def repeat(self, x: Node) -> Node:
        """Every pixel repeated up to the image's size; the surplus at the bottom and right edges is cropped."""
        return self._add(
            Node(self._next, x.channels, "repeat", (x.index,), output_stride=(1, 1), stride=x.output_stride)
        )

    def shuffle(self, x: Node, factor: int) -> Node:
        """Depth to space: `factor` squared neighbouring channels become the pixels of one channel, row by row; the
        surplus at the bottom and right edges is cropped. Only for channels that are never cut, such as logits.
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
        """Sum, which ties the channels of its terms. The mean of a map is added to every pixel."""
        return self._together("add", terms)

    def gate(self, x: Node, gate: Node) -> Node:
        """`x` times the sigmoid of `gate`, which has one value per pixel or one per channel; ties their channels."""
        assert gate.grid in (x.grid, WHOLE), "a gate is as large as its input, or the mean of a map"
        return self._together("gate", (x, gate))

    def drop_unused(self) -> None:
        """Remove layers that no output depends on, such as an activation after the last tap of a ladder."""
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
        """The node at its new index; the same object where its index, and so those of its inputs, stay."""
        node = self.nodes[old]
        if place[old] == old:
            return node
        return replace(node, index=place[old], inputs=tuple(place[index] for index in node.inputs))

    def _weights(self, path: str, x: Node, width: int, fixed: bool) -> Atoms:
        """Output atoms of a convolution; sharing weights ties the inputs of both uses and reuses the output atoms."""
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
        """Number of atoms."""
        return self._atoms

    def _path(self, name: str) -> str:
        return self._scope + name

    @property
    def _next(self) -> int:
        """Index of the next layer to be added."""
        return len(self.nodes)

    def _together(self, kind: Literal["add", "gate"], terms: Sequence[Node]) -> Node:
        """An elementwise layer over several tensors; means of maps are broadcast."""
        first, *others = terms
        largest = first if first.grid != WHOLE else next((term for term in others if term.grid != WHOLE), first)
        for term in others:
            assert term.grid == WHOLE or (term.output_stride, term.grid) == (largest.output_stride, largest.grid), (
                "elementwise layers join tensors of one size"
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
    """Dilation along each axis; a kernel side of 1 is not dilated."""
    return (dilation if kernel[0] > 1 else 1, dilation if kernel[1] > 1 else 1)
