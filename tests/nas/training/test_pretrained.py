"""Weights of other projects: networks that start from their files answer as plain PyTorch networks of these files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import space
from nas.data import MEAN, STD
from nas.training.pretrained import Taken, read_tensors, take_weights, without_prefix
from nas.training.weights import save_weights
from space import Architecture
from space.context import SpatialPyramid
from space.decoders.deconv import DeconvDecoder
from space.decoders.ladder import LadderDecoder
from space.errors import UserError
from space.head import Head
from space.network import Network
from space.scale import scale_width

CLASSES = 5
WIDTHS = (8, 12, 16, 20)
OURS_MEAN, OURS_STD = torch.tensor(MEAN), torch.tensor(STD)


def started(architecture: Architecture, state: Mapping[str, Tensor], classes: int = CLASSES) -> tuple[Network, Taken]:
    network = architecture.build(classes, auxiliary=True)
    told = take_weights(network, architecture, without_prefix(state), "file")
    return network.eval(), told


def picture(height: int = 64, width: int = 96) -> Tensor:
    """A random image with values 0..1."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def seen(values: Tensor) -> Tensor:
    return (values - OURS_MEAN.view(1, 3, 1, 1)) / OURS_STD.view(1, 3, 1, 1)


def encoder_of(name: str) -> Architecture:
    return replace(space.load(name), context=None, decoder=None, head=Head(kind="linear"))


def small_swiftnet(name: str) -> Architecture:
    parent = space.load(name)
    stages = tuple(replace(stage, width=width) for stage, width in zip(parent.stages, WIDTHS, strict=True))
    narrow = replace(parent, stem=replace(parent.stem, width=WIDTHS[0]), stages=stages)
    if parent.levels > 1:
        return replace(narrow, decoder=LadderDecoder(width=10, taps="sum"))
    return replace(
        narrow,
        decoder=LadderDecoder(width=10, taps="relu"),
        context=SpatialPyramid(bottleneck=9, level_width=3, grids=(4, 2)),
    )


@torch.no_grad()
def test_resnet18_starts_swiftnets_encoder(others: ModuleType) -> None:
    theirs = others.trained(others.ResNet())
    state = {**theirs.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    network, told = started(encoder_of("swiftnet-rn18"), state)
    assert told.unused == ("fc.weight", "fc.bias")
    assert told.fresh == ("head.logits",)
    assert len(told.layers) == 40
    image = seen(picture())
    features = F.relu(theirs.sums(image)[-1])
    wanted = others.resize(network.layer("head.logits")(features), image)
    torch.testing.assert_close(network(image), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_mobilenet_starts_swiftnets_encoder(others: ModuleType) -> None:
    theirs = others.trained(others.MobileNet())
    network, told = started(encoder_of("swiftnet-mnv2"), theirs.state_dict())
    assert told.fresh == ("head.logits",)
    assert {name.rpartition(".")[0] for name in told.unused} == {"features.18.0", "features.18.1", "classifier.1"}
    image = seen(picture())
    wanted = others.resize(network.layer("head.logits")(theirs.encoded(image)), image)
    torch.testing.assert_close(network(image), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("name", "levels"), [("swiftnet-rn18", 1), ("swiftnet-rn18-pyramid", 3)])
def test_a_checkpoint_of_swiftnet_is_the_same_network(others: ModuleType, name: str, levels: int) -> None:
    theirs = others.trained(others.SwiftNet(WIDTHS, levels, 255 * OURS_MEAN, 255 * OURS_STD, 20))
    state = {f"module.{key}": each for key, each in theirs.state_dict().items()}
    network, told = started(small_swiftnet(name), state, classes=19)
    assert told.fresh == ()
    assert told.unused == ("backbone.img_mean", "backbone.img_std")
    values = picture(128, 192)
    wanted = theirs(255 * values)[:, :19]
    torch.testing.assert_close(network(seen(values)), wanted, atol=1e-5, rtol=1e-4)


def test_every_level_of_a_pyramid_starts_from_the_same_normalisation(others: ModuleType) -> None:
    state = others.trained(others.ResNet(WIDTHS)).state_dict()
    network, told = started(small_swiftnet("swiftnet-rn18-pyramid"), state)
    ours = network.state_dict()
    for level in range(3):
        assert torch.equal(ours[f"stem.conv0_norm_level{level}.running_var"], state["bn1.running_var"])
        assert torch.equal(ours[f"stage2.block1.2_norm_level{level}.bias"], state["layer3.1.bn2.bias"])
    assert all(layer.startswith(("decoder.", "head.")) for layer in told.fresh)


@torch.no_grad()
def test_a_different_normalisation_of_images_is_folded_into_the_first_layer(others: ModuleType) -> None:
    mean, std = torch.tensor([73.2, 82.9, 72.4]), torch.tensor([44.9, 46.2, 45.3])
    theirs = others.trained(others.SwiftNet(WIDTHS, 1, mean, std, CLASSES))
    network, _ = started(small_swiftnet("swiftnet-rn18"), theirs.state_dict())
    values = picture()
    read = (255 * values - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    wanted = theirs.backbone.bn1(theirs.backbone.conv1(read))
    given = network.layer("stem.conv0_norm")(network.layer("stem.conv0")(seen(values)))
    inside = (..., slice(2, -2), slice(2, -2))  # the colour around the image differs
    torch.testing.assert_close(given[inside], wanted[inside], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(given[..., 0, :], wanted[..., 0, :], atol=1e-2)


@torch.no_grad()
def test_a_checkpoint_of_erfnet_is_the_same_network_without_its_class_void(others: ModuleType) -> None:
    theirs = others.trained(others.ErfNet(20))
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    network, told = started(space.load("erfnet"), state, classes=19)
    assert (told.fresh, told.unused, told.reason) == ((), (), "")
    values = picture()
    wanted = theirs(values, border=OURS_MEAN.view(1, 3, 1, 1))[:, :19]
    torch.testing.assert_close(network(seen(values)), wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(network.layer("auxiliary0.logits").weight, theirs.encoder.output_conv.weight[:19])


def test_an_encoder_of_erfnet_starts_the_encoder_alone(others: ModuleType) -> None:
    state = {
        f"module.features.{name}": tensor for name, tensor in others.trained(others.ErfNet(20)).state_dict().items()
    }
    state = {name: tensor for name, tensor in state.items() if ".encoder." in name and "output_conv" not in name}
    _, told = started(space.load("erfnet"), {**state, "module.classifier.linear.bias": torch.zeros(1000)}, classes=19)
    assert all(layer.startswith(("decoder.", "head.", "auxiliary0.")) for layer in told.fresh)
    assert told.unused == ("classifier.linear.bias",)
    assert "the file has no decoder.layers.0.conv" in told.reason


@pytest.mark.parametrize("change", ["narrower", "shorter", "longer"])
def test_a_variant_starts_up_to_its_first_different_layer(others: ModuleType, change: str) -> None:
    parent = small_swiftnet("swiftnet-rn18")
    first, second, *rest = parent.stages
    second = replace(second, **{"narrower": {"width": 11}, "shorter": {"depth": 1}, "longer": {"depth": 3}}[change])
    crossing = replace(parent, stages=(first, second, *rest))
    _, told = started(crossing, others.trained(others.ResNet(WIDTHS)).state_dict())
    last = {"narrower": "stage0.block1.2_norm", "shorter": "stage1.block0.projection_norm"}
    assert told.layers[-1] == last.get(change, "stage1.block1.2_norm")
    assert told.reason
    assert any(name.startswith("layer4.1") for name in told.unused)


def strided(architecture: Architecture, index: int) -> Architecture:
    """A network whose first block of a stage has a projection that the file lacks."""
    stages = [replace(stage, stride=2) if place == index else stage for place, stage in enumerate(architecture.stages)]
    return replace(architecture, stages=tuple(stages))


@pytest.mark.parametrize("names", ["torchvision's", "ours"])
def test_a_block_with_a_layer_that_the_file_lacks_starts_afresh_as_a_whole(others: ModuleType, names: str) -> None:
    parent = small_swiftnet("swiftnet-rn18")
    state = others.trained(others.ResNet(WIDTHS) if names == "torchvision's" else parent.build(CLASSES)).state_dict()
    _, told = started(strided(parent, 0), state)
    assert told.layers == ("stem.conv0", "stem.conv0_norm")
    assert told.reason.startswith("the file has no stage0.block0.projection")


def test_layers_behind_one_that_the_file_lacks_start_afresh(others: ModuleType) -> None:
    """With a stem of two convolutions the first stage reads other values than in the file."""
    parent = small_swiftnet("swiftnet-rn18")
    deep = replace(parent, stem=replace(parent.stem, convolutions=2))
    _, told = started(deep, others.trained(others.ResNet(WIDTHS)).state_dict())
    assert (told.layers, told.reason) == ((), "the file has no stem.conv1")


def test_a_different_network_takes_no_weights(others: ModuleType) -> None:
    _, told = started(space.load("erfnet"), others.trained(others.ResNet(WIDTHS)).state_dict())
    assert told.layers == ()
    assert told.reason == "there is no stem.conv0 here"


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("encoder.initial_block.bn.running_mean", None, "bn.running_mean of 16, got none"),
        ("encoder.initial_block.bn.running_var", torch.zeros(2), "bn.running_var of 16, got one of 2"),
        ("encoder.initial_block.conv.weight", torch.zeros(13), "conv.weight of any x 3 x any x any, got one of 13"),
        ("encoder.initial_block.conv.bias", torch.zeros(()), "conv.bias of 13, got one of a single number"),
        ("backbone.conv1.weight", torch.zeros(8, 1, 7, 7), "conv1.weight of any x 3 x any x any, got one of 8 x 1 x"),
        ("backbone.bn1.running_mean", torch.zeros(3), "bn1.running_mean of 8, got one of 3"),
        ("backbone.img_scale", torch.zeros(0), "got 0 means"),
        ("backbone.img_std", torch.zeros(3), "deviations 0, 0, 0"),
    ],
)
def test_right_names_with_wrong_tensors_are_refused_in_one_line(
    others: ModuleType, name: str, tensor: Tensor | None, words: str
) -> None:
    erfnet = name.startswith("encoder.")
    theirs = others.ErfNet(20) if erfnet else others.SwiftNet(WIDTHS, 1, 255 * OURS_MEAN, 255 * OURS_STD, CLASSES)
    state = {key: each for key, each in theirs.state_dict().items() if key != name}
    state |= {} if tensor is None else {name: tensor}
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        started(space.load("erfnet") if erfnet else small_swiftnet("swiftnet-rn18"), state, classes=19)
    assert str(refused.value).startswith("file: expected ")


@pytest.mark.parametrize("more", [8, 20])
def test_the_last_class_of_other_heads_is_not_taken_for_void(others: ModuleType, more: int) -> None:
    """Heads of this package have no void class; heads of the ERFNet authors have one among the 20 of Cityscapes."""
    architecture = scale_width(space.load("erfnet"), 0.25)
    _, told = started(architecture, architecture.build(more).state_dict(), classes=more - 1)
    assert told.fresh == ("head.logits", "auxiliary0.logits")
    assert (
        told.reason == f"head.logits.weight is of shape (4, {more - 1}, 2, 2) here, head.logits.weight in the file of "
        f"(4, {more}, 2, 2)"
    )
    theirs = others.SwiftNet(WIDTHS, 1, 255 * OURS_MEAN, 255 * OURS_STD, CLASSES + 1)
    assert started(small_swiftnet("swiftnet-rn18"), theirs.state_dict())[1].fresh == ("head.logits",)


def test_weights_of_this_package_start_a_network_of_another_number_of_classes() -> None:
    architecture = scale_width(space.load("erfnet"), 0.25)
    state = architecture.build(7).state_dict()
    network, told = started(architecture, state)
    assert told.fresh == ("head.logits", "auxiliary0.logits")
    assert told.unused == ("head.logits.weight", "head.logits.bias")
    assert torch.equal(network.state_dict()["decoder.step0.up.weight"], state["decoder.step0.up.weight"])


@pytest.mark.parametrize("name", space.published())
def test_every_network_starts_from_every_file_or_gets_a_reason_why_not(others: ModuleType, name: str) -> None:
    architecture = space.load(name)
    erfnet = others.ErfNet(20).state_dict()
    files: list[Mapping[str, Tensor]] = [
        others.ResNet(WIDTHS).state_dict(),
        others.MobileNet().state_dict(),
        others.SwiftNet(WIDTHS, 1, OURS_MEAN, OURS_STD, 20).state_dict(),
        others.SwiftNet(WIDTHS, 3, OURS_MEAN, OURS_STD, 20).state_dict(),
        erfnet,
        {f"features.{each}": tensor for each, tensor in erfnet.items() if each.startswith("encoder.")},
        *(space.load(each).build(CLASSES).state_dict() for each in ("erfnet", "ddrnet23-slim", "swiftnet-rn18")),
    ]
    for state in files:
        network, told = started(architecture, state)
        layers = {layer.rpartition(".")[0] for layer in network.state_dict()}
        assert {*told.layers, *told.fresh} == layers


def erfnet_of(**changes: object) -> Architecture:
    """A narrow ERFNet with some numbers of its first stage changed."""
    parent = scale_width(space.load("erfnet"), 0.25)
    first, *rest = parent.stages
    return replace(parent, stages=(replace(first, **changes), *rest))  # type: ignore[arg-type]


def test_layers_behind_a_missing_block_start_afresh(others: ModuleType) -> None:
    state = erfnet_of().build(CLASSES).state_dict()
    _, told = started(erfnet_of(depth=4), state)
    assert told.layers[-1] == "stage0.block3.2_norm"
    assert told.reason.startswith("there is no stage0.block4.")
    state = erfnet_of(fuse="add").build(CLASSES).state_dict()
    _, told = started(erfnet_of(), state)
    assert (told.layers[-1], told.reason) == ("stage0.block4.2_norm", "there is no stage0.fuse_norm here")


@pytest.mark.parametrize("end", ["encoder", "decoder"])
def test_layers_behind_a_shorter_end_of_erfnet_start_afresh(others: ModuleType, end: str) -> None:
    parent = space.load("erfnet")
    first, second = parent.stages
    assert isinstance(parent.decoder, DeconvDecoder)
    up, last = parent.decoder.steps
    if end == "encoder":
        shorter = replace(parent, stages=(first, replace(second, depth=4)))
        wanted = ("stage1.block3.2_norm", "there is no stage1.block4 here")
    else:
        shorter = replace(parent, decoder=replace(parent.decoder, steps=(up, replace(last, depth=1))))
        wanted = ("decoder.step1.block0.2_norm", "there is no decoder.step1.block1 here")
    _, told = started(shorter, others.trained(others.ErfNet(20)).state_dict(), classes=19)
    assert (told.layers[-1], told.reason) == wanted


def test_stages_of_the_file_behind_the_last_stage_count_as_missing(others: ModuleType) -> None:
    parent = small_swiftnet("swiftnet-rn18-pyramid")
    _, told = started(replace(parent, stages=parent.stages[:3]), small_state(others, 3))
    assert (told.layers[-1].rpartition("_")[0], told.reason) == (
        "stage2.block1.2_norm",
        "there is no stage3.block0.1_3x3 here",
    )
    _, told = started(replace(parent, levels=2), small_state(others, 3))
    assert (told.layers[-1], told.reason) == ("decoder.lateral3", "there is no decoder.blend64 here")


def small_state(others: ModuleType, levels: int) -> Mapping[str, Tensor]:
    """A narrow state with the names of SwiftNet's authors."""
    return others.trained(others.SwiftNet(WIDTHS, levels, OURS_MEAN, OURS_STD, 20)).state_dict()  # type: ignore[no-any-return]


def test_a_missing_or_different_detail_branch_ends_the_taken_layers() -> None:
    parent = scale_width(space.load("ddrnet23-slim"), 0.25)
    assert parent.detail is not None
    state = parent.build(CLASSES).state_dict()
    up = replace(parent, detail=replace(parent.detail, exchange="up"))
    alone = replace(parent, detail=None, auxiliary=())
    _, told = started(up, state)
    assert told.reason == "there is no exchange0.down0 here"
    assert not [
        layer for layer in told.layers if layer.startswith(("exchange", "detail1", "stage4", "context", "head"))
    ]
    _, told = started(alone, state)
    assert re.match(r"there is no detail0\.block0\.\w+ here", told.reason)
    assert not [layer for layer in told.layers if layer.startswith(("stage4", "context", "head"))]
    _, told = started(parent, alone.build(CLASSES).state_dict())
    assert told.reason.startswith("the file has no detail0.block0.")


def test_a_detail_branch_that_begins_at_another_stage_is_different() -> None:
    """With all stages of one width, the parts of both branches have the same names and shapes."""
    ddrnet = scale_width(space.load("ddrnet23-slim"), 0.25)
    assert ddrnet.detail is not None
    first, second, *_, last = (replace(stage, width=8) for stage in ddrnet.stages)
    detail = ddrnet.detail.with_widths(lambda width: 8)

    def branched(start: int) -> Architecture:
        stages, branch = (first, *[second] * (start + 2), last), replace(detail, start=start)
        return replace(ddrnet, stages=stages, detail=branch, auxiliary=())

    _, told = started(branched(1), branched(2).build(CLASSES).state_dict())
    assert told.layers[-1].startswith("stage2.block1.")
    assert told.reason == "there is no detail0.block0 beside stage3 here"


@pytest.mark.parametrize(
    ("name", "tensor", "kept", "lost"),
    [
        ("ddrnet23-slim", "detail1.block1.2_norm.weight", "detail1.block0.", "detail1.block1."),
        ("ddrnet23-slim", "exchange1.down1.weight", "detail1.block1.", "exchange1."),
        ("ddrnet23-slim", "context.process4.weight", "detail2.block0.", "context."),
        ("ddrnet23-slim", "head.conv.weight", "context.", "head."),
        ("erfnet", "decoder.step1.block1.2_norm.bias", "decoder.step1.block0.", "decoder.step1.block1."),
        ("regseg", "decoder.step1.blend.weight", "decoder.step0.", "decoder.step1."),
        ("swiftnet-rn18", "decoder.blend8.weight", "decoder.blend16", "decoder.blend8"),
        ("swiftnet-rn18", "decoder.context.fuse.weight", "decoder.lateral2", "decoder.context."),
        ("ndnet45-ende", "decoder.norm.weight", "stage2.", "decoder."),
    ],
)
def test_a_block_is_taken_whole_or_not_at_all_in_any_part_of_a_network(
    name: str, tensor: str, kept: str, lost: str
) -> None:
    """The last tensor of the block has another shape in the file."""
    architecture = scale_width(space.load(name), 0.125)
    state = architecture.build(CLASSES).state_dict()
    assert tensor in state
    _, told = started(architecture, {**state, tensor: torch.zeros(1, 2, 3)})
    assert any(layer.startswith(kept) for layer in told.layers)
    assert not any(layer.startswith(lost) for layer in told.layers)


def test_the_weights_of_swiftnet_start_the_encoder_of_its_pyramid() -> None:
    state = small_swiftnet("swiftnet-rn18").build(CLASSES).state_dict()
    network, told = started(small_swiftnet("swiftnet-rn18-pyramid"), state)
    for level in range(3):
        found = network.state_dict()[f"stage3.block1.2_norm_level{level}.running_var"]
        assert torch.equal(found, state["stage3.block1.2_norm.running_var"])
    assert all(layer.startswith(("decoder.", "head.")) for layer in told.fresh)


def test_unknown_names_of_tensors_are_refused() -> None:
    with pytest.raises(UserError, match=r"file: expected the names of torchvision's .*, got a.weight, b.weight;"):
        started(space.load("erfnet"), {"a.weight": torch.zeros(1), "b.weight": torch.zeros(1)})


@pytest.mark.parametrize("wrapped", ["", "state_dict", "safetensors"])
def test_files_are_read_with_any_known_wrapper(tmp_path, wrapped: str) -> None:
    state = {"module.conv1.weight": torch.ones(2, 3).half(), "module.count": torch.tensor(3)}
    file = tmp_path / ("w.safetensors" if wrapped == "safetensors" else "w.pth")
    if wrapped == "safetensors":
        save_weights(file, state, {})
    else:
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, file)
    found = read_tensors(file)
    assert found.keys() == {"conv1.weight", "count"}
    assert found["conv1.weight"].dtype == torch.float32


class Anything:
    """An object whose loading would run code that the file chooses."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "got no such file"),
        (b"", "expected a state dict, got an empty file; save the state dict again"),
        (b"\x80\x02nonsense", "got something else or a damaged file|holds more than tensors"),
        (Anything(), "holds more than tensors, numbers and text, or is damaged; it is not opened"),
        ([torch.zeros(1)], "expected a state dict, got a list"),
        ({"epoch": 3}, "expected tensors by name"),
        (
            {"conv1.weight": torch.tensor([float("nan")])},
            "expected finite weights, got NaN or infinite numbers in conv1.weight",
        ),
        (
            {"conv1.weight": torch.ones(1).to(torch.float8_e4m3fn), "bn1.running_var": torch.tensor([0.0, -1e-3])},
            r"expected variances of at least 0, got negative ones in bn1.running_var; use another file",
        ),
        (
            {"bn1.num_batches_tracked": torch.tensor(3), "conv1.weight": torch.ones(1, dtype=torch.int32)},
            r"expected weights of floating point, got int32 in conv1.weight; use another file",
        ),
    ],
)
def test_files_without_tensors_are_refused(tmp_path, content: object, words: str) -> None:
    file = tmp_path / "w.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(UserError, match=words) as refused:
        read_tensors(file)
    assert re.match(re.escape(str(file)), str(refused.value))
    assert "\n" not in str(refused.value)
