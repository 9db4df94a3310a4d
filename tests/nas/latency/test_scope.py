"""The scope of a timed call: the steps from logits to labels that are inside."""

from __future__ import annotations

from dataclasses import replace

import pytest

import space
from nas.latency.protocol import SCOPE
from nas.latency.scope import scope_of
from space import Architecture

NOT_INSIDE = "no copy of the image in or the labels out"


def shuffled(name: str, factor: int) -> Architecture:
    architecture = space.load(name)
    return replace(architecture, head=replace(architecture.head, shuffle=factor))


@pytest.mark.parametrize("name", space.published())
def test_published_networks_end_in_an_interpolation_to_the_images_size(name: str) -> None:
    assert scope_of(space.load(name)) == SCOPE


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (
            replace(space.load("fast-scnn"), label_stride=2),
            "network, upsampling to 1/2 of the input size, arg-max to labels of 2x2 pixels each",
        ),
        (replace(space.load("fast-scnn"), label_stride=8), "network, arg-max to labels of 8x8 pixels each"),
        (shuffled("fast-scnn", 2), "network, pixel shuffle by 2, upsampling to the input size, arg-max to labels"),
        (shuffled("fast-scnn", 8), "network, pixel shuffle by 8, arg-max to labels"),
        (
            replace(shuffled("fast-scnn", 2), label_stride=4),
            "network, pixel shuffle by 2, arg-max to labels of 4x4 pixels each",
        ),
    ],
)
def test_cheaper_outputs_are_named_in_the_scope(architecture: Architecture, expected: str) -> None:
    assert scope_of(architecture) == f"{expected}; {NOT_INSIDE}"
