"""The forms that a quantizer tries, in order, on an invented target; `test_quantize_command.py` uses a real one."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from nas.data import Dataset, DataSpec, Split, load
from nas.data.dataset import label_map
from nas.errors import TargetError
from nas.export.graph import onnx_bytes
from nas.latency import WorkerError, parse_target
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.quantization.fine_tuning import QuantizationAwareTuning
from nas.quantization.quantizer import QuantizationPlan, Quantizer
from nas.quantization.verdicts import kept
from nas.terminal import TELL_SECONDS, ProgressLine
from nas.training import Recipe, load_recipe
from nas.training.trainer import Trainer
from space import Architecture
from space.network import Network
from space.stem import Stem

SIZE = (48, 64)
CLASSES = 6  # of different greys
BLOCK = 16  # pixels
EPOCHS = 5
WHOLE, QUANTIZED = parse_target("onnxruntime@cpu:1"), parse_target("onnxruntime:int8@cpu:1")


@dataclass
class Invented:
    """A target on which full precision takes 10 ms, and each quantized tensor saves `saves` milliseconds."""

    saves: float
    asked: list[Target] = field(default_factory=list)

    @contextlib.contextmanager
    def of(self, target: Target, size: tuple[int, int], num_classes: int) -> Iterator[Invented]:
        assert size == SIZE
        assert num_classes in (11, CLASSES)
        self.asked.append(target)
        yield self

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = 0.015) -> Latency:
        raise AssertionError("graphs are timed")

    def measure_graph(self, graph: bytes, *, within: float = 0.015) -> Latency:
        nodes = onnx.load_from_string(graph).graph.node
        quantized = sum(node.op_type == "QuantizeLinear" for node in nodes)
        milliseconds = 10 - self.saves * quantized
        return Latency(
            p50_milliseconds=milliseconds, p90_milliseconds=milliseconds, p99_milliseconds=milliseconds,
            ci_low_milliseconds=0.99 * milliseconds, ci_high_milliseconds=1.01 * milliseconds, samples=40,
            ratio=milliseconds, ratio_low=0.99 * milliseconds, ratio_high=1.01 * milliseconds,
            reference_milliseconds=1.0, raw_p50_milliseconds=milliseconds,
            target=str(self.asked[-1]), height=48, width=64, scope="nothing",
        )  # fmt: skip


@pytest.fixture(scope="module")
def network(plain_network: Callable[..., Architecture]) -> Network:
    torch.manual_seed(0)
    return plain_network((8, 1), (16, 1)).build(11)


def quantizer(
    network: Network, target: Invented, points: float, *, tuning: QuantizationAwareTuning | None = None
) -> tuple[Quantizer, list[str]]:
    dataset = load(DataSpec(size=SIZE, train_images=3, validation_images=2))
    plan = QuantizationPlan(targets=(WHOLE, QUANTIZED), points=points, images=2, tuning=tuning)
    said: list[str] = []
    slow = ProgressLine(itertools.count(step=TELL_SECONDS).__next__)  # on this clock every image takes that long
    return Quantizer(network, dataset, plan, target.of, said.append, slow), said


def test_a_form_that_crashes_the_runtime_is_left_out(network: Network) -> None:
    @dataclass
    class Crashing(Invented):
        def measure_graph(self, graph: bytes, *, within: float = 0.015) -> Latency:
            if any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(graph).graph.node):
                raise WorkerError("Traceback (most recent call last):\n  in it\nRuntimeError: no kernel")
            return super().measure_graph(graph, within=within)

    said: list[str] = []
    plan = QuantizationPlan(targets=(WHOLE, QUANTIZED), images=4)
    data = load(DataSpec(size=SIZE, train_images=4, validation_images=2))
    quantizer = Quantizer(network, data, plan, Crashing(saves=0.1).of, said.append)
    loss, timed_forms = quantizer.timed_forms()
    ways = ("convolutions", "convolutions and what lies between")
    assert quantizer.refused == {f"{QUANTIZED} ({words})": "RuntimeError: no kernel" for words in ways}
    assert [each.form.target for each in timed_forms] == [WHOLE]
    assert kept(timed_forms, loss) is timed_forms[0]
    assert sum(words.endswith("left out: RuntimeError: no kernel") for words in said) == 2


def test_a_lower_precision_that_the_runtime_refuses_is_left_out(network: Network) -> None:
    @dataclass
    class Refusing(Invented):
        refused: tuple[Target, ...] = ()

        def measure_graph(self, graph: bytes, *, within: float = 0.015) -> Latency:
            if self.asked[-1] in self.refused:
                raise TargetError("OpenVINO would compute in f32")
            return super().measure_graph(graph, within=within)

    data = load(DataSpec(size=SIZE, train_images=2, validation_images=2))
    half, said = parse_target("openvino:bf16@cpu:1"), list[str]()
    plan = QuantizationPlan(targets=(WHOLE, half))
    _, timed_forms = Quantizer(network, data, plan, Refusing(saves=0.1, refused=(half,)).of, said.append).timed_forms()
    assert [each.form.target for each in timed_forms] == [WHOLE]
    assert f"{half}: left out: OpenVINO would compute in f32" in said
    every = Quantizer(network, data, plan, Refusing(saves=0.1, refused=(WHOLE, half)).of, said.append)
    with pytest.raises(
        TargetError, match="runs the network in full precision, got none of onnxruntime@cpu:1, openvino"
    ):
        every.timed_forms()


@pytest.mark.slow
@pytest.mark.parametrize("at", ["all", "part"])
def test_a_form_that_crashes_the_runtime_during_scoring_is_left_out(
    network: Network, brittle: Callable[[str], None], at: str
) -> None:
    """The runtime crashes at every quantized graph, or only at partly quantized ones, which are scored untimed."""
    brittle(at)
    int8, said = parse_target("brittle:int8@cpu:1"), list[str]()
    plan = QuantizationPlan(targets=(WHOLE, int8), points=0, images=2)
    data = load(DataSpec(size=SIZE, train_images=3, validation_images=2))
    loss, timed_forms = Quantizer(network, data, plan, Invented(saves=0.1).of, said.append).timed_forms()
    assert kept(timed_forms, loss).form.target == WHOLE
    died = "left out: its process was killed by signal 11; its last output: (none)"
    left_out = [line.removesuffix(died) for line in said if line.endswith(died)]
    if at == "all":
        assert len(timed_forms) == 1
        assert left_out == [f"{int8} (convolutions): ", f"{int8} (convolutions and what lies between): "]
        return
    assert [each.scored is None for each in timed_forms] == [False] * 3
    assert [re.sub(r"\(.* alone\)", "(one)", line) for line in left_out] == [
        *[f"{int8} (one): "] * 4,
        f"{int8} (2 of 4 convolutions): ",
    ]


def test_a_slower_form_is_neither_scored_nor_kept(network: Network) -> None:
    target = Invented(saves=-0.1)
    tuning = QuantizationAwareTuning(epochs=1, recipe=load_recipe("quick"))
    found, said = quantizer(network, target, points=100, tuning=tuning)
    loss, timed_forms = found.timed_forms()
    assert [each.form.target for each in timed_forms] == [WHOLE, QUANTIZED, QUANTIZED]
    assert [each.scored is None for each in timed_forms] == [False, True, True]
    assert kept(timed_forms, loss) is timed_forms[0]
    assert target.asked == [WHOLE, QUANTIZED], "one process for each target"
    assert said[-1] == f"{QUANTIZED}: not fine-tuned, since it is not significantly faster than {WHOLE}"


def test_a_faster_form_of_sufficient_accuracy_is_kept(network: Network) -> None:
    tuning = QuantizationAwareTuning(epochs=1, recipe=load_recipe("quick"))
    found, said = quantizer(network, Invented(saves=0.1), points=100, tuning=tuning)
    loss, timed_forms = found.timed_forms()
    best = kept(timed_forms, loss)
    assert best.form.target == QUANTIZED
    assert said[-1] == f"{QUANTIZED}: not fine-tuned, since it loses no more than 100 points"
    assert best.latency.p50_milliseconds == min(each.latency.p50_milliseconds for each in timed_forms)
    assert any(line.startswith("ranges of activations from 2 training images") for line in said)


def test_sensitive_convolutions_stay_in_floating_point_until_the_loss_is_small_enough(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no loss allowed, up to half of the convolutions go back to floating point, or INT8 is given up."""
    found, said = quantizer(network, Invented(saves=0.1), points=0)
    loss, timed_forms = found.timed_forms()
    best = kept(timed_forms, loss)
    assert best.scored is not None
    assert loss.of(best.scored) <= 0
    if best.form.target == WHOLE:
        assert any("convolutions)" in line and "points lost" in line for line in said)
    told = re.findall(r"^(.+): (\d+) of (\d+) images, .* left$", capsys.readouterr().err, re.M)
    ended = [what for what, done, of in told if done == of]
    assert ended[:3] == ["scored", "ranges of activations", "scored"]
    assert "convolutions compared" in ended


def draw(folder: Path, index: int, random: np.random.Generator) -> tuple[Path, Path]:
    """Grey blocks whose brightness is their class."""
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
    return replace(load_recipe("quick"), brightness=0.0, contrast=0.0, scale=(1.0, 1.0), warmup_steps=4, batch_size=2)


@pytest.fixture(scope="module")
def trained(greys: Dataset, recipe: Recipe, plain_network: Callable[..., Architecture]) -> Network:
    """A network that separates the classes, with large weights on a channel that is always 0 beside small weights."""
    architecture = plain_network((16, 1), stem=Stem(kind="convs", width=16, convolutions=3))
    trainer = Trainer(architecture, greys, replace(recipe, epochs=10))
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
            after[:, 0, 0, 0] = 80 * after.flatten(1).abs().amax(1)
    return network.eval()


def test_fine_tuning_recovers_the_loss_of_int8_and_the_better_form_is_kept(
    trained: Network, greys: Dataset, recipe: Recipe
) -> None:
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    said: list[str] = []
    tuning = QuantizationAwareTuning(epochs=EPOCHS, recipe=recipe)
    plan = QuantizationPlan(targets=(WHOLE, QUANTIZED), points=8, images=12, tuning=tuning)
    loss, timed_forms = Quantizer(trained, greys, plan, Invented(saves=0.1).of, said.append).timed_forms()
    best = kept(timed_forms, loss)
    rounded = [each.scored for each in timed_forms if each.form.target == QUANTIZED and each.form.tuned is None]
    lost = min(loss.of(scored) for scored in rounded if scored is not None)
    assert lost > 10
    assert best.scored is not None
    assert loss.of(best.scored) < lost / 2
    assert best.form.epochs == EPOCHS
    assert str(best.form).endswith(f"fine-tuned for {EPOCHS} epochs)")
    assert best.form.tuned is not None
    assert onnx_bytes(best.form.tuned, SIZE, labels=True) != onnx_bytes(trained, SIZE, labels=True)
    assert [line for line in said if line.startswith("epoch")][-1].startswith(f"epoch {EPOCHS}/{EPOCHS}  loss ")
    assert any(line.startswith("note: weights of 4 convolutions range so widely") for line in said)
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items()), "it is left as it was"
