"""Single layers of a graph compared with plain PyTorch: grouped convolutions, gates, means of maps, pools."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.export.graph import onnx_bytes
from nas.latency.estimates.work import layer_work, total
from space.channels import channel_map, check_channels, widths
from space.count import graph_multiply_adds
from space.errors import ArchitectureError
from space.graph import Graph, Node
from space.network import Network

SIZES = [(24, 32), (23, 37)]


def graph_of(layers: Callable[[Graph, Node], Node], width: int = 48) -> Graph:
    """A convolution to `width` channels, some layers, and a 1x1 convolution to two outputs."""
    graph = Graph(activation="relu", align_corners=False)
    x = layers(graph, graph.conv(graph.image, width, 3, "first", bias=True))
    graph.outputs.append(graph.resize(graph.conv(x, 2, 1, "last", fixed=True), (1, 1)))
    return graph


def network_of(graph: Graph, counts: dict[str, int] | None = None) -> Network:
    torch.manual_seed(0)
    sizes = widths(graph, counts or {})
    return Network(graph, sizes, architecture=None, num_classes=2).eval()


def image_of(size: tuple[int, int]) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def ends(network: Network, between: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """The first convolution of `graph_of`, some function, and the last convolution, resized to the image."""
    first, last = (network.layer(name) for name in ("first", "last"))
    return functional.interpolate(last(between(first(image))), size=tuple(image.shape[2:]), mode="bilinear")


def squeezed(graph: Graph, x: Node) -> Node:
    """A gate from the mean, and the mean itself, added."""
    mean = graph.grid_pool(x, 1, 1)
    return graph.add(graph.gate(x, graph.conv(mean, len(x.channels), 1, "gate", bias=True)), mean)


POOLS = [(2, 2), (3, 2), (5, 2), (9, 4), (17, 8)]
LAYERS: dict[str, Callable[[Graph, Node], Node]] = {
    "grouped": lambda graph, x: graph.grouped(x, "grouped", 16),
    "grouped, strided and dilated": lambda graph, x: graph.grouped(x, "grouped", 16, stride=2, dilation=3),
    "gate of a mean": squeezed,
    "gate for each pixel": lambda graph, x: graph.gate(x, graph.conv(x, len(x.channels), 3, "gate")),
    **{
        f"average of {kernel}": lambda graph, x, k=kernel, s=step: graph.average_pool(x, k, s) for kernel, step in POOLS
    },
}


def by_hand(name: str, network: Network, x: Tensor) -> Tensor:
    """The layers of `LAYERS` in plain PyTorch, with the network's weights."""
    layer = network.layer
    if name.startswith("grouped"):
        weight = layer("grouped").get_parameter("weight")
        step, rate = (2, 3) if "strided" in name else (1, 1)
        parts = zip(x.split(16, 1), weight.split(16), strict=True)
        return torch.cat([functional.conv2d(x, w, None, step, rate, rate) for x, w in parts], 1)
    if name == "gate of a mean":
        mean = x.mean((2, 3), keepdim=True)
        return x * layer("gate")(mean).sigmoid() + mean
    if name == "gate for each pixel":
        return x / (1 + (-layer("gate")(x)).exp())
    kernel = int(name.removeprefix("average of "))
    step = dict(POOLS)[kernel]
    if kernel % 2:  # the zeros around the map count
        padded = functional.pad(x, [kernel // 2] * 4)
        return padded.unfold(2, kernel, step).unfold(3, kernel, step).mean((4, 5))
    sums, ones = (functional.pad(each, [0, step, 0, step]) for each in (x, torch.ones_like(x)))
    windows, there = (each.unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5)) for each in (sums, ones))
    rows, columns = (-(-length // 2) for length in x.shape[2:])
    return (windows / there.clamp(min=1))[..., :rows, :columns]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_onnx_graph_compute_the_same_as_pytorch(name: str, size: tuple[int, int]) -> None:
    network, image = network_of(graph_of(LAYERS[name])), image_of(size)
    with torch.no_grad():
        expected = ends(network, lambda x: by_hand(name, network, x), image)
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)
    session = onnxruntime.InferenceSession(onnx_bytes(network, size, labels=False), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_multiply_adds_of_a_layer_are_those_of_pytorch(
    name: str, flops: Callable[[nn.Module, torch.Tensor], int]
) -> None:
    graph = graph_of(LAYERS[name])
    network, size = network_of(graph), (23, 37)
    assert 2 * graph_multiply_adds(graph, widths(graph, {}), size) == flops(network, image_of(size))
    assert isinstance(network.layer("first"), nn.Conv2d)
    groups = [module.groups for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert groups == ([1, 3, 1] if name.startswith("grouped") else [1] * len(groups))


def test_the_mean_of_a_map_is_a_pooling_in_the_onnx_graph_and_is_spread_by_the_sum() -> None:
    model = onnx.load_from_string(onnx_bytes(network_of(graph_of(squeezed)), (24, 32), labels=False))
    kinds = {node.op_type for node in model.graph.node}
    assert {"GlobalAveragePool", "Mul", "Add"} <= kinds
    assert not kinds & {"MatMul", "ReduceMean", "Resize", "Split"}


def test_channels_that_are_read_together_are_cut_together() -> None:
    """All terms of a gate and a sum are one group; a grouped convolution makes no channels of its own."""
    graph = graph_of(lambda graph, x: squeezed(graph, graph.grouped(x, "grouped", 16)))
    mapping = channel_map(graph)
    assert (mapping.names, mapping.counts, mapping.granules) == (("first",), (48,), (16,))
    assert mapping.whole("first", 17) == 32
    assert mapping.keep_first({"first": 17})[mapping.members("first")].sum() == 32
    keep = mapping.keep_first({"first": 32})
    assert mapping.has_whole_granules(keep)
    keep[mapping.members("first")[0]] = False
    assert not mapping.has_whole_granules(keep)
    assert network_of(graph, {"first": 32}).layer("grouped").get_parameter("weight").shape == (32, 16, 3, 3)
    check_channels(graph, {"first": 32})
    with pytest.raises(ArchitectureError, match=r"'first' is cut 16 channels at a time.*got 24"):
        check_channels(graph, {"first": 24})


def test_granules_of_several_convolutions_are_as_large_as_the_largest() -> None:
    def layers(graph: Graph, x: Node) -> Node:
        both = graph.cat([graph.grouped(x, "eight", 8), graph.conv(x, 24, 1, "beside")])
        return graph.cat([graph.grouped(both, "four", 4), graph.grouped(x, "sixteen", 16)])

    mapping = channel_map(graph_of(layers))
    assert dict(zip(mapping.names, mapping.granules, strict=True)) == {"first": 16, "beside": 4}


def test_groups_narrower_than_a_block_are_work_in_the_plain_layout() -> None:
    found = {}
    for group in (8, 16):
        graph = graph_of(lambda graph, x, group=group: graph.grouped(x, "grouped", group))  # type: ignore[misc]
        found[group] = total(layer_work(graph, widths(graph, {}), (24, 32)))
    inside = (3 * 24 - 2) * (3 * 32 - 2)  # taps outside the padding, of nine for each pixel
    assert found[16]["conv 3x3 in groups of 16 multiply_adds"] == inside * 16 * 48
    assert found[8]["plain conv 3x3 in groups of 8 multiply_adds"] == 24 * 32 * 9 * 8 * 48
    assert found[8]["move count"] > found[16].get("move count", 0)
