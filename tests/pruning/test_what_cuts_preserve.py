"""Cuts of channels and of blocks preserve the rest of a network: heads, classes, mode and type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import space
from pruning.depth import removable_blocks, remove_blocks
from pruning.surgery import Cutter, Mask
from space import Architecture
from space.channels import parametric
from space.network import Network

Cut = Callable[[Network], Network]


def some_channels(network: Network) -> Network:
    cutter = Cutter(network.architecture, network.num_classes)
    keep = cutter.everything.copy()
    for name in cutter.map.names:
        keep[cutter.map.members(name)[1::2]] = False
    return cutter.cut(network, keep)


def some_blocks(network: Network) -> Network:
    return remove_blocks(network, removable_blocks(network.architecture)[:2])


both_cuts = pytest.mark.parametrize("cut", [some_channels, some_blocks])


@both_cuts
@pytest.mark.parametrize("name", ["erfnet", "ndnet29-fcn32"])  # heads of one layer and heads of their own width
def test_cuts_preserve_auxiliary_heads(cut: Cut, name: str, image: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    network = space.load(name).build(5, auxiliary=True).eval()
    cut_down = cut(network)
    assert cut_down.auxiliary_weights == network.auxiliary_weights != ()
    assert [tuple(logits.shape) for logits in cut_down.outputs(image().float())] == [(1, 5, 44, 60)] * 2
    plain = cut_down.architecture.build(5).eval()
    plain.load_state_dict(cut_down.state_dict(), strict=False)
    assert torch.equal(plain(image().float()), cut_down(image().float()))


@pytest.mark.parametrize("name", ["erfnet", "ndnet29-fcn32"])
def test_auxiliary_heads_are_cut_exactly(
    name: str, image: Callable[..., Tensor], random_keep: Callable[..., Mask]
) -> None:
    """The head of a cut network gives the logits of the whole one in which no layer reads the removed channels."""
    torch.manual_seed(0)
    network = space.load(name).build(5, auxiliary=True).double().eval()
    cutter = Cutter(network.architecture, 5)
    keep = random_keep(cutter, seed=0)
    cut = cutter.cut(network, keep)
    graph = network.architecture.graph(5, auxiliary=True)
    for node in parametric(graph):
        read = graph.nodes[node.inputs[0]].channels
        if (
            node.kind in ("conv", "deconv") and read.max() < cutter.graph.atom_count
        ):  # other layers read a head's own channels
            gone = torch.from_numpy(np.flatnonzero(~keep[cutter.map.channel_of_atom[read]]))

            def silence(module: nn.Module, inputs: tuple[Tensor], gone: Tensor = gone) -> tuple[Tensor]:
                return (inputs[0].index_fill(1, gone, 0.0),)

            network.layer(node.name).register_forward_pre_hook(silence)
    with torch.no_grad():
        for found, wanted in zip(cut.outputs(image()), network.outputs(image()), strict=True):
            assert float((found - wanted).abs().max()) <= 1e-10 * float(wanted.abs().max())


@both_cuts
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_cuts_preserve_mode_and_type(
    cut: Cut, training: bool, dtype: torch.dtype, crossings: dict[str, Architecture]
) -> None:
    network = crossings["nonbt, conv_pool stem, cat decoder"].build(7).to(dtype).train(training)
    cut_down = cut(network)
    assert all(module.training is training for module in cut_down.modules())
    assert {parameter.dtype for parameter in cut_down.parameters()} == {dtype}
    assert {parameter.device.type for parameter in cut_down.parameters()} == {"cpu"}
    assert all(parameter.requires_grad for parameter in cut_down.parameters())
    assert cut_down.num_classes == 7
    counted = [value for name, value in cut_down.state_dict().items() if name.endswith("num_batches_tracked")]
    assert {value.dtype for value in counted} == {torch.int64}


@both_cuts
def test_a_cut_network_has_the_default_memory_layout(cut: Cut, crossings: dict[str, Architecture]) -> None:
    network = crossings["nonbt, conv_pool stem, cat decoder"].build(7)
    cut_down = cut(network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    assert all(value.is_contiguous() for value in cut_down.state_dict().values())


@both_cuts
def test_a_cut_network_shares_no_memory_with_the_original(cut: Cut, crossings: dict[str, Architecture]) -> None:
    network = crossings["nonbt, conv_pool stem, cat decoder"].build(7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for value in cut(network).state_dict().values():
        value.fill_(3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
