"""A network that rounds as its INT8 form does, and warnings of weights with a wide range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import space
from nas.export.graph import onnx_bytes
from nas.export.grid import grid_of
from nas.export.quantized import Calibrated, multiply_adds
from nas.quantization.ranges import wide_layers, wide_words
from nas.training.fake_quantization import FakeQuantized
from space import Architecture
from space.paths import folded_state
from space.scale import scale_width

CLASSES = 6
SIZE = (48, 64)


def logits_of(graph: bytes, image: np.ndarray, *, as_written: bool = False) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if as_written:  # without ONNX Runtime's optimisations for this processor
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run(None, {"image": image})[
        0
    ]


def images_of(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(1, 3, *SIZE)).astype(np.float32) for _ in range(count)]


@pytest.mark.share(2)
@pytest.mark.parametrize(("name", "ways"), [("ndnet29-fcn32", (False,)), ("fast-scnn", (False, True))])
def test_a_network_that_rounds_gives_the_outputs_of_the_quantized_graph(
    name: str, ways: tuple[bool, ...], shallow: Callable[[str], Architecture]
) -> None:
    """Outputs agree to within a step of the grid of logits, since a value between two steps may be rounded either way.

    This holds for quantized convolutions alone, and with quantized layers between them.
    """
    torch.manual_seed(0)
    network = scale_width(shallow(name), 0.25).build(CLASSES).eval()
    images = images_of(2)
    calibrated = Calibrated(onnx_bytes(network, SIZE, labels=False), images)
    last = [node.index for node in network.architecture.graph(CLASSES).nodes if node.kind in ("conv", "deconv")][-1]
    image = torch.from_numpy(images[0])
    for between in ways:
        graph = calibrated.quantized(between=between)
        grid = grid_of(network, graph)
        step = grid.values[last].scale
        with torch.inference_mode():
            rounded, whole = FakeQuantized(network, grid)(image), network(image)
        given = torch.from_numpy(logits_of(graph, images[0]))
        assert float(((given - rounded).abs() <= step).float().mean()) > 0.99
        assert float(((given - whole).abs() <= step).float().mean()) < 0.9, "in full precision it gives something else"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast-scnn", "erfnet-encoder", "swiftnet-mnv2"])
def test_a_network_that_rounds_gives_the_outputs_of_the_graph_for_a_gpu(
    name: str, shallow: Callable[[str], Architecture]
) -> None:
    """Numbers are signed and around zero, and some convolutions are in floating point.

    In Fast-SCNN all norms are parts of convolutions. In the others some norms follow joined values (ERFNet), or several
    norms read one value (SwiftNet on MobileNetV2, whose activations are relu6).
    """
    torch.manual_seed(0)
    network = scale_width(shallow(name), 0.25).build(CLASSES).eval()
    images = images_of(2)
    graph = Calibrated(onnx_bytes(network, SIZE, labels=False), images).quantized(between=True, on_gpu=True)
    image = torch.from_numpy(images[0])
    with torch.inference_mode():
        rounded, whole = FakeQuantized(network, grid_of(network, graph))(image), network(image)
    given = torch.from_numpy(logits_of(graph, images[0], as_written=True))
    assert torch.allclose(given, rounded, atol=1e-4)
    assert not torch.allclose(given, whole, atol=1e-2)


@pytest.mark.parametrize(("between", "on_gpu"), [(False, False), (True, False), (True, True)])
def test_every_tensor_that_a_graph_rounds_is_a_value_that_the_network_rounds(
    between: bool, on_gpu: bool, shallow: Callable[[str], Architecture]
) -> None:
    """This includes tensors before separate norms, which follow joined convolutions and pools."""
    network = scale_width(shallow("erfnet-encoder"), 0.25).build(CLASSES).eval()
    graph = Calibrated(onnx_bytes(network, SIZE, labels=False), images_of(1)).quantized(between=between, on_gpu=on_gpu)
    model = onnx.load_from_string(graph).graph
    numbers = {each.name: onnx.numpy_helper.to_array(each) for each in model.initializer}
    rounding = [node for node in model.node if node.op_type == "QuantizeLinear" and node.input[0] not in numbers]
    steps = {float(numbers[node.input[1]]) for node in rounding}
    assert {each.scale for each in grid_of(network, graph).values.values()} == steps


def test_every_level_of_a_pyramid_reads_the_same_weights_per_channel(shallow: Callable[[str], Architecture]) -> None:
    """The exporter writes equal weights once, with copies that are no constants."""
    network = scale_width(shallow("swiftnet-rn18-pyramid"), 0.1).build(CLASSES).eval()
    graph = onnx_bytes(network, SIZE, labels=True)
    calibrated = Calibrated(graph, images_of(1))
    layers = {node.name for node in network.architecture.graph(CLASSES).nodes if node.kind == "conv"}
    for between in (False, True):
        assert grid_of(network, calibrated.quantized(between=between)).weights.keys() == layers
    assert sum(multiply_adds(graph).values()) == space.multiply_adds(network.architecture, SIZE, CLASSES)


def test_a_warning_of_wide_weights_names_folded_paths(shallow: Callable[[str], Architecture]) -> None:
    """A strong identity among the paths makes one weight of each channel far larger than the others."""
    architecture = scale_width(shallow("rdrnet-s-simple"), 0.25)
    trained = architecture.build(CLASSES, training_form=True)
    identities = [module for name, module in trained.named_modules() if name.endswith("identity_norm")]
    with torch.no_grad():
        for norm in identities:
            norm.get_parameter("weight").fill_(30.0)
    network = architecture.build(CLASSES)
    network.load_state_dict(folded_state(trained))
    found = wide_layers(network)
    assert len(found) == len(identities) > 0
    assert all(each.folded for each in found)
    assert "(re-parameterised)" in wide_words(found)
    assert wide_layers(architecture.build(CLASSES)) == ()
    assert wide_words(()) == ""


def test_a_warning_of_wide_weights_depends_on_the_device_of_the_graph() -> None:
    """The typical weight of a channel, a fortieth of its largest one, is 3.2 of 127 steps, or 1.6 of 64."""
    network = scale_width(space.load("erfnet"), 0.25).build(CLASSES)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1.0)
            layer.weight[:, 0, 0, 0] = 40.0
    assert len(wide_layers(network, elsewhere=True)) == len(layers)
    assert wide_layers(network, on_gpu=True) == ()
    image = next(layer for layer in layers if layer.in_channels == 3)
    with torch.no_grad():
        layers[-1].weight[:, 0, 0, 0] = image.weight[:, 0, 0, 0] = 80.0
    assert len(wide_layers(network, on_gpu=True)) == 1, "what reads the image stays in floating point"
