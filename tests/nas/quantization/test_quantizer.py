"""What is tried in which order, on an invented target; `test_quantize_command.py` does it on a real one."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import pytest
import torch

from nas.data import DataSpec, load
from nas.latency import WorkerError, parse_target
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.quantization.quantizer import QuantizationPlan, Quantizer
from nas.quantization.verdicts import kept
from nas.terminal import TELL_SECONDS, Progress
from space import Architecture
from space.network import Network
from space.scale import scale_width

SIZE = (48, 64)
WHOLE, QUANTIZED = parse_target("onnxruntime@cpu:1"), parse_target("onnxruntime:int8@cpu:1")


@dataclass
class Invented:
    """Full precision takes 10 ms; every tensor that is quantized saves `saves` of them."""

    saves: float
    asked: list[Target] = field(default_factory=list)

    @contextlib.contextmanager
    def of(self, target: Target, size: tuple[int, int], num_classes: int) -> Iterator[Invented]:
        assert (size, num_classes) == (SIZE, 11)
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
def network(shallow: Callable[[str], Architecture]) -> Network:
    torch.manual_seed(0)
    return scale_width(shallow("ndnet29-fcn32"), 0.25).build(11)


def quantizer(network: Network, target: Invented, points: float) -> tuple[Quantizer, list[str]]:
    dataset = load(DataSpec(size=SIZE, train_images=3, validation_images=2))
    plan = QuantizationPlan(targets=(WHOLE, QUANTIZED), points=points, images=2)
    said: list[str] = []
    slow = Progress(itertools.count(step=TELL_SECONDS).__next__)  # every image seems to take that long
    return Quantizer(network, dataset, plan, target.of, said.append, slow), said


def test_a_form_at_which_the_runtime_crashes_is_left_out(network: Network) -> None:
    @dataclass
    class Crashing(Invented):
        def measure_graph(self, graph: bytes, *, within: float = 0.015) -> Latency:
            if any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(graph).graph.node):
                raise WorkerError("the process measuring was killed by signal 11")
            return super().measure_graph(graph, within=within)

    said: list[str] = []
    plan = QuantizationPlan(targets=(WHOLE, QUANTIZED), images=4)
    data = load(DataSpec(size=SIZE, train_images=4, validation_images=2))
    loss, outcomes = Quantizer(network, data, plan, Crashing(saves=0.1).of, said.append).outcomes()
    assert [outcome.form.target for outcome in outcomes] == [WHOLE]
    assert kept(outcomes, loss) is outcomes[0]
    assert sum("left out: the process measuring was killed by signal 11" in words for words in said) == 2


def test_what_is_slower_is_neither_scored_nor_kept(network: Network) -> None:
    target = Invented(saves=-0.1)
    found, _ = quantizer(network, target, points=100)
    loss, outcomes = found.outcomes()
    assert [outcome.form.target for outcome in outcomes] == [WHOLE, QUANTIZED, QUANTIZED]
    assert [outcome.scored is None for outcome in outcomes] == [False, True, True]
    assert kept(outcomes, loss) is outcomes[0]
    assert target.asked == [WHOLE, QUANTIZED], "one process for each target"


def test_what_is_faster_and_as_good_as_asked_is_kept(network: Network) -> None:
    found, said = quantizer(network, Invented(saves=0.1), points=100)
    loss, outcomes = found.outcomes()
    best = kept(outcomes, loss)
    assert best.form.target == QUANTIZED
    assert best.latency.p50_milliseconds == min(outcome.latency.p50_milliseconds for outcome in outcomes)
    assert any(line.startswith("ranges of activations from 2 training images") for line in said)


def test_convolutions_stay_in_floating_point_until_no_more_is_lost_than_asked(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing may be lost: what does lose is given back, up to half of it, or INT8 is given up."""
    found, said = quantizer(network, Invented(saves=0.1), points=0)
    loss, outcomes = found.outcomes()
    best = kept(outcomes, loss)
    assert best.scored is not None
    assert loss.of(best.scored) <= 0
    if best.form.target == WHOLE:
        assert any("convolutions)" in line and "points lost" in line for line in said)
    told = re.findall(r"^(.+): (\d+) of (\d+) images, .* left$", capsys.readouterr().err, re.M)
    ended = [what for what, done, of in told if done == of]
    assert ended[:3] == ["scored", "ranges of activations", "scored"]
    assert "convolutions compared" in ended
