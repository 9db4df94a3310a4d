"""A network as a list of layers whose channels know where they come from.

Blocks, fusions and decoders are functions that add layers to a `Graph`, in the order of computation. Everything
else is read from that list: the `nn.Module`, parameters, multiply-adds, the layers a latency table is keyed by, and
the groups of channels that can only be cut together (`space.channels`).

Every channel of every tensor is an *atom*, an integer. A convolution makes new atoms, normalisation and activation
keep their input's, concatenation joins them, and a sum ties the atoms of its terms pairwise.

Sizes are kept as strides against the input image: a tensor of stride s is ceil(H / s) x ceil(W / s). All strided
layers round up and all upsampling aims at a stride, so that any input size works, odd ones included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from space.rules import IMAGE_CHANNELS

Atoms = NDArray[np.int64]
Pair = tuple[int, int]
LayerKind = Literal[
    "image", "conv", "deconv", "norm", "act", "dropout", "max_pool", "average_pool", "grid_pool", "resize", "cat", "add"
]
PARAMETRIC = ("conv", "deconv", "norm", "act")


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One layer: what it does, what it reads (indices of earlier nodes) and the channels it gives out."""

    index: int
    kind: LayerKind
    inputs: tuple[int, ...]
    channels: Atoms
    stride: Pair
    name: str = ""
    kernel: Pair = (1, 1)
    step: Pair = (1, 1)
    dilation: Pair = (1, 1)
    depthwise: bool = False
    bias: bool = False
    mode: str = ""
    probability: float = 0.0
    grid: Pair | None = None
    """Rows and columns of pooled cells; 0 columns for as many as keep them square."""


class _Behind(TypedDict):
    """What a layer that reads one tensor, and keeps its channels, knows by that."""

    index: int
    inputs: tuple[int, ...]
    channels: Atoms


class Graph:
    """A network under construction; `nodes` is the result."""

    def __init__(self, *, activation: str, align_corners: bool, levels: int = 1) -> None:
        self.nodes: list[Node] = []
        self.ties: list[tuple[Atoms, Atoms]] = []
        self.fixed: list[Atoms] = []
        self.outputs: list[Node] = []
        self.activation = activation
        self.align_corners = align_corners
        self.levels = levels
        self.level = 0
        self._atoms = 0
        self._scopes: list[str] = []
        self._made: dict[str, tuple[Atoms, Atoms]] = {}
        self.image = self._add(
            Node(index=0, kind="image", inputs=(), channels=self._new_atoms(IMAGE_CHANNELS, fixed=True), stride=(1, 1))
        )

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the layers added inside."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def conv(
        self,
        x: Node,
        width: int,
        kernel: int | Pair,
        name: str,
        *,
        step: int | Pair = 1,
        dilation: int = 1,
        bias: bool = False,
        fixed: bool = False,
    ) -> Node:
        """Convolution with padding that keeps ceil(size / step). A name used before shares its weights."""
        kernel, step = _pair(kernel), _pair(step)
        return self._add(
            Node(
                index=self._next,
                kind="conv",
                inputs=(x.index,),
                channels=self._weights(name, x, width, fixed),
                stride=(x.stride[0] * step[0], x.stride[1] * step[1]),
                name=self._path(name),
                kernel=kernel,
                step=step,
                dilation=(dilation if kernel[0] > 1 else 1, dilation if kernel[1] > 1 else 1),
                bias=bias,
                grid=x.grid,
            )
        )

    def depthwise(self, x: Node, name: str, *, step: int = 1, dilation: int = 1) -> Node:
        """3x3 convolution of each channel by itself, no bias."""
        return self._add(
            Node(
                **self._behind(x),
                kind="conv",
                stride=(x.stride[0] * step, x.stride[1] * step),
                name=self._path(name),
                kernel=(3, 3),
                step=(step, step),
                dilation=(dilation, dilation),
                depthwise=True,
                grid=x.grid,
            )
        )

    def deconv(self, x: Node, width: int, kernel: int, name: str, *, fixed: bool = False) -> Node:
        """Transposed convolution that halves the stride, with bias (ERFNet's upsampler)."""
        return self._add(
            Node(
                index=self._next,
                kind="deconv",
                inputs=(x.index,),
                channels=self._weights(name, x, width, fixed),
                stride=(x.stride[0] // 2, x.stride[1] // 2),
                name=self._path(name),
                kernel=(kernel, kernel),
                step=(2, 2),
                bias=True,
            )
        )

    def norm(self, x: Node, name: str, *, per_level: bool = True) -> Node:
        """Batch normalisation; in an image pyramid each level has its own unless told otherwise."""
        path = self._path(name)
        if self.levels > 1 and per_level:
            path += f"_level{self.level}"
        return self._add(Node(**self._behind(x), kind="norm", stride=x.stride, name=path, grid=x.grid))

    def act(self, x: Node, name: str) -> Node:
        """The architecture's activation; PReLU has a slope per channel."""
        path = self._path(name) if self.activation == "prelu" else ""
        return self._add(
            Node(**self._behind(x), kind="act", stride=x.stride, name=path, mode=self.activation, grid=x.grid)
        )

    def norm_act(self, x: Node, name: str = "", *, per_level: bool = True) -> Node:
        """Batch normalisation, then activation."""
        return self.act(self.norm(x, f"{name}norm", per_level=per_level), f"{name}act")

    def dropout(self, x: Node, probability: float) -> Node:
        """Dropout of whole channels; nothing at probability 0."""
        if probability == 0:
            return x
        return self._add(Node(**self._behind(x), kind="dropout", stride=x.stride, probability=probability))

    def max_pool(self, x: Node, kernel: int) -> Node:
        """Max pooling by 2."""
        return self._add(
            Node(**self._behind(x), kind="max_pool", stride=_half(x), kernel=(kernel, kernel), step=(2, 2))
        )

    def average_pool(self, x: Node) -> Node:
        """3x3 average pooling by 2."""
        return self._add(Node(**self._behind(x), kind="average_pool", stride=_half(x), kernel=(3, 3), step=(2, 2)))

    def grid_pool(self, x: Node, rows: int, columns: int = 0) -> Node:
        """Average over so many rows and columns; 0 for as many columns as keep the cells square."""
        return self._add(Node(**self._behind(x), kind="grid_pool", stride=x.stride, grid=(rows, columns)))

    def resize(self, x: Node, stride: Pair, *, mode: str = "bilinear") -> Node:
        """Interpolation to the size that tensors of `stride` have; the node itself when it has it already."""
        if x.stride == stride and not x.grid:
            return x
        return self._add(Node(**self._behind(x), kind="resize", stride=stride, mode=mode))

    def cat(self, parts: Sequence[Node]) -> Node:
        """Concatenation of channels."""
        assert len({part.stride for part in parts}) == 1, "concatenated tensors share a stride"
        channels = np.concatenate([part.channels for part in parts])
        inputs = tuple(part.index for part in parts)
        return self._add(Node(index=self._next, kind="cat", inputs=inputs, channels=channels, stride=parts[0].stride))

    def add(self, *terms: Node) -> Node:
        """Sum; its terms' channels are tied to each other."""
        first = terms[0]
        for term in terms[1:]:
            assert term.stride == first.stride, "summed tensors share a stride"
            self._tie(first.channels, term.channels)
        inputs = tuple(term.index for term in terms)
        return self._add(
            Node(index=self._next, kind="add", inputs=inputs, channels=first.channels, stride=first.stride)
        )

    def drop_unused(self) -> None:
        """Forget layers that no output depends on, such as an activation after the last tap of a ladder."""
        used = {node.index for node in self.outputs} | {self.image.index}
        for node in reversed(self.nodes):
            if node.index in used:
                used.update(node.inputs)
        if len(used) == len(self.nodes):
            return
        place = {old: new for new, old in enumerate(sorted(used))}
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

    def _weights(self, name: str, x: Node, width: int, fixed: bool) -> Atoms:
        """Output atoms of a convolution; weights used twice tie both uses, at the input too."""
        path = self._path(name)
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
        return ".".join([*self._scopes, name])

    @property
    def _next(self) -> int:
        """The index of the layer that is added next."""
        return len(self.nodes)

    def _behind(self, x: Node) -> _Behind:
        return {"index": self._next, "inputs": (x.index,), "channels": x.channels}

    def _add(self, node: Node) -> Node:
        assert node.index == self._next, "layers are added in the order of computation"
        self.nodes.append(node)
        return node


def _pair(value: int | Pair) -> Pair:
    return value if isinstance(value, tuple) else (value, value)


def _half(x: Node) -> Pair:
    return (x.stride[0] * 2, x.stride[1] * 2)


def output_size(node: Node, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a node's output when the image has `size` (height, width)."""
    height, width = -(-size[0] // node.stride[0]), -(-size[1] // node.stride[1])
    return (height, width) if node.grid is None else grid_size(node.grid, height, width)


def grid_size(grid: Pair, height: int, width: int) -> Pair:
    """Rows and columns of pooled cells: as square as the feature map allows where no columns are given."""
    rows, columns = grid
    return rows, columns or max(1, round(rows * width / height))
