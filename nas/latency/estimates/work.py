"""The work that the layers of a network demand of the hardware, in the quantities that a `LatencyTable` has prices for.

Multiply-adds alone rank networks poorly (`studies/latency`): a depthwise convolution mostly moves data, a narrow one
pads it, and a channel count that does not divide leaves the fast layout. So each layer is described the way a runtime
executes it:

- Activations are stored in *blocks* of 16 channels, padded (ONNX Runtime's NCHWc, oneDNN's nChw16c). A convolution with
  fewer than 16 input channels reads them *plain* and writes blocks. One whose input channels are not divisible by 4 is
  plain on both sides, and slow; so is a grouped one whose groups are not whole blocks. Also plain are transposed
  convolutions, pooling to a grid (but not the mean of a map), spreading such a mean over a map (unless a sum does it)
  and arg-max. Changing the layout is work too.
- Kernels on blocks skip taps that fall into the padding: with a dilation of nearly the height of the map, a 3x3
  convolution computes a third of its rows. Matrix products, which plain convolutions are, compute all of them.
- A batch norm after a convolution is folded into its weights; a ReLU after it and a sum with its output are folded into
  its loop. If something else reads the value in between, or no convolution comes before, they are passes of their own.
  ReLU6 is folded only into a convolution; after a sum it makes both plain.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from nas.latency.estimates.places import Place, SharedPlace, places_in
from space.channels import Widths, widths
from space.graph import Graph
from space.rules import IMAGE_CHANNELS

if TYPE_CHECKING:
    from space.architecture import Architecture

BLOCK = 16
ALIGNED = 4
SMALL_WINDOW = 3  # side of a pooling window; larger ones sum so many pixels that each size has its own prices
FAR_BYTES = (500_000, 2_000_000)  # sizes above which a value no longer fits into the caches of one core
NO_WORK = ("dropout", "image", "repeat")  # repeating labels counts as part of what a network does once
REMEMBERED = 2**15  # layers: successive networks in pruning or width search differ in a few layers only


def unit(quantity: str) -> str:
    """The unit of a quantity, its last word: "multiply_adds", "count", "read", ..."""
    return quantity.rpartition(" ")[2]


def total(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The total work of some layers."""
    sums: dict[str, float] = {}
    for each in amounts:
        for quantity, amount in each.items():
            sums[quantity] = sums.get(quantity, 0.0) + amount
    return sums


@functools.lru_cache(maxsize=256)  # a width search returns to the same widths
def work_of(architecture: Architecture, size: tuple[int, int], num_classes: int) -> Mapping[str, float]:
    """All the work of an architecture at input `size` (height, width)."""
    graph = architecture.graph(num_classes)
    return total(layer_work(graph, widths(graph, architecture.channels), size))


def layer_work(graph: Graph, sizes: Widths, size: tuple[int, int]) -> list[Mapping[str, float]]:
    """The work of every layer of a graph with the given widths, at input `size` (height, width): amounts by quantity,
    such as "conv 3x3 multiply_adds", whose last word is the unit.
    """
    places = places_in(graph, size)
    values: list[_Value] = []
    work: list[Mapping[str, float]] = []
    for node, place, width in zip(graph.nodes, places, sizes.given, strict=True):
        done = _done(place, width, tuple([values[index] for index in node.inputs]))
        for position in done.moved:
            index = node.inputs[position]
            channels, blocked, _, folded_sum = values[index]
            values[index] = _Value(channels, blocked, True, folded_sum)
        values.append(done.output)
        work.append(done.amounts)
    labels = graph.outputs[0].index
    work[-1] = _with_the_end(work[-1], values[labels], places[labels].place)
    return work


# Tuples, because they are hashed and compared for every layer of thousands of networks.
class _Value(NamedTuple):
    """A layer's output as later layers find it in memory."""

    channels: int
    blocked: bool
    moved: bool
    """Whether a reader has already converted it to the other layout."""
    folded_sum: bool
    """Whether it is a sum folded into a convolution."""


class _Done(NamedTuple):
    """The work of a layer and its output."""

    amounts: Mapping[str, float]
    output: _Value
    moved: tuple[int, ...]
    """Positions of inputs that this layer is the first to read in the other layout."""


@functools.lru_cache(maxsize=REMEMBERED)
def _done(shared: SharedPlace, channels: int, reads: tuple[_Value, ...]) -> _Done:
    """The work of a layer with this many output `channels`, and its output."""
    place = shared.place
    layer = _Layer(place, channels, reads)
    steps = {
        "conv": layer.conv, "deconv": layer.deconv, "norm": layer.norm, "act": layer.act, "add": layer.add,
        "resize": layer.resize, "max_pool": layer.pool, "grid_pool": layer.grid_pool, "shuffle": layer.grid_pool,
        "average_pool": layer.pool, "cat": layer.cat, "gate": layer.gate, **dict.fromkeys(NO_WORK, layer.nothing),
    }  # fmt: skip
    blocked = steps[place.kind]()
    output = _Value(channels=channels, blocked=blocked, moved=False, folded_sum=layer.folded_sum)
    return _Done(amounts=layer.amounts, output=output, moved=tuple(layer.moved))


def _with_the_end(amounts: Mapping[str, float], labels: _Value, place: Place) -> dict[str, float]:
    """The last layer's work, plus what a network does once, such as arg-max, which reads the output plain."""
    ended, (pixels, network) = dict(amounts), (place.pixels, "network count")
    if place.kind == "repeat":
        pixels, network = place.read_pixels[0], "network of repeated labels count"
    if labels.blocked and not labels.moved:
        _note_move(ended, pixels * _padded(labels.channels), into_blocks=False)
    _note(ended, network, 1)
    return ended


def _note(amounts: dict[str, float], quantity: str, amount: float) -> None:
    amounts[quantity] = amounts.get(quantity, 0.0) + amount


def _note_move(amounts: dict[str, float], elements: int, *, into_blocks: bool) -> None:
    _note(amounts, f"{'into' if into_blocks else 'out of'} blocks moved", elements)
    _note(amounts, "move count", 1)


class _Layer:
    """A layer while its work is counted. The method for its kind returns whether its output is stored in blocks."""

    def __init__(self, place: Place, channels: int, reads: tuple[_Value, ...]) -> None:
        self.place = place
        self.channels = channels
        self.reads = reads
        self.amounts: dict[str, float] = {}
        self.folded_sum = False
        self.moved: list[int] = []

    def note(self, quantity: str, amount: float) -> None:
        _note(self.amounts, quantity, amount)

    def want(self, *, blocked: bool) -> None:
        """Note that the layer reads its inputs in this layout."""
        for position, (value, first) in enumerate(zip(self.reads, self.place.first_read, strict=True)):
            if value.blocked != blocked and not value.moved and first not in self.moved:
                self.moved.append(first)
                _note_move(self.amounts, self.read_elements(position, padded=True), into_blocks=blocked)

    def elements(self, *, padded: bool) -> int:
        """Number of elements of the output."""
        return self.place.pixels * (_padded(self.channels) if padded else self.channels)

    def read_elements(self, position: int, *, padded: bool) -> int:
        """Number of elements of an input."""
        channels = self.reads[position].channels
        return self.place.read_pixels[position] * (_padded(channels) if padded else channels)

    def far(self, *, blocked: bool = False) -> None:
        """Note bytes of inputs and output beyond the caches of one core. `blocked`: whether the output is in blocks."""
        elements = [self.read_elements(place, padded=value.blocked) for place, value in enumerate(self.reads)]
        for each in (*elements, self.elements(padded=blocked)):
            for limit in FAR_BYTES:
                if 4 * each > limit:
                    self.note(f"beyond {limit} far_bytes", 4 * each - limit)

    def taps(self, *, blocked: bool) -> int:
        """Number of taps that a convolution computes, over all output pixels."""
        return self.place.inside if blocked else self.place.pixels * math.prod(self.place.kernel)

    def conv(self) -> bool:
        group = self.place.group
        blocked = self._dense() if not group else self._depthwise() if group == 1 else self._grouped()
        self.far(blocked=blocked)
        return blocked

    def _grouped(self) -> bool:
        place, out = self.place, self.channels
        blocked = place.group % BLOCK == 0
        self.want(blocked=blocked)
        name = f"{'' if blocked else 'plain '}conv {_shape(place.kernel)} in groups of {place.group}{self._strided()}"
        multiply_adds = self.taps(blocked=blocked) * place.group * out
        self._note_conv(name, multiply_adds, place.pixels * out, self.read_elements(0, padded=blocked))
        if not blocked:
            self.note("plain conv gathered", place.pixels * math.prod(place.kernel) * out)
        if place.dilated:
            self.note(f"{name} dilated", multiply_adds)
        return blocked

    def _depthwise(self) -> bool:
        out = self.channels
        blocked = out % ALIGNED == 0
        self.want(blocked=blocked)
        dilated = " dilated" if blocked and self.place.dilated else ""
        name = f"{'' if blocked else 'plain '}depthwise{dilated}{self._strided()}"
        self.note(f"{name} count", 1)
        self.note(f"{name} multiply_adds", self.taps(blocked=blocked) * _padded(out))
        if not blocked:
            self.note(f"{name} channels", out)  # one matrix product for each channel
        return blocked

    def _dense(self) -> bool:
        place, read, out = self.place, self.reads[0].channels, self.channels
        narrow, taps = read < BLOCK, math.prod(place.kernel)
        blocked = narrow or read % ALIGNED == 0
        self.want(blocked=blocked and not narrow)
        layout = "image " if read == IMAGE_CHANNELS else "narrow " if narrow else "" if blocked else "plain "
        name = f"{layout}conv {_shape(place.kernel)}{self._strided()}"
        reads = _padded(read) if blocked and not narrow else read
        writes = _padded(out) if blocked else out
        multiply_adds = self.taps(blocked=blocked) * reads * writes
        self._note_conv(name, multiply_adds, place.pixels * writes, place.read_pixels[0] * reads)
        self.note(f"{layout}conv weights", writes * reads * taps)
        if not blocked and taps > 1:
            self.note("plain conv gathered", place.pixels * taps * reads)  # into the columns of a matrix product
        if place.dilated:
            self.note(f"{name} dilated", multiply_adds)
        return blocked

    def _strided(self) -> str:
        return " strided" if self.place.strided else ""

    def _note_conv(self, name: str, multiply_adds: int, written: int, read: int) -> None:
        self.note(f"{name} count", 1)
        self.note(f"{name} multiply_adds", multiply_adds)
        self.note(f"{name} written", written)
        self.note(f"{name} read", read)

    def deconv(self) -> bool:
        place = self.place
        self.want(blocked=False)
        name = f"deconv {place.kernel[0]}x{place.kernel[1]}"
        read = self.read_elements(0, padded=False)
        self.note(f"{name} count", 1)
        self.note(f"{name} multiply_adds", math.prod(place.kernel) * read * self.channels)
        self.note(f"{name} written", self.elements(padded=False))
        self.note(f"{name} read", read)
        self.far()
        return False

    def norm(self) -> bool:
        if self.place.producers[0] not in ("conv", "deconv") or not self.place.read_alone[0]:
            self.a_pass("norm")
        return self.reads[0].blocked

    def act(self) -> bool:
        mode, (value,) = self.place.mode, self.reads
        behind_conv = self.place.producers[0] == "conv"
        folds = behind_conv or value.folded_sum
        blocked = value.blocked and (mode != "relu6" or behind_conv)
        if not blocked:
            self.want(blocked=False)
        if mode == "prelu" or not folds or not self.place.read_alone[0]:
            self.a_pass(mode if blocked else f"plain {mode}")
        return blocked

    def a_pass(self, name: str) -> None:
        self.note(f"{name} count", 1)
        self.note(f"{name} elements", self.elements(padded=True))

    def add(self) -> bool:
        place = self.place
        blocked = all(value.blocked for value in self.reads) and not place.before_relu6
        if not blocked:
            self.want(blocked=False)
        terms = len(self.reads) - 1
        folds = self.are_alike() and any(
            kind == "conv" and alone for kind, alone in zip(place.producers, place.read_alone, strict=True)
        )
        elements = self.elements(padded=True) * terms
        if blocked and folds:
            self.folded_sum = True
            self.note("folded add elements", elements)
        else:
            self.note("add count", terms)
            self.note("add elements", elements)
        self.far()
        return blocked

    def gate(self) -> bool:
        blocked = all(value.blocked for value in self.reads) and self.are_alike()
        if not blocked:
            self.want(blocked=False)
        self.note("gate count", 1)
        self.note("gate elements", self.elements(padded=True))
        self.far()
        return blocked

    def are_alike(self) -> bool:
        """Whether all inputs have the same size, so that none is the mean of a map."""
        return len(set(self.place.read_pixels)) == 1

    def cat(self) -> bool:
        blocked = all(value.blocked and value.channels % BLOCK == 0 for value in self.reads)
        if not blocked:
            self.want(blocked=False)
        self.note("cat count", 1)
        self.note("cat elements", self.elements(padded=False))
        self.far()
        return blocked

    def resize(self) -> bool:
        place, (value,) = self.place, self.reads
        if place.read_pixels[0] == 1:  # exported as an expansion (nas.export.rewrites)
            self.want(blocked=False)
            self.note("spread count", 1)
            self.note("spread elements", self.elements(padded=False))
            self.far()
            return False
        blocked = value.blocked and place.whole_factor and value.channels % ALIGNED == 0
        if not blocked:
            self.want(blocked=False)
        # Shrinking is exported as pooling or matrix products instead of Resize (nas.export.rewrites).
        way = "up" if place.pixels >= place.read_pixels[0] else "shrunk"
        corners = " aligned" if place.align_corners and place.mode == "bilinear" else ""
        layout = "" if blocked else "plain "
        self.note("resize count", 1)
        self.note(
            f"{layout}{place.mode}{corners} {way}{' by a whole factor' if place.whole_factor else ''} resized",
            self.elements(padded=False),
        )
        self.far()
        return blocked

    def pool(self) -> bool:
        blocked = self.reads[0].channels % ALIGNED == 0
        self.want(blocked=blocked)
        small = max(self.place.kernel) <= SMALL_WINDOW
        name = self.place.kind if small else f"{self.place.kind} {_shape(self.place.kernel)}"
        self.note(f"{name} count", 1)
        self.note(f"{name} written", self.elements(padded=True))
        self.note(f"{name} read", self.read_elements(0, padded=True))
        self.far()
        return blocked

    def grid_pool(self) -> bool:
        if self.place.pixels == 1:
            blocked = self.reads[0].channels % ALIGNED == 0
            self.want(blocked=blocked)
            self.note("mean count", 1)
            self.note("mean read", self.read_elements(0, padded=blocked))
            return blocked
        self.want(blocked=False)
        self.note(f"{self.place.kind} count", 1)  # or of a pixel shuffle
        self.note(f"{self.place.kind} read", self.read_elements(0, padded=False))
        return False

    def nothing(self) -> bool:
        return bool(self.reads) and self.reads[0].blocked


def _padded(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def _shape(kernel: tuple[int, int]) -> str:
    return "1d" if kernel[0] != kernel[1] else f"{kernel[0]}x{kernel[1]}"
