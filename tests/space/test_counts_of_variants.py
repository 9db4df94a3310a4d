"""Counts of crossings and variants of the published networks, and of the trained form of some.

The expected numbers were counted on other code, or by hand from the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import space
from space import Architecture
from space.decoders.steps import StepwiseDecoder
from space.head import Head
from space.scale import scale_width


def narrow_regseg(widths: Sequence[int], depth: int) -> Architecture:
    """RegSeg with narrower stages, so many blocks at stride 8 and ten at 16, and narrower laterals."""
    regseg = space.load("regseg")
    rates = (1, 2, *(4,) * 4, *(10,) * 4)
    first, second, third, last = (
        replace(stage, width=width) for stage, width in zip(regseg.stages, widths, strict=True)
    )
    stages = (
        first,
        replace(second, depth=depth),
        replace(third, rates=rates, depth=len(rates)),
        replace(last, rates=(10,)),
    )
    decoder = regseg.decoder
    assert isinstance(decoder, StepwiseDecoder)
    steps = replace(decoder.steps[0], width=48), replace(decoder.steps[1], width=48, lateral=8)
    return replace(regseg, stages=stages, decoder=replace(decoder, top=64, steps=steps))


def inverted_under_regsegs_decoder() -> Architecture:
    regseg, inverted = space.load("regseg"), space.load("fast-scnn").stages[0]
    rows = ((24, 1), (48, 3), (96, 6))
    return replace(regseg, stages=tuple(replace(inverted, width=width, depth=depth) for width, depth in rows))


@pytest.mark.parametrize(
    ("architecture", "millions", "multiply_adds", "size"),
    [
        (narrow_regseg((48, 96, 192, 256), 3), 1.631903, 1.77, (360, 480)),
        (narrow_regseg((32, 64, 128, 160), 2), 0.816835, 1.06, (360, 480)),
        (inverted_under_regsegs_decoder(), 0.862147, 1.74, (360, 480)),
        (scale_width(space.load("rdrnet-s"), 0.5), 1.81, 2.74, (512, 1024)),
    ],
    ids=["narrow regseg", "narrower regseg", "inverted under regseg's decoder", "rdrnet-s x 0.5"],
)
def test_crossings_have_the_counts_of_other_code(
    architecture: Architecture, millions: float, multiply_adds: float, size: tuple[int, int]
) -> None:
    """Counts are in millions and in 10^9, as printed."""
    digits = len(str(millions).partition(".")[2])
    assert round(space.parameters(architecture, 19) / 1e6, digits) == millions
    assert round(space.multiply_adds(architecture, size, 19) / 1e9, 2) == multiply_adds


@pytest.mark.parametrize(("name", "expected"), [("rdrnet-s", 51_840_090_112), ("rdrnet-s-simple", 49_384_325_120)])
def test_the_trained_form_of_rdrnet_has_the_expected_multiply_adds(name: str, expected: int) -> None:
    assert space.multiply_adds(space.load(name), (1024, 2048), 19, training_form=True) == expected


@pytest.mark.parametrize("name", ["ddrnet23-slim", "erfnet"])
def test_trained_and_running_form_are_the_same_without_reparameterisation(name: str) -> None:
    architecture = space.load(name)
    assert space.multiply_adds(architecture, (64, 96), 19, training_form=True) == space.multiply_adds(
        architecture, (64, 96), 19
    )


@pytest.mark.parametrize("width", [32, 64, 128])
def test_a_dense_head_is_a_3x3_convolution_and_a_classifier(width: int) -> None:
    """Behind STDC1's 64 channels the head has its own weights, a normalisation, and a classifier with a bias."""
    architecture = space.load("stdc1")
    dense = replace(architecture, head=Head(kind="conv3", width=width))
    linear = space.parameters(architecture, 19)
    assert space.parameters(dense, 19) == linear - (64 * 19 + 19) + 9 * 64 * width + 2 * width + width * 19 + 19


def test_ddrnet_without_the_biases_of_its_stem_has_64_parameters_fewer() -> None:
    """mmsegmentation has this variant, which computes the same functions."""
    published = space.load("ddrnet23-slim")
    unbiased = replace(published, stem=replace(published.stem, bias=False))
    assert space.parameters(unbiased, 19) == 5_695_987 - 64
    assert space.parameters(unbiased, 19, auxiliary=True) == 5_734_342 - 64
