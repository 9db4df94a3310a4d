"""A network that rounds as its INT8 form does, what training gives back so, and which weights are warned of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import space
from nas.data import Dataset, Split
from nas.data.dataset import label_map
from nas.export.graph import onnx_bytes
from nas.export.grid import grid_of
from nas.export.quantized import Calibrated, multiply_adds
from nas.latency import parse_target
from nas.quantization.calibration import calibration_images
from nas.quantization.fine_tuning import FineTuning, fine_tuned
from nas.quantization.forms import Form
from nas.quantization.ranges import wide_layers, wide_words
from nas.quantization.scoring import FormScores, score_on_validation
from nas.training import Recipe, load_recipe
from nas.training.evaluation import evaluate
from nas.training.fake_quantization import FakeQuantized
from nas.training.trainer import Trainer
from space import Architecture
from space.network import Network
from space.paths import folded_state
from space.scale import scale_width

QUANTIZED = parse_target("onnxruntime:int8@cpu:1")
CLASSES = 6
SIZE = (48, 64)
BLOCK = 16  # pixels

NARROW = """
stem: {kind: convs, width: 16, kernel: 3, convolutions: 3, image: false, halvings: 1}
stages:
- {block: plain, width: 16, depth: 1, stride: 2}
context: null
decoder: null
head: {kind: linear}
activation: relu
levels: 1
norm_epsilon: 0.001
bias: false
align_corners: false
"""


def logits_of(graph: bytes, image: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


def images_of(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(1, 3, *SIZE)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("name", ["ndnet29-fcn32", "fast-scnn"])
def test_a_network_that_rounds_gives_what_the_quantized_graph_gives(
    name: str, between: bool, shallow: Callable[[str], Architecture]
) -> None:
    """To within a step of the grid of its logits."""
    torch.manual_seed(0)
    network = scale_width(shallow(name), 0.25).build(CLASSES).eval()
    images = images_of(2)
    graph = Calibrated(onnx_bytes(network, SIZE, labels=False), images).quantized(between=between)
    grid = grid_of(network, graph)
    last = [node.index for node in network.architecture.graph(CLASSES).nodes if node.kind in ("conv", "deconv")][-1]
    step = grid.values[last].scale
    image = torch.from_numpy(images[0])
    with torch.inference_mode():
        rounded, whole = FakeQuantized(network, grid)(image), network(image)
    given = torch.from_numpy(logits_of(graph, images[0]))
    assert float((given - rounded).abs().max()) <= step
    assert float((given - whole).abs().max()) > step, "in full precision it gives something else"


def test_every_level_of_a_pyramid_reads_the_same_weights_per_channel(shallow: Callable[[str], Architecture]) -> None:
    """The exporter writes weights that are equal once, and copies of them that are no constants."""
    network = scale_width(shallow("swiftnet-rn18-pyramid"), 0.1).build(CLASSES).eval()
    graph = onnx_bytes(network, SIZE, labels=True)
    grid = grid_of(network, Calibrated(graph, images_of(1)).quantized())
    layers = {node.name for node in network.architecture.graph(CLASSES).nodes if node.kind == "conv"}
    assert grid.weights.keys() == layers
    assert sum(multiply_adds(graph).values()) == space.multiply_adds(network.architecture, SIZE, CLASSES)


def draw(folder: Path, index: int, random: np.random.Generator) -> tuple[Path, Path]:
    """Blocks of grey, of a class each: how bright they are says which."""
    label = np.kron(random.integers(0, CLASSES, (3, 4)), np.ones((BLOCK, BLOCK))).astype(np.uint8)
    image = 30 + 36 * label[..., None] + random.normal(0, 8, (*SIZE, 3))
    paths = folder / f"{index}.png", folder / f"{index}_label.png"
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[0])
    Image.fromarray(label).save(paths[1])
    return paths


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("greys")
    random = np.random.default_rng(0)
    images, labels = zip(*(draw(folder, index, random) for index in range(18)), strict=True)
    return Dataset(
        name="greys",
        classes=tuple("abcdef"),
        palette=tuple((grey, grey, grey) for grey in range(CLASSES)),
        label_map=label_map(CLASSES),
        train=Split(images=images[:12], labels=labels[:12]),
        validation=Split(images=images[12:], labels=labels[12:]),
        size=SIZE,
    )


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return replace(load_recipe("quick"), brightness=0.0, contrast=0.0, scale=(1.0, 1.0), warmup_steps=4)


@pytest.fixture(scope="module")
def trained(greys: Dataset, recipe: Recipe) -> Network:
    """It tells the classes apart, and most of its weights are small beside ones that never matter: one channel is 0."""
    trainer = Trainer(Architecture.from_yaml(NARROW, "narrow"), greys, replace(recipe, epochs=20))
    while not trainer.finished:
        trainer.run_epoch()
    network = trainer.architecture.build(CLASSES)
    network.load_state_dict(trainer.weights())
    nodes = network.architecture.graph(CLASSES).nodes
    behind = {node.inputs[0]: node for node in nodes if node.kind in ("act", "conv")}
    for norm in (node for node in nodes if node.kind == "norm"):
        read = behind.get(behind[norm.index].index) if norm.index in behind else None
        if read is None or read.kind != "conv":
            continue
        before, after = network.layer(norm.name), network.layer(read.name).get_parameter("weight")
        with torch.no_grad():
            before.get_parameter("weight")[0] = before.get_parameter("bias")[0] = 0
            after[:, 0] = 0
            after[:, 0, 0, 0] = 40 * after.flatten(1).abs().amax(1)
    return network.eval()


def test_training_gives_back_what_rounding_loses(trained: Network, greys: Dataset, recipe: Recipe) -> None:
    graph = onnx_bytes(trained, SIZE, labels=True)
    calibrated = Calibrated(graph, calibration_images(greys))

    def scores_of(quantized: bytes) -> FormScores:
        return score_on_validation([Form(target=QUANTIZED, graph=quantized)], trained, greys)[1][0]

    quantized = calibrated.quantized()
    grid = grid_of(trained, quantized)
    whole, before = evaluate(trained, greys).miou, scores_of(quantized).scores.miou
    assert whole - before > 0.1
    assert evaluate(FakeQuantized(trained, grid), greys).miou == pytest.approx(before, abs=0.02)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    said: list[str] = []
    tuned = fine_tuned(trained, greys, grid, FineTuning(epochs=10, recipe=recipe), said.append)
    after = scores_of(calibrated.with_weights_of(onnx_bytes(tuned, SIZE, labels=True)).quantized())
    assert after.scores.miou - before > 0.5 * (whole - before)
    assert len(said) == 10
    assert said[-1].startswith("epoch 10/10")
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items()), "it is left as it was"


def test_weights_that_range_too_widely_for_8_bits_are_told(trained: Network) -> None:
    found = wide_layers(trained)
    assert {each.name for each in found} == {"stem.conv1", "stem.conv2", "stage0.block0.1_3x3", "head.logits"}
    assert "weights of 4 convolutions range so widely" in wide_words(found)
    assert wide_layers(trained.architecture.build(CLASSES)) == ()
    assert wide_words(()) == ""


def test_what_was_folded_from_several_paths_is_said_to_be(shallow: Callable[[str], Architecture]) -> None:
    """A strong identity among the paths makes one weight of each channel far larger than the others."""
    architecture = scale_width(shallow("rdrnet-s-simple"), 0.25)
    trained = architecture.build(CLASSES, trained=True)
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
