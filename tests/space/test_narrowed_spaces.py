"""Narrowed ranges of a `Space`: they bind all draws, and impossible or meaningless ones are refused with the axis."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from space import Architecture, ArchitectureError, Space
from space.axes import ranges
from space.choices import Choice

DrawMany = Callable[..., list[Architecture]]
Replay = Callable[[Architecture, Space], Architecture]

quiet = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def answers_on(axis: str, genotype: dict[str, Choice]) -> list[Choice]:
    """The answers of a genotype on an axis; none for an axis that was not asked."""
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
def test_impossible_ranges_are_refused_with_the_axis(
    ranges: dict[str, tuple[Choice, ...]], axis: str, draw_many: DrawMany
) -> None:
    with pytest.raises(ArchitectureError, match=axis.replace(".", r"\.")):
        draw_many(Space(ranges=ranges))


AXES_THAT_CAN_BE_FIXED = ("block", "down", "fuse", "stem.kind", "stages", "stage.width", "decoder", "activation")


@pytest.mark.parametrize("axis", [*AXES_THAT_CAN_BE_FIXED, "stage.expansion"])
def test_fixing_a_single_axis_leaves_networks_to_build(axis: str, draw_many: DrawMany) -> None:
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
def test_fixed_axes_bind_the_questions_before_them(fixed: str, draw_many: DrawMany, replay: Replay) -> None:
    narrow = Space(ranges=FIXED_TOGETHER[fixed])
    draws = draw_many(narrow)
    assert len({draw.key for draw in draws}) > 40
    for draw in draws[:5]:
        assert replay(draw, narrow) == draw
        assert draw.rep or True not in FIXED_TOGETHER[fixed].get("rep", ())
        assert draw.detail is not None or draw.decoder is not None or "detail" not in FIXED_TOGETHER[fixed]


def test_numbers_that_only_a_kind_has_bind_its_widths_and_rates(draw_many: DrawMany) -> None:
    """D blocks are whole groups wide, and stages with a rate above 1 have two halves of whole groups."""
    alone: dict[str, tuple[Choice, ...]] = {"block": ("dblock",), "detail.bottles": (0,)}
    coarse = {**alone, "dblock.group": (32,), "stage.rates": ("1", "4")}
    for draw in draw_many(Space(ranges=coarse)):
        assert all(stage.width % (32 if stage.rates == (1,) else 64) == 0 for stage in draw.stages)
    fine = {**alone, "dblock.group": (8, 16), "stage.width": (24, 32)}
    groups = {stage.block_options["group"] for draw in draw_many(Space(ranges=fine)) for stage in draw.stages}
    assert groups == {8, 16}
    with pytest.raises(ArchitectureError, match=r"space\.stages"):
        draw_many(Space(ranges={**coarse, "stage.width": (48,)}))


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


def test_ranges_can_go_beyond_the_published_values(replay: Replay) -> None:
    wide = Space(ranges={"stage.width": (40, 80, 120), "block": ("sep",), "stage.expansion": (4,), "detail": ("none",)})
    draw = wide.sample(random.Random(0))
    assert {stage.width for stage in draw.stages} <= {40, 80, 120}
    assert replay(draw, wide) == draw
