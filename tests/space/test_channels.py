"""Groups of channels that are cut together, found by hand in small networks, and parameters of narrowed networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import space
from space import Architecture, ArchitectureError
from space.decoders.ladder import LadderDecoder
from space.head import Head
from space.stage import Stage
from space.stem import Stem

CLASSES = 5


def small_erfnet() -> Architecture:
    """6 channels (3 made, 3 the image's), then 10 (4 made, 6 pooled), one non-bt-1D block, a 1x1 head."""
    parent = space.load("erfnet-encoder")
    return replace(
        parent,
        stem=replace(parent.stem, width=6),
        stages=(replace(parent.stages[0], width=10, depth=1),),
    )


def small_fplnet() -> Architecture:
    """8 channels, then an FPL downsampler and one FPL module of 16; no fusion, no image."""
    parent = space.load("fplnet-encoder")
    return replace(
        parent,
        stem=Stem(kind="convs", width=8),
        stages=(replace(parent.stages[0], width=16, depth=1, fuse="none"),),
    )


def small_ndnet() -> Architecture:
    """8 channels, then two narrow bottlenecks of 16 around 4; the first projects its shortcut."""
    parent = space.load("ndnet45-fcn32")
    return replace(
        parent, stages=(replace(parent.stages[0], width=16, depth=2),), head=Head(kind="linear"), auxiliary=()
    )


def small_pyramid() -> Architecture:
    """Two levels over two stages of basic blocks, and a ladder."""
    parent = space.load("swiftnet-rn18-pyramid")
    stages = tuple(
        replace(stage, width=width, depth=1) for stage, width in zip(parent.stages[:2], (8, 12), strict=True)
    )
    return replace(parent, stem=replace(parent.stem, width=8), stages=stages, levels=2, decoder=LadderDecoder(width=10))


def test_a_small_erfnet_has_the_groups_found_by_hand() -> None:
    """The image's three pooled channels cannot be cut, so they are in no group; 13 of a stem of 16 are its own."""
    assert space.groups(small_erfnet()) == {
        "stem.conv": 3,  # also pooled into the stage, whose block adds to it
        "stage0.down.conv": 4,
        "stage0.block0.1_3x1": 10,
        "stage0.block0.1_1x3": 10,
        "stage0.block0.2_3x1": 10,  # the 1x3 after it adds to the stage's channels: no group of its own
    }


def test_erfnet_has_the_groups_found_by_hand() -> None:
    groups = space.groups(space.load("erfnet"))
    assert (groups["stem.conv"], groups["stage0.down.conv"], groups["stage1.down.conv"]) == (13, 48, 64)
    inner = {f"stage0.block{index}.{part}" for index in range(5) for part in ("1_3x1", "1_1x3", "2_3x1")}
    inner |= {f"stage1.block{index}.{part}" for index in range(8) for part in ("1_3x1", "1_1x3", "2_3x1")}
    assert {name for name in groups if name.startswith(("stage0.block", "stage1.block"))} == inner
    assert {groups[name] for name in inner if name.startswith("stage0")} == {64}
    assert {groups[name] for name in inner if name.startswith("stage1")} == {128}
    assert (groups["decoder.step0.up"], groups["decoder.step1.up"]) == (64, 16)
    assert not any(name.startswith("head") for name in groups)


def test_a_small_fplnet_has_the_groups_found_by_hand() -> None:
    """Pairwise fusion ties rate 2 to rate 4 and rate 8 to rate 16; the residual ties the module to the downsampler."""
    free = {f"stage0.{part}.{layer}": 4 for part in ("down", "block0") for layer in ("reduce", "first")}
    inner = {f"stage0.{part}.rate{rate}.3x1": 4 for part in ("down", "block0") for rate in (2, 4, 8, 16)}
    pairs = {"stage0.down.rate2.1x3": 4, "stage0.down.rate8.1x3": 4}
    assert space.groups(small_fplnet()) == {"stem.conv0": 8, **free, **inner, **pairs}


def test_other_fusions_of_fplnet_tie_other_channels() -> None:
    def outputs(fusion: str) -> dict[str, int]:
        parent = small_fplnet()
        changed = replace(parent, stages=(replace(parent.stages[0], pairwise_fusion=fusion),))  # type: ignore[arg-type]
        names = ("1x3", "first")
        return {name: count for name, count in space.groups(changed).items() if name.endswith(names)}

    # The first convolution's output is added to every branch, and the next module's to the same channels.
    assert outputs("stage1") == {"stage0.down.first": 4}
    assert outputs("pairs_partial") == {
        "stage0.down.first": 4,
        "stage0.down.rate2.1x3": 4,
        "stage0.down.rate8.1x3": 4,
        "stage0.block0.first": 4,
    }


def test_a_small_ndnet_has_the_groups_found_by_hand() -> None:
    """Depthwise convolutions follow their input; both bottlenecks and the projection share the stage's channels."""
    assert space.groups(small_ndnet()) == {
        "stem.conv0": 8,
        "stage0.block0.1_pointwise": 4,
        "stage0.block0.2_pointwise": 16,
        "stage0.block1.1_pointwise": 4,
    }


def test_a_small_pyramid_has_the_groups_found_by_hand() -> None:
    """Both levels run the same convolutions. The first stage adds to the stem's channels, without a projection."""
    assert space.groups(small_pyramid()) == {
        "stem.conv0": 8,
        "stage0.block0.1_3x3": 8,
        "stage1.block0.1_3x3": 12,
        "stage1.block0.2_3x3": 12,
        "decoder.lateral0": 10,  # all laterals are added to the outputs of blends
        "decoder.blend4": 10,
    }


def test_in_a_pyramid_a_cut_applies_to_all_levels() -> None:
    narrow = replace(small_pyramid(), channels={"stem.conv0": 5, "stage1.block0.1_3x3": 7})
    network = narrow.build(CLASSES)
    state = network.state_dict()
    for level in range(2):
        assert state[f"stem.conv0_norm_level{level}.weight"].shape == (5,)
        assert state[f"stage0.block0.2_norm_level{level}.weight"].shape == (5,)
        assert state[f"stage1.block0.1_norm_level{level}.weight"].shape == (7,)
    assert state["stage1.block0.projection.weight"].shape == (12, 5, 1, 1)
    assert network.eval()(torch.rand(1, 3, 40, 56)).shape == (1, CLASSES, 40, 56)


def erfnet_by_hand(stem: int, down: int, first: int, middle: int, last: int) -> int:
    read, width = stem + 3, down + stem + 3
    stem_layers = 27 * stem + stem + 2 * read
    downsampler = 9 * read * down + down + 2 * width
    first_pair = (3 * width * first + first) + (3 * first * middle + middle) + 2 * middle
    second_pair = (3 * middle * last + last) + (3 * last * width + width) + 2 * width
    return stem_layers + downsampler + first_pair + second_pair + width * CLASSES + CLASSES


def fplnet_by_hand(stem: int, modules: tuple[tuple[int, ...], tuple[int, ...]], slow: int, fast: int) -> int:
    """`modules`: reduce, first and four inner widths of each; `slow`, `fast`: channels that a pair of branches has."""
    width = 2 * slow + 2 * fast
    total, read = 27 * stem + 3 * stem, stem
    for index, (reduce, first, *inner) in enumerate(modules):
        total += read * reduce + (reduce if index == 0 else 0) + 9 * reduce * first
        for middle, out in zip(inner, (slow, slow, fast, fast), strict=True):
            total += 3 * first * middle + middle + 3 * middle * out
        total, read = total + 3 * width, width
    return total + width * CLASSES


def ndnet_by_hand(stem: int, first: int, width: int, second: int) -> int:
    def separable(read: int, out: int) -> int:
        return 9 * read + read * out + 2 * out

    opening = separable(stem, first) + separable(first, width) + separable(stem, width)
    block = separable(width, second) + separable(second, width)
    return 27 * stem + 2 * stem + opening + block + width * CLASSES + CLASSES


quick = settings(max_examples=30, deadline=None)


def narrowed(architecture: Architecture, counts: tuple[int, ...]) -> Architecture:
    """The architecture with its groups, in their order, narrowed to `counts`."""
    return replace(architecture, channels=dict(zip(space.groups(architecture), counts, strict=True)))


def parameters_of(narrow: Architecture) -> set[int]:
    """Parameters of an architecture as counted, as built, and after YAML."""
    again = Architecture.from_yaml(narrow.to_yaml())
    built = sum(parameter.numel() for parameter in narrow.build(CLASSES).parameters())
    return {space.parameters(narrow, CLASSES), built, space.parameters(again, CLASSES)}


@quick
@given(st.tuples(st.integers(1, 3), st.integers(1, 4), *[st.integers(1, 10)] * 3))
def test_a_narrowed_erfnet_has_the_parameters_of_hand_computation(counts: tuple[int, ...]) -> None:
    narrow = narrowed(small_erfnet(), counts)
    assert tuple(space.groups(narrow).values()) == counts
    assert parameters_of(narrow) == {erfnet_by_hand(*counts)}
    assert narrow.without_channels() == small_erfnet()


@quick
@given(st.tuples(st.integers(1, 8), *[st.integers(1, 4)] * 14))
def test_a_narrowed_fplnet_has_the_parameters_of_hand_computation(counts: tuple[int, ...]) -> None:
    stem, *rest = counts
    order = [name.removeprefix("stage0.") for name in list(space.groups(small_fplnet()))[1:]]
    by_name = dict(zip(order, rest, strict=True))
    modules = tuple(
        (by_name[f"{part}.reduce"], by_name[f"{part}.first"], *(by_name[f"{part}.rate{r}.3x1"] for r in (2, 4, 8, 16)))
        for part in ("down", "block0")
    )
    expected = fplnet_by_hand(stem, modules, by_name["down.rate2.1x3"], by_name["down.rate8.1x3"])  # type: ignore[arg-type]
    narrow = narrowed(small_fplnet(), counts)
    assert tuple(space.groups(narrow).values()) == counts
    assert parameters_of(narrow) == {expected}
    assert narrow.without_channels() == small_fplnet()


@quick
@given(st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 16), st.integers(1, 4)))
def test_a_narrowed_ndnet_has_the_parameters_of_hand_computation(counts: tuple[int, ...]) -> None:
    narrow = narrowed(small_ndnet(), counts)
    assert tuple(space.groups(narrow).values()) == counts
    assert parameters_of(narrow) == {ndnet_by_hand(*counts)}
    assert narrow.without_channels() == small_ndnet()


def test_a_group_at_its_full_size_is_not_cut() -> None:
    for name in space.published():
        architecture = space.load(name)
        counts = space.groups(architecture)
        full = replace(architecture, channels=counts)
        assert (full, full.key) == (architecture, architecture.key)
        assert full.is_reparameterized == architecture.is_reparameterized
        cut = {group: space.granules(architecture)[group] for group in list(counts)[:1]}
        assert replace(architecture, channels={**counts, **cut}).channels == cut


@pytest.mark.share(3)
def test_random_networks_run_with_one_granule_left_in_every_group(random_architecture: Architecture) -> None:
    groups = space.groups(random_architecture)
    assert all(count >= 1 for count in groups.values())
    thinnest = replace(random_architecture, channels=space.granules(random_architecture))
    network = thinnest.build(CLASSES, auxiliary=True).eval()
    with torch.no_grad():
        assert all(output.shape == (1, CLASSES, 45, 61) for output in network.outputs(torch.rand(1, 3, 45, 61)))
    counted = space.parameters(thinnest, CLASSES, auxiliary=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == counted
    assert counted < space.parameters(random_architecture, CLASSES, auxiliary=True)


@pytest.mark.share(3)
def test_cutting_any_single_granule_makes_a_smaller_network(random_architecture: Architecture) -> None:
    full, granules = space.parameters(random_architecture, CLASSES), space.granules(random_architecture)
    for name, count in list(space.groups(random_architecture).items())[:40]:
        less = count - granules[name]
        if less:
            assert space.parameters(replace(random_architecture, channels={name: less}), CLASSES) < full


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"stem.cnov": 2}, "no group is called 'stem.cnov'; did you mean 'stem.conv'"),
        ({"stage0.block0.2_1x3": 2}, "no group is called"),  # it adds to the stage, whose groups can be cut
        ({"head.logits": 2}, "no group is called"),
        ({"stem.conv": 0}, "expected 1 to 3 channels in 'stem.conv', got 0"),
        ({"stem.conv": 4}, "expected 1 to 3 channels in 'stem.conv', got 4; widen the stage instead"),
        ({"stem.conv": -1}, "got -1"),
    ],
)
def test_impossible_channels_are_refused(channels: dict[str, int], message: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        replace(small_erfnet(), channels=channels)
    assert message in str(caught.value)


def test_groups_do_not_depend_on_classes_or_auxiliary_heads() -> None:
    ndnet = space.load("ndnet45-ende")
    assert space.groups(ndnet) == space.groups(replace(ndnet, auxiliary=()))
    extra = space.parameters(ndnet, 20) - space.parameters(ndnet, 19)
    narrow = replace(ndnet, channels={"head.pointwise": 30})
    assert extra == 64 + 1
    assert space.parameters(narrow, 20) - space.parameters(narrow, 19) == 30 + 1


def test_a_narrowed_stage_is_narrower_in_all_its_readers() -> None:
    """SwiftNet's second stage: its convolutions, projection and lateral all lose the same channels."""
    stages = tuple(
        Stage(block="nonbt", width=width, depth=2, stride=stride) for width, stride in ((8, 1), (12, 2), (16, 2))
    )
    parent = space.load("swiftnet-rn18")
    narrow = replace(parent, stages=stages, context=None, channels={"stage1.block0.2_3x3": 9})
    state = narrow.build(CLASSES).state_dict()
    for name, shape in {
        "stage1.block0.2_3x3": (9, 12, 3, 3),
        "stage1.block0.projection": (9, 8, 1, 1),
        "stage1.block1.1_3x3": (12, 9, 3, 3),
        "stage1.block1.2_3x3": (9, 12, 3, 3),
        "stage2.block0.1_3x3": (16, 9, 3, 3),
        "stage2.block0.projection": (16, 9, 1, 1),
        "decoder.lateral1": (128, 9, 1, 1),
    }.items():
        assert state[f"{name}.weight"].shape == shape
