"""Stems: the first layers of a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from space import scopes, strict
from space.choices import Axes, Choice, Questioner
from space.graph import Graph, Node
from space.layers import PLAIN_KERNEL, cat_downsampler, plain_conv
from space.rules import IMAGE_CHANNELS, WIDEST, require, require_one_of, require_range

StemKind = Literal["cat", "convs", "conv_pool"]

AXES: Axes = {
    "stem.kind": get_args(StemKind),
    "stem.width": (8, 16, 24, 32, 48, 64),
    "stem.kernel": (3, 7),
    "stem.convolutions": (1, 2, 3),
    "stem.image": (False, True),
    "stem.halvings": (1, 2, 3),
    "stem.rising": (False, True),
    "stem.separable": (False, True),
    "stem.image_average": (False, True),
    "stem.bias": (False, True),
}
SEARCHED: Axes = {
    "stem.image_average": (False,),
    "stem.bias": (False,),
}


@dataclass(frozen=True, kw_only=True)
class Stem:
    """The first layers. `cat`: a strided convolution beside a max pool (ENet, ERFNet); `convs`: `convolutions`
    convolutions, the first strided (FPLNet); `conv_pool`: the same, then a max pool (ResNet, NDNet).

    `image`: concatenate the half-size image to the output, max-pooled and also activated before the normalisation
    (FPLNet), or with `image_average` averaged (DABNet). For `convs` only: the first `halvings` convolutions are
    strided; with `rising`, widths grow evenly from half of `width` to all of it (STDC); with `separable`, all
    convolutions are 3x3 and all but the first are separable (Fast-SCNN); with `bias`, convolutions have biases in front
    of their normalisation (DDRNet).
    """

    kind: StemKind
    width: int
    kernel: int = 3
    convolutions: int = 1
    image: bool = False
    halvings: int = field(default=1, metadata=strict.LEFT_OUT_AT_DEFAULT)
    rising: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    separable: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    image_average: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    bias: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)

    def __post_init__(self) -> None:
        require_one_of("stem.kind", self.kind, get_args(StemKind))
        require_range("stem.width", self.width, 1, WIDEST)
        require(self.kernel in (3, 5, 7), f"stem.kernel: expected 3, 5 or 7, got {self.kernel}")
        require_range("stem.convolutions", self.convolutions, 1, 8)
        if self.kind == "cat":
            require(
                self.width > IMAGE_CHANNELS,
                f"stem.width: cat adds to the {IMAGE_CHANNELS} channels of the image; expected more, got {self.width}",
            )
            require(self.kernel == 3 and self.convolutions == 1, "stem: cat is one 3x3 convolution beside a pool")
        require(
            not self.image or (self.kind == "convs" and self.halvings == 1),
            "stem.image: only a `convs` stem of one halving has the size of the half-size image",
        )
        require(
            self.image or not self.image_average, "stem.image_average: there is no image to average; give image true"
        )
        require(
            1 <= self.halvings <= self.convolutions,
            f"stem.halvings: expected 1 to {self.convolutions}, the number of convolutions, got {self.halvings}",
        )
        alone = self.halvings > 1 or self.rising or self.separable or self.bias
        require(
            not alone or self.kind == "convs",
            "stem: halvings, rising, separable and bias are for a `convs` stem only; leave them out",
        )
        require(
            self.convolutions > 1 or not (self.rising or self.separable),
            "stem: rising and separable need several convolutions; give more, or leave them out",
        )
        require(
            self.kernel == 3 or not self.separable,
            f"stem.kernel: separable convolutions are 3x3; expected 3, got {self.kernel}",
        )

    @property
    def stride(self) -> int:
        """Stride of the stem's output against the image."""
        return 4 if self.kind == "conv_pool" else int(2**self.halvings)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after each convolution."""
        last = self.convolutions - 1
        if not self.rising:
            return (self.width,) * self.convolutions
        return tuple(math.ceil(self.width * (last + index) / (2 * last)) for index in range(self.convolutions))

    @property
    def out_width(self) -> int:
        """Channels of the stem's output."""
        return self.width + (IMAGE_CHANNELS if self.image else 0)

    @property
    def is_plain(self) -> bool:
        """Whether it has 3x3 convolutions that can be re-parameterised."""
        return self.kind != "cat" and self.kernel == PLAIN_KERNEL

    @property
    def takes_image_pyramid(self) -> bool:
        """Whether an image pyramid may start with it."""
        return self.kind != "cat" and not self.image

    def add(self, graph: Graph, image: Node, bias: bool) -> Node:
        """Add the layers after `image`; returns the last one."""
        with graph.scope(scopes.STEM):
            if self.kind == "cat":
                return cat_downsampler(graph, image, self.width, bias)
            x = image
            for index, width in enumerate(self.widths):
                stride = 2 if index < self.halvings else 1
                if index and self.separable:
                    x = graph.norm_act(
                        graph.depthwise(x, f"conv{index}_depthwise", stride=stride), f"conv{index}_inner_"
                    )
                    x = graph.norm(graph.conv(x, width, 1, f"conv{index}", bias=self.bias), f"conv{index}_norm")
                else:
                    x = plain_conv(graph, x, width, f"conv{index}", kernel=self.kernel, stride=stride, bias=self.bias)
                x = graph.act(x, f"conv{index}_act")
            if self.kind == "conv_pool":
                x = graph.max_pool(x, 3)
            if self.image_average:
                x = graph.norm_act(graph.cat([x, graph.average_pool(image)]), "image_")
            elif self.image:
                # FPLNet activates before and after this normalisation: its channel counts allow no other reading.
                x = graph.act(graph.cat([x, graph.max_pool(image, 2)]), "image_first_act")
                x = graph.norm_act(x, "image_")
            return x

    def answers(self) -> dict[str, Choice]:
        """The answers, by question, that describe it."""
        return {f"stem.{name}": value for name, value in vars(self).items()}

    def words(self) -> str:
        """A description for people."""
        kernel = f"{self.kernel}x{self.kernel} convolution{'' if self.convolutions == 1 else 's'}"
        layers = {
            "cat": "3x3 strided convolution beside a max pool",
            "convs": f"{self.convolutions} {kernel}, {self._words()}",
            "conv_pool": f"{self.convolutions} {kernel}, then a max pool",
        }[self.kind]
        image = ", joined by the half-size image" if self.image else ""
        image += ", averaged" if self.image_average else ""
        return f"{layers}; {self.width} channels at stride {self.stride}{image}"

    def _words(self) -> str:
        words = ["the first strided" if self.halvings == 1 else f"the first {self.halvings} strided"]
        words += ["of rising width"] if self.rising else []
        words += ["all but the first separable"] if self.separable else []
        words += ["with biases"] if self.bias else []
        return ", ".join(words)


def ask(questions: Questioner, fits: Callable[[Stem], bool]) -> Stem:
    """The stem that the answers describe; `fits` tells whether stages can follow a stem."""
    bound = False not in questions.options("rep")  # then the parts that may follow depend on the kind of stem

    def possible(kind: str, kernel: int = PLAIN_KERNEL) -> bool:
        widths = questions.options("stem.width")
        return not bound or any(fits(Stem(kind=kind, width=int(each), kernel=kernel)) for each in widths)  # type: ignore[arg-type]

    def unbiased(bias: Choice) -> bool:
        return not (bias and bound)

    kind = questions.text("stem.kind", "stem.kind", possible)
    width = questions.integer("stem.width", "stem.width")
    if kind == "cat":
        return Stem(kind="cat", width=width)
    if kind == "conv_pool":
        kernel = questions.integer("stem.kernel", "stem.kernel", lambda kernel: possible(kind, kernel))
        return Stem(kind="conv_pool", width=width, kernel=kernel)
    fewest = min(int(option) for option in questions.options("stem.halvings"))
    plain_is_offered = all(False in questions.options(axis) for axis in ("stem.rising", "stem.separable"))

    def enough(count: int) -> bool:
        return count >= fewest and (count > 1 or plain_is_offered)

    convolutions = questions.integer("stem.convolutions", "stem.convolutions", enough)
    image = bool(questions.pick("stem.image", "stem.image", lambda image: not image or fewest == 1))
    average = image and bool(questions.pick_newer("stem.image_average"))
    plain = Stem(kind="convs", width=width, convolutions=convolutions, image=image, image_average=average)
    if convolutions == 1:
        return replace(plain, bias=bool(questions.pick_newer("stem.bias", unbiased)))

    def halved(count: Choice) -> bool:
        return int(count) <= convolutions and fits(replace(plain, halvings=int(count)))

    return replace(
        plain,
        halvings=1 if image else int(questions.pick_newer("stem.halvings", halved)),
        rising=bool(questions.pick_newer("stem.rising")),
        separable=bool(questions.pick_newer("stem.separable")),
        bias=bool(questions.pick_newer("stem.bias", unbiased)),
    )
