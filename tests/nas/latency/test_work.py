"""Work of layers: padding, folding and changes of layout, compared with the runtimes' own graphs."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

import space
from nas.export.graph import onnx_bytes
from nas.latency.estimates.table import LatencyTable
from nas.latency.estimates.work import layer_work, total, unit
from space.channels import widths
from space.graph import Node, Pair
from space.sizes import output_size

SIZE = (64, 96)


def work_of(architecture: space.Architecture, num_classes: int) -> list[Mapping[str, float]]:
    graph = architecture.graph(num_classes)
    return layer_work(graph, widths(graph, architecture.channels), SIZE)


def sum_of(name: str, work: Iterable[Mapping[str, float]]) -> float:
    return sum(amount for quantity, amount in total(work).items() if unit(quantity) == name)


def taps_inside(node: Node, read: Pair) -> int:
    """The number of taps of a convolution that fall inside the map, summed over its output pixels."""
    pads = [step * (side - 1) // 2 for step, side in zip(node.dilation, node.kernel, strict=True)]
    ones, kernel = torch.ones(1, 1, *read), torch.ones(1, 1, *node.kernel)
    return int(functional.conv2d(ones, kernel, stride=node.stride, padding=pads, dilation=node.dilation).sum())


def multiply_adds_inside(architecture: space.Architecture, num_classes: int) -> int:
    """Multiply-adds of convolutions, without products with padding."""
    graph = architecture.graph(num_classes)
    given = widths(graph, architecture.channels).given
    sizes = [output_size(node, SIZE) for node in graph.nodes]
    convs = [node for node in graph.nodes if node.kind == "conv"]
    assert convs
    reads = {node.index: node.group_width or given[node.inputs[0]] for node in convs}
    return sum(taps_inside(node, sizes[node.inputs[0]]) * reads[node.index] * given[node.index] for node in convs)


@pytest.mark.parametrize("rate", [1, 2, 5, 14, 40])
def test_taps_in_the_padding_are_no_work(rate: int) -> None:
    """Maps are 8x12: of a convolution dilated by more than that, one tap of nine is left."""
    stage = replace(
        space.load("swiftnet-rn18").stages[0], block="plain", width=16, depth=2, stride=2, rates=(rate,), down="block"
    )
    whole = space.load("erfnet-encoder")
    network = replace(whole, stem=replace(whole.stem, kind="conv_pool"), stages=(stage, replace(stage, stride=1)))
    graph, work = network.graph(16), work_of(network, 16)
    sizes = [output_size(node, SIZE) for node in graph.nodes]
    dilated = [node for node in graph.nodes if node.kind == "conv" and node.dilation == (rate, rate)]
    inside = [node for node in dilated if node.name.startswith("stage1")]
    assert inside
    for node in inside:
        found = sum_of("multiply_adds", [work[node.index]])
        assert found == taps_inside(node, sizes[node.inputs[0]]) * 16 * 16


def test_multiply_adds_are_padded_to_whole_blocks() -> None:
    """SwiftNet-RN18 without its pyramid pooling has widths of 64, 128, 256 and 512 only, and here 16 classes."""
    whole = replace(space.load("swiftnet-rn18"), context=None)
    assert sum_of("multiply_adds", work_of(whole, 16)) == multiply_adds_inside(whole, 16)
    narrow = space.load("ndnet45-ende")
    assert sum_of("multiply_adds", work_of(narrow, 16)) > multiply_adds_inside(narrow, 16)


@pytest.mark.share(6)
@pytest.mark.parametrize(
    ("name", "activation", "whole"),
    [
        ("erfnet", "relu", False),
        ("fplnet", "prelu", False),
        ("ndnet45-ende", "relu", False),
        ("ndnet45-ende", "relu6", True),
        ("swiftnet-rn18", "prelu", False),
        ("swiftnet-mnv2", "relu6", True),
        ("regseg", "relu", True),
        ("fast-scnn", "relu", True),
        ("ddrnet23-slim", "relu", True),
    ],
)
def test_values_change_their_layout_as_often_as_in_onnx_runtimes_own_graph(
    name: str, activation: str, whole: bool, tmp_path: Path, shallow: Callable[[str], space.Architecture]
) -> None:
    """This includes activations that are not folded everywhere, and means of maps that are spread. Networks have one
    block in each stage where more would change nothing.
    """
    architecture = replace(space.load(name) if whole else shallow(name), activation=activation)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    graph = onnx_bytes(architecture.build(11).eval(), SIZE, labels=True)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    work = total(work_of(architecture, 11))
    assert work.get("spread count", 0) == kinds["Expand"]
    moves = kinds["ReorderInput"] + kinds["ReorderOutput"]
    if not moves:
        pytest.skip("this processor's kernels keep the plain layout")
    assert work["move count"] == pytest.approx(moves, rel=0.15, abs=2)


def test_folded_layers_add_no_work() -> None:
    architecture = space.load("swiftnet-rn18")
    graph = architecture.graph(11)
    worked = [node.kind for node, work in zip(graph.nodes, work_of(architecture, 11), strict=True) if work]
    assert "norm" not in worked[:20]
    assert {"conv", "resize"} <= set(worked)


def test_a_channel_count_that_the_block_width_does_not_divide_is_not_blocked() -> None:
    architecture = space.load("erfnet-encoder")
    group = next(name for name, count in space.groups(architecture).items() if count == 64)
    even = replace(architecture, channels={group: 60})
    odd = replace(architecture, channels={group: 59})
    assert not any(quantity.startswith("plain conv") for quantity in total(work_of(even, 11)))
    assert any(quantity.startswith("plain conv") for quantity in total(work_of(odd, 11)))


def test_a_table_prices_layers_that_sum_to_the_network() -> None:
    table = LatencyTable(
        target="onnxruntime@cpu",
        height=SIZE[0],
        width=SIZE[1],
        milliseconds={"conv 3x3 multiply_adds": 1e-8},
        unit_milliseconds={"multiply_adds": 2e-8, "count": 1e-3},
        networks=1,
        seconds=1.0,
        error=0.1,
        environment={},
    )
    architecture = space.load("swiftnet-rn18")
    by_layer = [table.prices.sum(work) for work in work_of(architecture, 11)]
    assert len(by_layer) == len(architecture.graph(11).nodes)
    assert sum(by_layer) == pytest.approx(table.estimate(architecture, 11))
    assert table.prices.sum({"conv 3x3 multiply_adds": 1e6, "conv 1x1 multiply_adds": 1e6, "nothing like it": 5}) == (
        pytest.approx(0.01 + 0.02)
    )
    with pytest.raises(space.UserError, match="calibrate again"):
        LatencyTable(**{**vars(table), "milliseconds": {"conv count": -1.0}})
