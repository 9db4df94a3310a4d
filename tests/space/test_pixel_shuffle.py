"""Heads that give several pixels of each class at once, so that less is interpolated."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F

import space
from nas.export.comparison import compare, logits_of
from nas.export.formats.onnx import open_graph
from nas.export.graph import onnx_bytes
from space import Architecture
from space.axes import ranges
from space.channels import last_layer
from space.errors import ArchitectureError
from space.head import FULL_SIZE_HEADS
from space.search_space import Space


def shuffled(architecture: Architecture, factor: int) -> Architecture:
    return replace(architecture, head=replace(architecture.head, shuffle=factor))


def test_published_networks_shuffle_no_pixels_and_do_not_write_it() -> None:
    for name in space.published():
        assert space.load(name).head.shuffle == 1
        assert "shuffle" not in space.load(name).to_yaml()


@pytest.mark.parametrize(("name", "factor"), [("fast-scnn", 8), ("ndnet45-ende", 2), ("swiftnet-rn18", 4)])
@pytest.mark.parametrize("size", [(64, 96), (37, 51)])
def test_each_pixel_of_the_last_layer_becomes_several(
    name: str, factor: int, size: tuple[int, int], shallow: Callable[[str], Architecture]
) -> None:
    """Class c at (i, j) is the last layer's value at (i/f, j/f) in channel c f f + (i mod f) f + (j mod f)."""
    torch.manual_seed(0)
    network = shuffled(shallow(name), factor).build(5).eval()
    captured: list[torch.Tensor] = []
    network.get_submodule("head.logits").register_forward_hook(lambda layer, given, out: captured.append(out))
    with torch.no_grad():
        found = network(torch.randn(2, 3, *size))
    (coarse,) = captured
    assert coarse.shape[1] == 5 * factor**2
    rows, columns = torch.arange(coarse.shape[2] * factor), torch.arange(coarse.shape[3] * factor)
    channel = (rows % factor * factor)[:, None] + (columns % factor)[None, :]
    expected = torch.stack(
        [
            coarse[:, each * factor**2 + channel, (rows // factor)[:, None], (columns // factor)[None, :]]
            for each in range(5)
        ],
        1,
    )
    stride = next(step for step in (4, 8, 16, 32) if -(-size[0] // step) == coarse.shape[2])
    expected = expected[..., : -(-size[0] * factor // stride), : -(-size[1] * factor // stride)]
    assert found.shape == (2, 5, *size)
    wanted = F.interpolate(expected, size, mode="bilinear", align_corners=network.architecture.align_corners)
    torch.testing.assert_close(found, wanted)


def test_a_shuffle_is_read_written_and_counted_and_changes_the_key() -> None:
    plain = space.load("fast-scnn")
    architecture = shuffled(plain, 2)
    assert Architecture.from_yaml(architecture.to_yaml()) == architecture
    assert architecture.key != plain.key
    assert space.parameters(architecture, 11) - space.parameters(plain, 11) == 3 * 11 * (128 + 1)
    more = space.multiply_adds(architecture, (64, 96), 11) - space.multiply_adds(plain, (64, 96), 11)
    assert more == 3 * 11 * 128 * 8 * 12
    assert space.groups(architecture) == space.groups(plain), "logits are no channels to be cut"
    assert "2x2 pixels" in architecture.head.words()


def test_impossible_shuffles_are_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"head.shuffle: a deconv2 head gives logits at full size; give 1"):
        shuffled(space.load("erfnet"), 2)
    with pytest.raises(ArchitectureError, match=r"head.shuffle: expected one of \[1, 2, 4, 8\], got 3"):
        shuffled(space.load("fast-scnn"), 3)
    with pytest.raises(ArchitectureError, match=r"head.shuffle: expected at most 4, the stride of the head's features"):
        shuffled(space.load("swiftnet-rn18"), 8)
    with pytest.raises(ArchitectureError, match=r"head.shuffle: expected at most 2"):
        replace(shuffled(space.load("swiftnet-rn18"), 4), label_stride=2)


def test_a_shuffle_can_be_combined_with_labels_at_half_the_size(shallow: Callable[[str], Architecture]) -> None:
    architecture = replace(shuffled(shallow("swiftnet-rn18"), 2), label_stride=2)
    network = architecture.build(5).eval()
    assert "resize" not in [node.kind for node in architecture.graph(5).nodes[-2:]], "nothing is left to interpolate"
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 5, 64, 96)


def test_the_stride_of_logits_is_that_of_the_last_layer() -> None:
    decoders = set()
    for seed in range(60):
        drawn = Space(size=(96, 128)).sample(random.Random(seed))
        if drawn.head.kind not in FULL_SIZE_HEADS:
            decoders.add(None if drawn.decoder is None else drawn.decoder.kind)
            assert drawn.logits_stride == last_layer(drawn.graph(2)).output_stride[0]
    assert decoders >= {None, "ladder", "cat", "steps"}


def test_a_space_with_one_shuffle_is_valid() -> None:
    chance = random.Random(0)
    finer = Space(ranges={"head.shuffle": (2,)}, size=(96, 128))
    drawn = [finer.sample(chance) for _ in range(12)]
    assert {each.head.shuffle for each in drawn} == {2}
    for each in drawn[:4]:
        answers = finer.genotype(each)
        assert finer.choose(lambda name, options, answers=answers: answers[name]) == each  # type: ignore[misc]
    both = Space(ranges={"head.shuffle": (2, 4), "label_stride": (1, 2), "head": ("linear",)}, size=(96, 128))
    assert {(each.head.shuffle, each.label_stride) for each in (both.sample(chance) for _ in range(20))} >= {
        (2, 1),
        (4, 1),
        (2, 2),
    }


def test_all_draws_of_a_space_of_coarse_logits_can_be_built() -> None:
    """Decoders, their ends and branches with too fine features are not offered."""
    chance = random.Random(0)
    every = {axis: ranges()[axis] for axis in ("decoder", "detail", "levels")}
    for several in ({}, every):
        eights = Space(ranges={"head.shuffle": (8,), **several})
        drawn = [eights.sample(chance) for _ in range(60)]
        assert {each.head.shuffle for each in drawn} == {8}
        assert len({each.decoder.kind for each in drawn if each.decoder}) == 3
        for each in drawn[:10]:
            answers = eights.genotype(each)
            assert eights.choose(lambda name, options, answers=answers: answers[name]) == each  # type: ignore[misc]
    assert any(each.detail for each in drawn)


@pytest.mark.parametrize(
    ("several", "axis"),
    [
        ({"head.shuffle": (8,), "decoder": ("ladder",)}, r"head\.shuffle: none of \[8\]"),
        ({"head.shuffle": (8,), "label_stride": (2,)}, r"head\.shuffle: none of \[8\]"),
        ({"label_stride": (2,), "decoder": ("deconv",)}, r"label_stride: none of \[2\]"),
    ],
)
def test_an_axis_without_coarse_enough_features_is_named(several: dict[str, tuple[Any, ...]], axis: str) -> None:
    drawn, chance = Space(ranges=several), random.Random(0)
    with pytest.raises(ArchitectureError, match=rf"space\.{axis} is possible with the choices .* add a smaller option"):
        [drawn.sample(chance) for _ in range(30)]


@pytest.mark.parametrize("size", [(64, 96), (122, 162)])
def test_a_shuffle_is_a_single_depth_to_space_in_the_onnx_graph(
    size: tuple[int, int], shallow: Callable[[str], Architecture]
) -> None:
    torch.manual_seed(0)
    network = shuffled(shallow("ndnet45-ende"), 2).build(5).eval()
    data = onnx_bytes(network, size, labels=False)
    assert [node.op_type for node in onnx.load_from_string(data).graph.node].count("DepthToSpace") == 1
    image = torch.rand(1, 3, *size)
    agreement = compare(logits_of(network, image), open_graph(data), image)
    assert agreement.max_abs_difference is not None
    assert agreement.max_abs_difference < 1e-3
