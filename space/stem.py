"""The first layers of a network, and all that is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from space.choices import Axes, Choice, Questioner
from space.graph import Graph, Node
from space.layers import cat_downsampler
from space.rules import IMAGE_CHANNELS, WIDEST, require, require_one_of, require_range

StemKind = Literal["cat", "convs", "conv_pool"]

AXES: Axes = {
    "stem.kind": get_args(StemKind),
    "stem.width": (8, 16, 24, 32, 48, 64),
    "stem.kernel": (3, 7),
    "stem.convolutions": (1, 2, 3),
    "stem.image": (False, True),
}


@dataclass(frozen=True, kw_only=True)
class Stem:
    """First layers. `cat`: strided convolution beside a max pool (ENet, ERFNet); `convs`: `convolutions` 3x3
    convolutions, the first strided (FPLNet); `conv_pool`: the same, then a max pool (ResNet, NDNet).

    `image` joins the half-size image to the output (FPLNet).
    """

    kind: StemKind
    width: int
    kernel: int = 3
    convolutions: int = 1
    image: bool = False

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
            not self.image or self.kind == "convs", "stem.image: only a `convs` stem has the half-size image's size"
        )

    @property
    def stride(self) -> int:
        """Stride of the stem's output against the image."""
        return 4 if self.kind == "conv_pool" else 2

    @property
    def out_width(self) -> int:
        """Channels of the stem's output."""
        return self.width + (IMAGE_CHANNELS if self.image else 0)

    @property
    def takes_image_pyramid(self) -> bool:
        """Whether an image pyramid may start with it."""
        return self.kind != "cat" and not self.image

    def add(self, graph: Graph, image: Node, bias: bool) -> Node:
        """Add its layers behind `image`; the last of them."""
        with graph.scope("stem"):
            if self.kind == "cat":
                return cat_downsampler(graph, image, self.width, bias)
            x = image
            for index in range(self.convolutions):
                x = graph.conv(x, self.width, self.kernel, f"conv{index}", step=2 if index == 0 else 1)
                x = graph.norm_act(x, f"conv{index}_")
            if self.kind == "conv_pool":
                x = graph.max_pool(x, 3)
            if self.image:
                # FPLNet activates before and after this normalisation: its channel counts leave no other reading.
                x = graph.act(graph.cat([x, graph.max_pool(image, 2)]), "image_first_act")
                x = graph.norm_act(x, "image_")
            return x

    def answers(self) -> dict[str, Choice]:
        """What each of its questions would have to be answered."""
        return {f"stem.{name}": value for name, value in vars(self).items()}

    def words(self) -> str:
        """For people."""
        kernel = f"{self.kernel}x{self.kernel} convolution{'' if self.convolutions == 1 else 's'}"
        layers = {
            "cat": "3x3 strided convolution beside a max pool",
            "convs": f"{self.convolutions} {kernel}, the first strided",
            "conv_pool": f"{self.convolutions} {kernel}, then a max pool",
        }[self.kind]
        image = ", joined by the half-size image" if self.image else ""
        return f"{layers}; {self.width} channels at stride {self.stride}{image}"


def ask(questions: Questioner) -> Stem:
    """The stem that the answers lead to."""
    kind = questions.text("stem.kind", "stem.kind")
    width = questions.integer("stem.width", "stem.width")
    if kind == "cat":
        return Stem(kind="cat", width=width)
    if kind == "conv_pool":
        return Stem(kind="conv_pool", width=width, kernel=questions.integer("stem.kernel", "stem.kernel"))
    return Stem(
        kind="convs",
        width=width,
        convolutions=questions.integer("stem.convolutions", "stem.convolutions"),
        image=bool(questions.pick("stem.image", "stem.image")),
    )
