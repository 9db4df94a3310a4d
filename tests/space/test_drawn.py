"""Options of a narrowed space that no network of it can have are found."""

from __future__ import annotations

import pytest

from space import Space
from space.axes import searched
from space.choices import Axes
from space.drawn import never_drawn
from space.errors import ArchitectureError


def never(narrowed: Axes) -> Axes:
    """The options that a search reports as impossible in a space narrowed in this way."""
    return never_drawn(Space(ranges={**searched(), **narrowed}), narrowed)[1]


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({"block": ("nonbt", "sep"), "detail": ("none", "both"), "detail.width": (64,)}, {}),
        ({"detail": ("none",), "detail.width": (64,)}, {"detail.width": (64,)}),
        ({"stem.kind": ("cat",), "stem.image": (True,)}, {"stem.image": (True,)}),
        ({"levels": (2,), "decoder": ("cat",)}, {"levels": (2,)}),
        ({"block": ("nonbt",), "stage.expansion": (6,)}, {"stage.expansion": (6,)}),
        ({"head.shuffle": (1, 3)}, {"head.shuffle": (3,)}),
        ({"stage.depth": (3, 100), "stem.kernel": (3, 4)}, {"stage.depth": (100,), "stem.kernel": (4,)}),
        ({"levels": (1, 2), "label_stride": (1, 8)}, {}),
    ],
)
def test_options_that_no_network_has_are_reported(narrowed: Axes, expected: Axes) -> None:
    assert never(narrowed) == expected


@pytest.mark.parametrize(
    ("axis", "narrowed", "words"),
    [
        ("detail", {"detail": ("both",), "decoder": ("steps",)}, "needs a network without a decoder"),
        ("detail", {"detail": ("up",), "block": ("dab",)}, "and blocks that can open at stride 1"),
        ("context", {"context": ("spp",), "decoder": ("deconv",)}, "a context needs a ladder"),
        ("fuse", {"fuse": ("fir",), "down": ("block",)}, "down block has no downsampler"),
        ("factorization", {"factorization": ("all",), "block": ("sep",)}, "none of these blocks can be factorized"),
    ],
)
def test_an_axis_narrowed_to_an_impossible_option_is_refused(axis: str, narrowed: Axes, words: str) -> None:
    with pytest.raises(ArchitectureError) as refused:
        never(narrowed)
    held_to = list(narrowed[axis])
    assert f"space.{axis}: no network of this space can have one of {held_to}: " in str(refused.value)
    assert words in str(refused.value)


def test_a_space_without_networks_is_refused_with_the_reason() -> None:
    with pytest.raises(ArchitectureError, match=r"label_stride: .* \(all 300 draws failed; this is the last error\)"):
        never({"label_stride": (16,)})
