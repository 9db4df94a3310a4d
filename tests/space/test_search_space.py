"""`Space`: everything it offers can be built, everything published is in it, and ranges bind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import space
from space import Architecture, ArchitectureError, Space
from space.axes import ranges, searched
from space.choices import NEWER, OPENED, Choice
from space.context import PoolingPyramid
from space.scale import scale_width
from space.stem import Stem

quiet = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def draws() -> list[Architecture]:
    return draw_many(Space(), 1000)


def draw_many(within: Space, count: int = 50) -> list[Architecture]:
    rng = random.Random(4)
    return [within.sample(rng) for _ in range(count)]


def replay(architecture: Architecture, within: Space) -> Architecture:
    """What `choose` makes of an architecture's genotype, asking for nothing that the genotype does not hold."""
    genotype = within.genotype(architecture)
    asked: list[str] = []

    def answer(name: str, options: Sequence[Choice]) -> Choice:
        asked.append(name)
        assert genotype[name] in options
        return genotype[name]

    result = within.choose(answer)
    assert set(asked) == set(genotype)
    assert len(asked) == len(genotype)
    return result


def test_draws_are_valid_and_all_different(draws: list[Architecture]) -> None:
    """Construction checks validity, so having them is the proof that all questions lead somewhere."""
    assert len(set(draws[:300])) > 295
    assert all(1 <= len(draw.stages) <= 12 for draw in draws)
    assert all(8 <= draw.output_stride <= (64 if draw.detail else 32) for draw in draws)


@pytest.mark.parametrize(
    ("count", "fewest", "fewest_pyramids"), [(1000, 7, 1), pytest.param(13_000, 30, 30, marks=pytest.mark.slow)]
)
def test_draws_hold_every_option_of_every_discrete_trait(
    draws: list[Architecture], count: int, fewest: int, fewest_pyramids: int
) -> None:
    """Of image pyramids, which few architectures can have, there are fewer."""
    drawn = draws if count == len(draws) else draw_many(Space(), count)

    def kinds(trait: Sequence[object]) -> Counter[object]:
        return Counter(trait)

    seen = {
        "block": kinds([draw.stages[0].block for draw in drawn]),
        "factorization": kinds([draw.stages[0].factorization for draw in drawn]),
        "down": kinds([draw.stages[0].down for draw in drawn]),
        "fuse": kinds([draw.stages[0].fuse for draw in drawn]),
        "stem.kind": kinds([draw.stem.kind for draw in drawn]),
        "decoder": kinds(["none" if draw.decoder is None else draw.decoder.kind for draw in drawn]),
        "levels": kinds([draw.levels for draw in drawn]),
        "context": kinds(["none" if draw.context is None else draw.context.kind for draw in drawn]),
        "detail": kinds(["none" if draw.detail is None else draw.detail.exchange for draw in drawn]),
        "activation": kinds([draw.activation for draw in drawn]),
        "rep": kinds([draw.rep for draw in drawn]),
        "head": kinds([draw.head.kind for draw in drawn if draw.head.kind != "deconv2"]),  # ERFNet's decoder's own
        "label_stride": kinds([draw.label_stride for draw in drawn]),
        "head.shuffle": kinds([draw.head.shuffle for draw in drawn]),
        "stem.separable": kinds([draw.stem.separable for draw in drawn]),
    }
    for axis, counts in seen.items():
        assert set(counts) == set(ranges()[axis]), axis
        assert min(counts.values()) >= (fewest_pyramids if axis == "levels" else fewest), axis


def test_image_pyramids_are_drawn_if_the_decoder_allows_them() -> None:
    ladders = Space(ranges={"block": ("nonbt",), "down": ("block",), "decoder": ("ladder",)})
    levels = Counter(draw.levels for draw in draw_many(ladders, 100))
    assert set(levels) == set(ranges()["levels"])
    assert min(levels.values()) >= 7


@pytest.mark.slow
def test_draws_reach_from_tiny_to_huge(draws: list[Architecture]) -> None:
    counts = sorted(space.parameters(draw, 19) for draw in draws[:400])
    assert counts[0] < 100_000
    assert counts[-1] > 20_000_000


def test_the_same_seed_draws_the_same() -> None:
    first, second = (Space().sample(random.Random(3)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", space.published())
@pytest.mark.share(3)
def test_every_published_network_is_a_point_of_the_space(name: str) -> None:
    architecture = space.load(name)
    assert replay(architecture, Space(size=(1024, 2048))) == architecture


def test_random_architectures_are_rebuilt_from_their_genotypes(draws: list[Architecture]) -> None:
    for draw in draws[:200]:
        assert replay(draw, Space()) == draw


@pytest.mark.slow
def test_re_parameterised_draws_have_a_convolution_of_several_paths(draws: list[Architecture]) -> None:
    for draw in draws[:300]:
        graph = replace(draw, rep=draw.has_plain_convolutions and draw.levels == 1, stem=unbiased(draw)).graph(1)
        assert any(node.paths for node in graph.nodes) == (draw.has_plain_convolutions and draw.levels == 1)


def unbiased(architecture: Architecture) -> Stem:
    return replace(architecture.stem, bias=False)


def test_genotypes_hold_scalars_only(draws: list[Architecture]) -> None:
    for draw in draws[:100]:
        genotype = Space().genotype(draw)
        assert all(type(value) in (int, float, str, bool) for value in genotype.values())
        assert all("/" not in name for name in genotype)


def test_an_architecture_outside_the_space_is_refused_with_the_question() -> None:
    erfnet = space.load("erfnet")
    stages = (replace(erfnet.stages[0], width=60), erfnet.stages[1])
    with pytest.raises(ArchitectureError, match=r"stage0\.width = 60 is not among"):
        Space().genotype(replace(erfnet, stages=stages))
    with pytest.raises(ArchitectureError, match=r"block = 'nonbt' is not among \['sep'\]"):
        Space(ranges={"block": ("sep",)}).genotype(erfnet)
    with pytest.raises(ArchitectureError, match="no axis"):
        Space().genotype(replace(erfnet, channels={"stage0.down.conv": 40}))
    mixed = (replace(erfnet.stages[0], factorization="composite"), erfnet.stages[1])
    with pytest.raises(ArchitectureError, match="no axis"):
        Space().genotype(replace(erfnet, stages=mixed))


@pytest.mark.parametrize("axis", [*NEWER, "block", "decoder", "activation", "stage.depth"])
def test_genotypes_of_another_space_are_carried_over_if_their_network_is_in_the_space(
    axis: str, draws: list[Architecture]
) -> None:
    """Both ways: in a space that was narrowed since, and in one that was opened; at whatever width it was built."""
    outside = 0
    for draw in draws[:40]:
        for option in ranges()[axis][:3]:
            narrow = Space(ranges={axis: (option,)})
            try:
                expected = narrow.genotype(draw)
            except ArchitectureError:
                expected, outside = None, outside + 1
            built = scale_width(draw, 0.5)
            assert narrow.point(Space().genotype(draw), built) == expected
            assert expected is None or Space().point(expected, built) == Space().genotype(draw)
    assert outside


# For an axis: where in a sampled architecture its answers can be read. An axis that was not asked gives none.
def answers_on(axis: str, genotype: dict[str, Choice]) -> list[Choice]:
    if axis.startswith("stage."):
        leaf = axis.split(".")[1]
        return [value for name, value in genotype.items() if name.startswith("stage") and name.endswith(f".{leaf}")]
    if axis == "decoder.width":
        return [value for name, value in genotype.items() if name.startswith("decoder.") and name.endswith(".width")]
    return [genotype[axis]] if axis in genotype else []


@quiet
@given(data=st.data())
def test_a_narrowed_range_binds(data: st.DataObject) -> None:
    axis = data.draw(st.sampled_from(sorted(ranges())))
    options = tuple(data.draw(st.lists(st.sampled_from(ranges()[axis]), min_size=1, max_size=2, unique=True)))
    narrow = Space(ranges={axis: options})
    rng = random.Random(data.draw(st.integers(0, 1000)))
    drawn = 0
    for _ in range(8):
        answers: dict[str, Choice] = {}

        def answer(name: str, offered: Sequence[Choice], answers: dict[str, Choice] = answers) -> Choice:
            answers[name] = rng.choice(offered)
            return answers[name]

        try:
            narrow.choose(answer)
        except ArchitectureError:  # a narrow range can be out of reach after earlier answers
            continue
        drawn += 1
        assert set(answers_on(axis, answers)) <= set(options)
    assume(drawn)


def test_the_searched_ranges_are_part_of_all_ranges() -> None:
    for axis, options in searched().items():
        assert set(options) <= set(ranges()[axis])
    narrowed = Space(ranges=searched())
    rng = random.Random(1)
    for _ in range(300):
        draw = narrowed.sample(rng)
        assert draw.levels == 1
        assert draw.auxiliary == ()
        assert draw.stages[0].block in ("nonbt", "fpl", "sep", "inverted", "stdc", "dblock", "dab")


@pytest.mark.parametrize(
    ("ranges", "axis"),
    [
        ({"block": ("sep",), "down": ("module",)}, "space.stages"),
        ({"block": ("fpl",), "stage.rates": ("1",)}, "space.stage.rates"),
        ({"block": ("fpl",), "stages": (7,)}, "space.stages"),
        ({"block": ("nonbt",), "factorization": ("all",), "down": ("block",)}, "space.stages"),
        ({"decoder": ("ladder",), "levels": (2,), "block": ("sep",)}, "space.levels"),
        ({"decoder": ("ladder",), "block": ("sep",), "stages": (1,), "stem.kind": ("convs",)}, "space.decoder"),
        ({"decoder": ("cat",), "stages": (1,), "stem.kind": ("conv_pool",)}, "space.decoder"),
        ({"block": ("sep",), "stage.expansion": (6,), "stage.width": (16,)}, "space.stages"),
        ({"decoder.width": (18,), "block": ("fpl",), "decoder": ("deconv",)}, "space.decoder"),
        ({"stage.width": (-16,)}, "stage"),
        ({"stages": (99,), "down": ("block",)}, "stages"),
    ],
)
def test_impossible_ranges_are_refused_with_the_axis(ranges: dict[str, tuple[Choice, ...]], axis: str) -> None:
    with pytest.raises(ArchitectureError, match=axis.replace(".", r"\.")):
        draw_many(Space(ranges=ranges))


AXES_THAT_CAN_BE_FIXED = ("block", "down", "fuse", "stem.kind", "stages", "stage.width", "decoder", "activation")


@pytest.mark.parametrize("axis", [*AXES_THAT_CAN_BE_FIXED, "stage.expansion"])
def test_fixing_a_single_axis_leaves_networks_to_build(axis: str) -> None:
    for option in ranges()[axis]:
        assert len(draw_many(Space(ranges={axis: (option,)}), 15)) == 15


FIXED_TOGETHER: dict[str, dict[str, tuple[Choice, ...]]] = {
    "rates larger than the coarsest maps": {"block": ("dblock",), "stage.rates": ("14",)},
    "an expansion that few widths have": {"block": ("sep",), "stage.expansion": (6,)},
    "a branch": {"detail": ("both",), "decoder": ("none",)},
    "a branch where a decoder is none": {"detail": ("up",)},
    "a branch without another end": {"detail": ("up",), "decoder": ("none",), "detail.bottles": (0,)},
    "a branch that begins late": {"detail": ("up",), "decoder": ("none",), "detail.stride": (16,)},
    "a branch beside few stages": {"detail": ("up",), "decoder": ("none",), "stages": (2, 3)},
    "something re-parameterised": {"rep": (True,)},
    "something re-parameterised in plain blocks": {"rep": (True,), "block": ("plain",)},
    "something re-parameterised that is no block": {"rep": (True,), "block": ("sep",)},
    "something re-parameterised, and a branch": {"rep": (True,), "detail": ("both",), "decoder": ("none",)},
    "something re-parameterised in a stem": {"rep": (True,), "block": ("sep",), "decoder": ("cat",)},
    "as wide as there is, and bottlenecks twice as wide": {"stage.width": (4096,), "detail.bottles": (1,)},
}


@pytest.mark.share(4)
@pytest.mark.parametrize("fixed", FIXED_TOGETHER)
def test_fixed_axes_bind_the_questions_before_them(fixed: str) -> None:
    narrow = Space(ranges=FIXED_TOGETHER[fixed])
    draws = draw_many(narrow)
    assert len({draw.key for draw in draws}) > 40
    for draw in draws[:5]:
        assert replay(draw, narrow) == draw
        assert draw.rep or True not in FIXED_TOGETHER[fixed].get("rep", ())
        assert draw.detail is not None or draw.decoder is not None or "detail" not in FIXED_TOGETHER[fixed]


def test_numbers_that_only_a_kind_has_bind_its_widths_and_rates() -> None:
    """D blocks are whole groups wide, and have two halves of whole groups where a rate is above 1."""
    alone: dict[str, tuple[Choice, ...]] = {"block": ("dblock",), "detail.bottles": (0,)}
    coarse = {**alone, "dblock.group": (32,), "stage.rates": ("1", "4")}
    for draw in draw_many(Space(ranges=coarse)):
        assert all(stage.width % (32 if stage.rates == (1,) else 64) == 0 for stage in draw.stages)
    fine = {**alone, "dblock.group": (8, 16), "stage.width": (24, 32)}
    groups = {stage.block_options["group"] for draw in draw_many(Space(ranges=fine)) for stage in draw.stages}
    assert groups == {8, 16}
    with pytest.raises(ArchitectureError, match=r"space\.stages"):
        draw_many(Space(ranges={**coarse, "stage.width": (48,)}))


def test_a_pooling_grid_larger_than_the_feature_map_is_not_offered() -> None:
    ranges = {"decoder": ("ladder",), "context": ("spp",), "context.grids": ("8-4-2",)}
    with pytest.raises(ArchitectureError, match=r"space\.context"):
        draw_many(Space(ranges=ranges, size=(32, 48)))


@pytest.mark.parametrize(
    ("ranges", "size"),
    [
        ({"detail": ("both", "up"), "decoder": ("none",)}, (180, 240)),
        ({"detail": ("none", "both")}, (180, 240)),
        ({"decoder": ("none",), "detail.bottles": (1, 2)}, (90, 120)),
        ({"decoder": ("ladder",)}, (90, 120)),
        ({"decoder": ("none", "ladder"), "rep": (True,), "stem.kind": ("cat",)}, (90, 120)),
    ],
)
def test_an_encoder_ends_where_the_requested_context_has_room(
    ranges: dict[str, tuple[Choice, ...]], size: tuple[int, int]
) -> None:
    space_of = Space(ranges={**ranges, "context": ("pyramid",)}, size=size)
    rng = random.Random(0)
    for _ in range(60):
        architecture = space_of.sample(rng)
        if architecture.context is not None:
            assert isinstance(architecture.context, PoolingPyramid)
            assert max(architecture.context.strides) < -(-min(size) // architecture.output_stride)


def test_an_encoder_ends_where_a_decoder_has_room() -> None:
    narrow: dict[str, tuple[Choice, ...]] = {"decoder": ("steps",), "decoder.bins": ("1-2-3-6",)}
    assert all(draw.output_stride <= 16 for draw in draw_many(Space(ranges=narrow, size=(90, 120))))


def test_a_size_without_room_for_the_requested_parts_is_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ArchitectureError, match=r"space\.decoder: none of \['steps'\] is possible at 32x48; add"):
        Space(ranges={"decoder": ("steps",), "decoder.bins": ("1-2-3-6",)}, size=(32, 48)).sample(rng)
    with pytest.raises(ArchitectureError, match=r"space\.context: none of \['pyramid'\] is possible at 32x48; add"):
        Space(ranges={"decoder": ("none",), "context": ("pyramid",)}, size=(32, 48)).sample(rng)


def test_a_dilation_larger_than_the_feature_map_is_not_offered() -> None:
    rng = random.Random(0)
    for _ in range(300):
        draw = Space(ranges={"block": ("nonbt", "sep")}, size=(64, 96)).sample(rng)
        stride = draw.stem.stride
        for stage in draw.stages:
            stride *= stage.stride
            assert max(stage.rates) <= max(1, -(-64 // stride))


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"stage.widht": (16,)}, "no axis is called 'stage.widht'; did you mean 'stage.width'"),
        ({"stage.width": ()}, "space.stage.width: expected at least one option"),
        ({"stage.width": ("16",)}, "space.stage.width: expected values like 16, got '16'"),
        ({"stage.width": (True,)}, "space.stage.width: expected values like 16, got True"),
        ({"stage.rates": ("2-x",)}, "space.stage.rates: expected numbers like '2-4-8', got '2-x'"),
        ({"context.grids": ("4-0",)}, "space.context.grids: expected numbers"),
        ({"decoder": ("laddr",)}, "space.decoder: there is no 'laddr'; did you mean 'ladder'"),
        ({"head": ("deconv2",)}, "space.head: there is no 'deconv2'"),
    ],
)
def test_meaningless_ranges_are_refused(ranges: dict[str, tuple[Choice, ...]], message: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Space(ranges=ranges)
    assert message in str(caught.value)


def test_a_size_without_pixels_is_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"space\.size"):
        Space(size=(0, 480))


def test_ranges_can_go_beyond_the_published_values() -> None:
    wide = Space(ranges={"stage.width": (40, 80, 120), "block": ("sep",), "stage.expansion": (4,), "detail": ("none",)})
    draw = wide.sample(random.Random(0))
    assert {stage.width for stage in draw.stages} <= {40, 80, 120}
    assert replay(draw, wide) == draw


@pytest.mark.share(3)
def test_random_architectures_run_at_the_size_of_their_space(
    random_architecture: Architecture, tiny_space: Space
) -> None:
    network = random_architecture.build(3).train()
    logits = network(torch.rand(2, 3, *tiny_space.size, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 3, *tiny_space.size)
    assert torch.isfinite(logits).all()
    assert replay(random_architecture, tiny_space) == random_architecture


@pytest.mark.parametrize("block", ["dblock", "dab"])
def test_split_dilations_reach_no_farther_than_half_of_a_map(block: str) -> None:
    """At 360x480 a map at stride 16 has 23 rows: rate 14 is not drawn there, as it is on larger images."""
    farthest = []
    for size in ((360, 480), (1024, 2048)):
        drawn = draw_many(Space(ranges={"stages": (3, 4), "block": (block,)}, size=size), 60)
        coarse = [
            (max(stage.rates), -(-size[0] // stride))
            for each in drawn
            for stage, stride in zip(each.stages, each.encoder.strides, strict=True)
            if stride >= 16 and stage.rates != (1,)
        ]
        assert all(rate <= rows / 2 for rate, rows in coarse)
        farthest.append(max(rate for rate, _ in coarse))
    assert farthest[0] <= 11 < farthest[1]


def test_a_split_dilated_block_that_strides_is_undilated() -> None:
    drawn = draw_many(Space(ranges={"block": ("dblock",)}), 60)
    opening = [stage.rates for each in drawn for stage in each.stages if stage.stride > 1]
    following = [stage.rates for each in drawn for stage in each.stages if stage.stride == 1]
    assert {rates[0] for rates in opening} == {1}
    assert {rates[0] for rates in following} > {1}
    dilated = Space(ranges={"block": ("dblock",), "stage.rates": ("2", "4")})  # where a study wants nothing else
    assert all(stage.rates[0] > 1 for each in draw_many(dilated, 5) for stage in each.stages)


SIZES = [(120, 160), (180, 240), (360, 480)]
UNLIKE = (
    "ndnet29w-fcn32", "rdrnet-s", "rdrnet-s-simple", "regseg", "stdc1", "swiftnet-mnv2", "swiftnet-rn18-pyramid",
)  # fmt: skip
UNLIKE_WHEN_SMALL = ("ddrnet23-slim", "dabnet")  # windows, and rates, that small maps have no room for


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", space.published())
def test_the_closest_point_to_a_published_network_is_of_its_kind_or_missing(name: str, size: tuple[int, int]) -> None:
    """A search says of it what it knows of the published one."""
    network, points = space.load(name), Space(ranges=searched(), size=size)
    if name in UNLIKE or (name in UNLIKE_WHEN_SMALL and size < (360, 480)):
        assert points.closest_genotype(network) is None
        return
    answers = points.closest_genotype(network)
    assert answers is not None
    closest = points.choose(lambda name, options: answers[name])
    for each in (network, closest):
        assert kind_of(each) == kind_of(network)
    for ours, theirs in zip(closest.stages, network.stages, strict=True):
        assert (ours.block, ours.stride) == (theirs.block, theirs.stride)
        assert theirs.depth / 2 <= ours.depth <= 2 * theirs.depth


def kind_of(network: Architecture) -> tuple[object, ...]:
    """What no number can make up for."""
    return (
        network.stem.kind,
        network.stem.stride,
        network.stem.separable,
        network.levels,
        network.rep,
        type(network.context),
        type(network.decoder),
        network.detail is None,
        network.head.kind,
    )


@pytest.mark.parametrize(
    "narrow", [{"stage.depth": (1, 2)}, {"stage.stride": (2,)}, {"block": ("nonbt",)}, {"label_stride": (2,)}]
)
def test_a_point_with_other_depths_or_strides_is_not_close(narrow: dict[str, tuple[Choice, ...]]) -> None:
    assert Space(ranges=searched()).closest_genotype(space.load("ndnet45-ende")) is not None
    assert Space(ranges={**searched(), **narrow}).closest_genotype(space.load("ndnet45-ende")) is None


@pytest.mark.parametrize("size", SIZES)
def test_genotypes_from_before_the_newer_families_are_points_of_the_space(size: tuple[int, int]) -> None:
    """The questions that were not asked then have the answers that every network had."""
    before = Space(
        ranges={
            **searched(),
            "stages": (2, 3, 4),
            "block": ("nonbt", "fpl", "sep"),
            "decoder": ("none", "deconv", "cat", "ladder"),
            "context": ("none", "spp"),
            "detail": ("none",),
            "head": ("linear", "linear_nobias", "sep", "preact"),
            "stem.halvings": (1,),
            "stem.rising": (False,),
            "stem.separable": (False,),
        },
        size=size,
    )
    now = Space(ranges=searched(), size=size)
    for seed in range(40):
        network = before.sample(random.Random(seed))
        answers = {name: answer for name, answer in before.genotype(network).items() if name not in OPENED}
        if network.context is not None:
            answers["context"] = "spp"
        expected = now.genotype(network)
        if network.label_stride == 1:
            assert now.point(answers) == now.point(answers, network) == expected
        assert now.carried(before.genotype(network), before) == expected
