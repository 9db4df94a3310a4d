"""Labels at half the size: each logit stands for two by two pixels; the rest of the network stays the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import space
from space import Architecture
from space.errors import ArchitectureError, UserError
from space.network import labels_of
from space.search_space import Space

NAMES = ("fast-scnn", "ndnet45-ende", "swiftnet-rn18")


def halved(name: str) -> Architecture:
    return replace(space.load(name), label_stride=2)


def test_published_networks_have_label_stride_1_and_do_not_write_it() -> None:
    for name in space.published():
        assert space.load(name).label_stride == 1
        assert "label_stride" not in space.load(name).to_yaml()


@pytest.mark.share(3)
@pytest.mark.parametrize(("name", "side"), [*((name, 2) for name in NAMES), ("swiftnet-rn18", 4), ("fast-scnn", 8)])
@pytest.mark.parametrize("size", [(64, 96), (37, 51)])
def test_logits_are_interpolated_only_to_the_label_size(
    name: str, side: int, size: tuple[int, int], shallow: Callable[[str], Architecture]
) -> None:
    """They are compared with those of the network without its interpolation."""
    torch.manual_seed(0)
    network = replace(shallow(name), label_stride=side).build(5).eval()
    whole = shallow(name).build(5).eval()
    whole.load_state_dict(network.state_dict())  # the same parameters
    captured: list[torch.Tensor] = []
    whole.get_submodule("head.logits").register_forward_hook(lambda layer, given, out: captured.append(out))
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        whole(image)
        found, labels = network(image), labels_of(network, image)
    part = [-(-length // side) for length in size]
    (logits,) = captured
    coarse = F.interpolate(logits, part, mode="bilinear", align_corners=whole.architecture.align_corners)
    assert found.shape == (2, 5, *size)
    rows, columns = torch.arange(size[0]) // side, torch.arange(size[1]) // side
    assert torch.equal(found, coarse[:, :, rows][:, :, :, columns])
    assert torch.equal(labels, found.argmax(1))


def test_a_label_stride_is_read_and_written_and_changes_the_key() -> None:
    architecture = halved("fast-scnn")
    assert Architecture.from_yaml(architecture.to_yaml()) == architecture
    assert architecture.key != space.load("fast-scnn").key
    assert space.parameters(architecture, 11) == space.parameters(space.load("fast-scnn"), 11)
    assert space.multiply_adds(architecture, (64, 96), 11) == space.multiply_adds(space.load("fast-scnn"), (64, 96), 11)


def test_impossible_label_strides_are_refused() -> None:
    with pytest.raises(ArchitectureError, match="label_stride: a deconv2 head gives logits at full size; give 1"):
        halved("erfnet")
    with pytest.raises(ArchitectureError, match="label_stride: expected at most 4, the stride of the features that"):
        replace(space.load("swiftnet-rn18"), label_stride=8)
    text = halved("fast-scnn").to_yaml().replace("label_stride: 2", "label_stride: 3")
    with pytest.raises(UserError, match="label_stride"):
        Architecture.from_yaml(text)


def test_a_space_with_one_label_stride_is_valid() -> None:
    chance = random.Random(0)
    halves = Space(ranges={"label_stride": (2,)}, size=(96, 128))
    drawn = [halves.sample(chance) for _ in range(100)]
    assert {each.label_stride for each in drawn} == {2}
    assert len({each.decoder.kind for each in drawn if each.decoder}) > 1
    for each in drawn[:20]:
        answers = halves.genotype(each)
        assert halves.choose(lambda name, options, answers=answers: answers[name]) == each  # type: ignore[misc]
    assert {each.label_stride for each in (Space(size=(96, 128)).sample(chance) for _ in range(40))} == {1, 2, 4, 8}
