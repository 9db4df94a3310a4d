"""Networks as modules: sizes, modes, auxiliary outputs, names, and arithmetic counted by PyTorch itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import space
from space import Architecture, UserError
from space.axes import ranges
from space.head import AUXILIARY_HEADS, HEADS, Auxiliary, Head
from space.scale import scale_width

pytestmark = pytest.mark.share(14)

Flops = Callable[[nn.Module, Tensor], int]
SIZES = [(64, 96), (45, 61), (33, 65), (50, 40)]


def image(size: tuple[int, int], batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", space.published())
def test_outputs_of_published_networks_have_the_size_of_the_image(name: str) -> None:
    network = space.load(name).build(5, auxiliary=True).eval()
    with torch.no_grad():
        for size in SIZES:
            outputs = network.outputs(image(size))
            assert len(outputs) == 1 + len(network.auxiliary_weights)
            for output in outputs:
                assert output.shape == (1, 5, *size)
                assert torch.isfinite(output).all()


@pytest.mark.parametrize("size", [(201, 333)])
@pytest.mark.parametrize("name", space.published())
def test_published_multiply_adds_are_half_of_pytorchs_flops(name: str, size: tuple[int, int], flops: Flops) -> None:
    architecture = space.load(name)
    assert 2 * space.multiply_adds(architecture, size, 19) == flops(architecture.build(19).eval(), image(size))


@pytest.mark.parametrize("size", [(75, 121)])
def test_random_multiply_adds_are_half_of_pytorchs_flops(
    random_architecture: Architecture, size: tuple[int, int], flops: Flops
) -> None:
    expected = flops(random_architecture.build(7).eval(), image(size))
    assert 2 * space.multiply_adds(random_architecture, size, 7) == expected


def test_outputs_of_random_networks_have_the_size_of_the_image(random_architecture: Architecture) -> None:
    network = random_architecture.build(4, auxiliary=True).eval()
    assert len(network.auxiliary_weights) == len(random_architecture.auxiliary)
    with torch.no_grad():
        for size in ((64, 96), (45, 61)):
            outputs = network.outputs(image(size))
            assert [tuple(output.shape) for output in outputs] == [(1, 4, *size)] * (1 + len(network.auxiliary_weights))
            assert all(torch.isfinite(output).all() for output in outputs)


def test_random_networks_have_the_counted_parameters(random_architecture: Architecture) -> None:
    for auxiliary in (False, True):
        network = random_architecture.build(6, auxiliary=auxiliary)
        built = sum(parameter.numel() for parameter in network.parameters())
        assert built == space.parameters(random_architecture, 6, auxiliary=auxiliary)


def test_the_layer_table_adds_up_and_keeps_shapes(random_architecture: Architecture) -> None:
    rows = space.layers(random_architecture, (64, 96), 6)
    assert sum(row.parameters for row in rows) == space.parameters(random_architecture, 6)
    assert sum(row.multiply_adds for row in rows) == space.multiply_adds(random_architecture, (64, 96), 6)
    assert (rows[-1].out_channels, rows[-1].height, rows[-1].width) == (6, 64, 96)


def test_every_parameter_of_every_head_learns(random_architecture: Architecture) -> None:
    network = random_architecture.build(3, auxiliary=True).train()
    outputs = network.outputs(image((64, 96), batch=2))
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert silent == []


@pytest.mark.parametrize("name", ["erfnet", "ndnet45-ende"])
def test_auxiliary_heads_do_not_change_the_main_logits(name: str) -> None:
    architecture = space.load(name)
    trained = architecture.build(3, auxiliary=True).eval()
    deployed = architecture.build(3).eval()
    assert trained.auxiliary_weights == (0.4,)
    assert deployed.auxiliary_weights == ()
    missing = set(trained.state_dict()) - set(deployed.state_dict())
    assert missing
    assert all(key.startswith("auxiliary0.") for key in missing)
    deployed.load_state_dict({key: value for key, value in trained.state_dict().items() if key not in missing})
    picture = image((48, 64))
    with torch.no_grad():
        main, extra = trained.outputs(picture)
        torch.testing.assert_close(deployed(picture), main, rtol=0, atol=0)
        assert len(deployed.outputs(picture)) == 1
        assert not torch.allclose(main, extra)


def test_dropout_acts_only_in_training() -> None:
    network = space.load("erfnet-encoder").build(3)
    picture = image((32, 48), batch=2)
    with torch.no_grad():
        assert not torch.equal(network.train()(picture), network(picture))
        assert torch.equal(network.eval()(picture), network(picture))


def test_running_statistics_move_in_training_only() -> None:
    network = scale_width(space.load("fplnet-encoder"), 0.25).build(3)
    before = {key: value.clone() for key, value in network.state_dict().items() if "running" in key}
    with torch.no_grad():
        network.eval()(image((32, 48), batch=2))
        assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
        network.train()(image((32, 48), batch=2))
    assert not any(torch.equal(network.state_dict()[key], value) for key, value in before.items())


def test_a_batch_gives_the_logits_of_its_images_one_by_one() -> None:
    network = scale_width(space.load("swiftnet-rn18"), 0.25).build(3).eval()
    pictures = image((45, 61), batch=3)
    with torch.no_grad():
        together = network(pictures)
        alone = torch.cat([network(picture[None]) for picture in pictures])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_image_of_the_caller_is_not_modified() -> None:
    network = space.load("ndnet45-fcn32").build(3).eval()
    picture = image((45, 61))
    before = picture.clone()
    with torch.no_grad():
        network(picture)
    assert torch.equal(picture, before)


@pytest.mark.parametrize("name", space.published())
def test_names_of_weights_come_from_the_architecture_alone(name: str) -> None:
    first, second = space.load(name).build(3), space.load(name).build(3)
    assert list(first.state_dict()) == list(second.state_dict())
    first.load_state_dict(second.state_dict())


def test_weights_keep_their_published_names() -> None:
    """Checkpoints hold these names: a changed name makes every file of weights unusable."""
    erfnet = space.load("erfnet").build(3, auxiliary=True).state_dict()
    assert erfnet["stem.conv.weight"].shape == (13, 3, 3, 3)
    assert erfnet["stage0.block4.1_3x1.weight"].shape == (64, 64, 3, 1)
    assert erfnet["decoder.step0.up.weight"].shape == (128, 64, 3, 3)
    assert erfnet["head.logits.weight"].shape == (16, 3, 2, 2)
    assert erfnet["auxiliary0.logits.weight"].shape == (3, 128, 1, 1)
    pyramid = space.load("swiftnet-rn18-pyramid").build(3).state_dict()
    assert {f"stage1.block0.1_norm_level{level}.weight" for level in range(3)} < set(pyramid)
    assert "stage1.block0.projection_norm.weight" in pyramid


def test_a_network_without_classes_is_refused() -> None:
    with pytest.raises(UserError, match="num_classes: expected at least 1, got 0"):
        space.load("erfnet").build(0)


def test_at_odd_sizes_the_last_upsampling_loses_its_far_edge() -> None:
    """Pixels keep their places: surplus ones of a 2x2 transposed convolution are cut at the bottom and right."""
    network = space.load("erfnet").build(3).eval()
    made: list[torch.Tensor] = []
    network.layer("head.logits").register_forward_hook(lambda layer, given, output: made.append(output))
    with torch.no_grad():
        logits = network(image((45, 61)))
    assert made[0].shape == (1, 3, 46, 62)
    assert torch.equal(logits, made[0][..., :45, :61])


@pytest.mark.parametrize("kind", AUXILIARY_HEADS)
def test_an_auxiliary_head_has_the_layers_of_a_main_head_of_its_kind(kind: str) -> None:
    stage = len(space.load("stdc1").stages) - 1
    auxiliary = (Auxiliary(stage=stage, width=24, weight=1.0, kind=kind),)
    architecture = replace(space.load("stdc1"), head=Head(kind=kind, width=24), auxiliary=auxiliary)
    nodes = architecture.graph(5, auxiliary=True).nodes
    main, other = (
        [(rest, node.kind, node.kernel, node.bias) for node in nodes for name, _, rest in [node.name.partition(".")]
         if name == scope]
        for scope in ("head", "auxiliary0")
    )  # fmt: skip
    assert main == other
    assert main[-1] == ("logits", "conv", (1, 1), True)


def test_searches_can_draw_every_kind_of_head() -> None:
    axes = ranges()
    assert {*axes["head"], "deconv2"} == set(HEADS)  # deconv2 is the only end of ERFNet's decoder
    assert set(axes["auxiliary"]) - {"none", "linear"} == set(AUXILIARY_HEADS)
