"""Narrower and wider architectures by `space.scale`: valid, with the same openings, and otherwise unchanged."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import space
from space import Architecture, ArchitectureError, Space
from space.axes import searched
from space.context import SpatialPyramid
from space.decoders.deconv import DeconvDecoder
from space.decoders.steps import StepwiseDecoder
from space.scale import notches, parts, scale_width, with_part

quiet = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def all_widths(architecture: Architecture) -> list[int]:
    decoder = architecture.decoder
    widths = [architecture.stem.width, *(stage.width for stage in architecture.stages), architecture.head.width]
    if isinstance(architecture.context, SpatialPyramid):
        widths += [architecture.context.bottleneck, architecture.context.level_width]
    elif architecture.context is not None:
        widths.append(architecture.context.width)
    if architecture.detail is not None:
        widths += [part.width for part in architecture.detail.parts]
    if isinstance(decoder, DeconvDecoder):
        return [*widths, decoder.projection, *(step.width for step in decoder.steps)]
    if isinstance(decoder, StepwiseDecoder):
        laterals = [width for step in decoder.steps for width in (step.width, step.lateral)]
        return [*widths, decoder.top, decoder.bin_width, *laterals]
    return widths if decoder is None else [*widths, decoder.width]


@pytest.mark.parametrize("name", space.published())
@pytest.mark.share(3)
def test_scaling_a_published_network_never_makes_it_smaller_as_the_factor_grows(name: str) -> None:
    architecture = space.load(name)
    assert scale_width(architecture, 1.0) == architecture
    factors = [0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.3, 2.0, 3.0]
    parameters = [space.parameters(scale_width(architecture, factor), 19) for factor in factors]
    multiply_adds = [space.multiply_adds(scale_width(architecture, factor), (360, 480), 19) for factor in factors]
    assert parameters == sorted(parameters)
    assert multiply_adds == sorted(multiply_adds)
    assert parameters[2] < parameters[5] < parameters[7]


@quiet
@given(
    seed=st.integers(0, 10_000),
    low=st.floats(0.02, 3.0),
    high=st.floats(0.02, 3.0),
    multiple=st.sampled_from([1, 4, 8]),
)
def test_scaling_is_always_valid_and_never_narrows_as_the_factor_grows(
    seed: int, low: float, high: float, multiple: int
) -> None:
    architecture = Space().sample(random.Random(seed))
    low, high = sorted((low, high))
    narrow, wide = (scale_width(architecture, factor, multiple=multiple) for factor in (low, high))
    assert all(a <= b for a, b in zip(all_widths(narrow), all_widths(wide), strict=True))
    assert [stage.depth for stage in wide.stages] == [stage.depth for stage in architecture.stages]
    assert space.parameters(narrow, 19) > 0
    assert narrow.encoder.grows == wide.encoder.grows == architecture.encoder.grows


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_scaling_preserves_the_way_in_which_stages_open(multiple: int) -> None:
    """An opening has channels of its own beside the incoming ones, or none, which is a different layer."""
    dabnet = space.load("dabnet")
    even = replace(dabnet, stages=(replace(dabnet.stages[0], fuse="none"), replace(dabnet.stages[1], width=64)))
    for architecture in (dabnet, even):
        for hundredths in range(1, 300):
            scaled = scale_width(architecture, hundredths / 100, multiple=multiple)
            assert scaled.encoder.grows == architecture.encoder.grows


@quiet
@given(seed=st.integers(0, 10_000))
def test_scaling_by_one_changes_nothing(seed: int) -> None:
    architecture = Space().sample(random.Random(seed))
    assert scale_width(architecture, 1.0) == architecture


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_factors_that_are_not_positive_numbers_are_refused(factor: float) -> None:
    with pytest.raises(ArchitectureError, match="factor: expected a positive number"):
        scale_width(space.load("erfnet"), factor)


def test_impossible_scalings_are_refused() -> None:
    erfnet = space.load("erfnet")
    with pytest.raises(ArchitectureError, match="multiple: expected at least 1"):
        scale_width(erfnet, 0.5, multiple=0)
    with pytest.raises(ArchitectureError, match="pruned"):
        scale_width(replace(erfnet, channels={"stage0.down.conv": 40}), 0.5)


def test_very_large_factors_end_at_the_widest_architecture() -> None:
    wide = scale_width(space.load("swiftnet-rn18"), 1000)
    assert 4000 < max(stage.width for stage in wide.stages) <= 4096
    assert wide == scale_width(space.load("swiftnet-rn18"), 500)


def test_a_notch_changes_a_single_part_alone() -> None:
    changed = 0
    for seed in range(60):
        architecture = Space(ranges=searched(), size=(180, 240)).sample(random.Random(seed))
        for part in range(parts(architecture)):
            counts = notches(architecture, part, vector=16)
            assert counts[:5] == (-2, -1, 0, 1, 2)
            assert with_part(architecture, part, 0) == architecture
            for count in counts[3:]:
                try:
                    wider = with_part(architecture, part, count)
                except ArchitectureError:  # a downsampler behind it must keep channels of its own
                    continue
                changed += 1
                assert wider != architecture
                widths = [stage.width for stage in architecture.stages]
                now = [stage.width for stage in wider.stages]
                differing = [index for index, pair in enumerate(zip(widths, now, strict=True)) if pair[0] != pair[1]]
                assert differing == ([part] if part < len(widths) else [])
                assert (wider.decoder != architecture.decoder) == (part == len(widths) and wider.decoder is not None)
    assert changed > 500


def test_the_detail_branch_is_one_part() -> None:
    ddrnet = space.load("ddrnet23-slim")
    assert parts(ddrnet) == len(ddrnet.stages) + 2
    wider = with_part(ddrnet, len(ddrnet.stages), 2)
    assert wider.detail is not None
    assert [part.width for part in wider.detail.parts] == [72, 72, 136]
    assert replace(wider, detail=ddrnet.detail) == ddrnet


def test_the_parts_of_a_pruned_network_stay() -> None:
    cut = replace(space.load("erfnet"), channels={"stage0.down.conv": 40})
    with pytest.raises(ArchitectureError, match="cannot widen a pruned architecture"):
        with_part(cut, 0, 1)
