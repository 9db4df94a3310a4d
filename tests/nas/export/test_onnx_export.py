"""The exported ONNX graph computes the same as its network, for every published network at odd sizes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

import space
from nas.export.comparison import Comparison, compare, logits_of, same_labels
from nas.export.formats.onnx import open_graph
from nas.export.graph import INPUT_NAME, onnx_bytes, with_labels
from space import Architecture
from space.errors import UserError
from space.scale import scale_width


def noise(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(3))


def compare_onnx(network: nn.Module, graph: bytes, image: torch.Tensor) -> Comparison:
    return compare(logits_of(network, image), open_graph(graph), image)


def settled(network: nn.Module) -> nn.Module:
    """An untrained network with batch-norm statistics, slopes and offsets that are not the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name in ("running_mean", "weight", "bias", "running_var"):
                getattr(module, name).data.uniform_(0.1, 0.4)
            module.get_buffer("running_var").add_(1)
    return network.eval()


@pytest.mark.parametrize("name", space.published())
@pytest.mark.share(11)
def test_every_published_network_exports_at_an_odd_size(name: str) -> None:
    network = settled(space.load(name).build(11))
    data = onnx_bytes(network, (45, 84), labels=False)
    comparison = compare_onnx(network, data, noise((45, 84)))
    with torch.no_grad():
        largest = float(network(noise((45, 84))).abs().max())
    assert comparison.max_abs_difference is not None
    assert comparison.max_abs_difference < 1e-4 * largest
    assert comparison.same_labels == 1.0
    resized = [node.input[0] for node in onnx.load_from_string(data).graph.node if node.op_type == "Resize"]
    assert INPUT_NAME not in resized, "images are shrunk in other ways"


@pytest.mark.share(2)
@pytest.mark.parametrize("size", [(64, 96), (45, 85)])
def test_labels_at_half_the_size_are_repeated_after_the_arg_max(
    size: tuple[int, int], shallow: Callable[[str], Architecture]
) -> None:
    """This holds for labels written directly, and for labels behind logits as in `nas export`."""
    network = settled(replace(scale_width(shallow("fast-scnn"), 0.25), label_stride=2).build(7))
    logits = onnx_bytes(network, size, labels=False)
    comparison = compare_onnx(network, logits, noise(size))
    assert comparison.max_abs_difference is not None
    assert comparison.max_abs_difference < 1e-4
    for data in (onnx_bytes(network, size, labels=True), with_labels(logits)):
        assert compare_onnx(network, data, noise(size)).same_labels == 1.0
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data)).graph
        (decides,) = (node for node in graph.node if node.op_type == "ArgMax")
        shapes = {each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.value_info}
        assert shapes[decides.input[0]] == [1, 7, -(-size[0] // 2), -(-size[1] // 2)]
        used = {name for node in graph.node for name in node.input}
        assert {each.name for each in graph.initializer} <= used


@pytest.mark.share(2)
@pytest.mark.parametrize("size", [(180, 240), (122, 162)])
def test_the_graph_gives_labels(size: tuple[int, int], shallow: Callable[[str], Architecture]) -> None:
    network = settled(scale_width(shallow("swiftnet-rn18"), 0.25).build(5))
    data = onnx_bytes(network, size, labels=True)
    graph = onnx.load_from_string(data).graph
    assert [value.name for value in (*graph.input, *graph.output)] == [INPUT_NAME, "labels"]
    shape = [length.dim_value for length in graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, *size]
    comparison = compare_onnx(network, data, noise(size))
    assert comparison.max_abs_difference is None
    assert comparison.same_labels > 0.9999


def test_adaptive_pooling_to_grids_that_do_not_divide_is_exact() -> None:
    class Pooled(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            grids = [functional.adaptive_avg_pool2d(image, grid) for grid in ((4, 5), (3, None), 7, (1, 1))]
            size = (int(image.shape[-2]), int(image.shape[-1]))
            return torch.cat([functional.interpolate(grid, size=size, mode="nearest") for grid in grids], 1)

    data = onnx_bytes(Pooled(), (13, 23), labels=False)
    comparison = compare_onnx(Pooled(), data, noise((13, 23)))
    assert comparison.max_abs_difference is not None
    assert comparison.max_abs_difference < 1e-5


def test_the_graph_of_regseg_has_no_splits_and_averages_by_pooling(shallow: Callable[[str], Architecture]) -> None:
    """Splits, means over axes and matrix products leave the layout that runtimes convolve in; norms are folded."""
    network = scale_width(shallow("regseg"), 0.25).build(5).eval()
    kinds = {node.op_type for node in onnx.load_from_string(onnx_bytes(network, (64, 96), labels=True)).graph.node}
    assert {"GlobalAveragePool", "AveragePool", "Sigmoid", "Mul", "Resize", "Concat"} <= kinds
    assert not kinds & {"Split", "ReduceMean", "MatMul", "BatchNormalization"}


@pytest.mark.share(3)
@pytest.mark.parametrize("name", ["fast-scnn", "ddrnet23-slim", "rdrnet-s-simple"])
def test_the_mean_of_a_map_is_spread_without_resizing(name: str, shallow: Callable[[str], Architecture]) -> None:
    network = settled(scale_width(shallow(name), 0.25).build(5))
    data = onnx_bytes(network, (128, 256), labels=False)
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data)).graph
    shapes = {each.name: [axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in graph.value_info}
    resized = [shapes[node.input[0]] for node in graph.node if node.op_type == "Resize"]
    assert resized
    assert [1, 1] not in [shape[-2:] for shape in resized]
    comparison = compare_onnx(network, data, noise((128, 256)))
    assert comparison.max_abs_difference is not None
    assert comparison.max_abs_difference < 1e-4


def test_prelu_in_the_graph_is_exact_and_without_branches() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 4, 1), nn.PReLU())
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([-0.5, 0.0, 0.01, 0.25, 1.0, 1.5, -2.0, 3.0]))
    data = onnx_bytes(network, (32, 48), labels=False)
    assert "PRelu" not in {node.op_type for node in onnx.load_from_string(data).graph.node}
    comparison = compare_onnx(network, data, noise((32, 48)))
    assert comparison.max_abs_difference is not None
    assert comparison.max_abs_difference < 1e-5


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "align_corners", "resized"),
    [
        *[(size, False, False) for size in ((24, 48), (12, 24), (4, 8), (16, 32), (24, 24), (7, 95))],
        *[(size, True, False) for size in ((24, 48), (16, 32), (5, 7))],
        ((96, 192), False, True),
        ((24, 192), True, True),
    ],
)
def test_shrinking_is_pooling_or_a_product_in_the_graph(
    size: tuple[int, int], align_corners: bool, resized: bool, mode: str
) -> None:
    class Shrunk(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return functional.interpolate(image, size=size, mode=mode, align_corners=align_corners)

    network = Shrunk()
    data = onnx_bytes(network, (48, 96), labels=False)
    comparison = compare_onnx(network, data, noise((48, 96)))
    assert comparison.max_abs_difference is not None
    assert comparison.max_abs_difference < 1e-4
    assert ("Resize" in {node.op_type for node in onnx.load_from_string(data).graph.node}) == resized


@pytest.mark.slow
def test_operations_that_tracing_cannot_express_use_the_other_exporter() -> None:
    class Antialiased(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return functional.interpolate(image, size=(16, 24), mode="bicubic", antialias=True)

    data = onnx_bytes(Antialiased(), (32, 48), labels=False)
    comparison = compare_onnx(Antialiased(), data, noise((32, 48)))
    assert comparison.max_abs_difference is not None
    assert comparison.max_abs_difference < 1e-4


@pytest.mark.parametrize("exporters", [pytest.param("both", marks=pytest.mark.slow), "the one by tracing"])
def test_operations_that_onnx_cannot_express_are_refused(exporters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both exporters refuse; so does one alone where the package of the other, which is slow to load, is missing."""

    class Spectrum(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(image)

    if exporters != "both":
        monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"cannot be written as ONNX.*svd"):
        onnx_bytes(Spectrum(), (32, 48), labels=False)


def test_export_leaves_the_network_unchanged(shallow: Callable[[str], Architecture]) -> None:
    network = shallow("ndnet29-fcn32").build(3)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    onnx_bytes(network, (64, 96), labels=True)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_output_of_another_thread_is_printed_during_an_export(capsys: pytest.CaptureFixture[str]) -> None:
    class Talking(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            print("exporting")
            other = threading.Thread(target=print, args=("training",))
            other.start()
            other.join()
            return image + 1

    onnx_bytes(Talking(), (32, 48), labels=False)
    assert set(capsys.readouterr().out.splitlines()) == {"training"}


def test_the_graph_of_another_network_is_recognised(shallow: Callable[[str], Architecture]) -> None:
    torch.manual_seed(1)
    one, other = (settled(shallow("ndnet29-fcn32").build(5)) for _ in range(2))
    with torch.no_grad():
        next(reversed(list(other.parameters()))).normal_(std=100)
    data = onnx_bytes(other, (64, 96), labels=True)
    assert compare_onnx(one, data, noise((64, 96))).same_labels < 0.9


def test_labels_differ_by_a_margin_but_not_by_a_tie() -> None:
    logits = torch.tensor([1.0, 1.0 - 1e-6, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    labels = torch.tensor([[[0, 1], [0, 2]]])
    assert same_labels(logits, labels) == 0.75
    assert same_labels(logits, labels[:, :1]) == 0.0
    assert same_labels(logits * float("nan"), labels) == 0.0
