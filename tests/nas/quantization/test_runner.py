"""Forms run in a process of their own, so that a crash of the runtime ends nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.data import DataSpec, load, make_loader
from nas.errors import UnmeasuredError
from nas.export.graph import onnx_bytes
from nas.export.quantized import Calibrated
from nas.latency import WorkerError, parse_target
from nas.quantization.forms import Form
from nas.quantization.runner import MODULE, Runner
from nas.quantization.scoring import FormScores, score_forms
from nas.quantization.sensitivity import most_sensitive_first
from space import Architecture
from space.network import Network

SIZE, CLASSES = (48, 64), 11
WHOLE, QUANTIZED = parse_target("onnxruntime@cpu:1"), parse_target("onnxruntime:int8@cpu:1")
OWNER = """
import time
from nas.latency import parse_target
from nas.quantization.forms import Form
from nas.quantization.runner import Runner
runner = Runner((48, 64))
runner.labels(Form(target=parse_target("onnxruntime@cpu:1"), graph=open(GRAPH, "rb").read()))
print("ran", flush=True)
time.sleep(600)
"""
Brittle = Callable[[str], None]


@pytest.fixture(scope="module")
def network(plain_network: Callable[..., Architecture]) -> Network:
    torch.manual_seed(0)
    return plain_network((8, 1), (16, 1)).build(CLASSES).eval()


@pytest.fixture(scope="module")
def graph(network: Network) -> bytes:
    return onnx_bytes(network, SIZE, labels=True)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(1, 3, *SIZE)).astype(np.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def calibrated(graph: bytes, images: list[np.ndarray]) -> Calibrated:
    return Calibrated(graph, images)


def children_of(process: int) -> list[int]:
    """Child processes that run forms."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(each) for each in text.split() if MODULE.encode() in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_a_form_that_crashes_is_refused_and_does_not_change_other_scores(
    brittle: Brittle, network: Network, graph: bytes, calibrated: Calibrated
) -> None:
    brittle("all")
    dataset = load(DataSpec(size=SIZE, train_images=2, validation_images=3))
    loader = make_loader(dataset, "validation", batch_size=1, augmentation=None)
    quantized = calibrated.quantized()
    whole, int8 = Form(target=WHOLE, graph=graph), Form(target=QUANTIZED, graph=quantized)
    crashing = Form(target=parse_target("brittle:int8@cpu:1"), graph=quantized)
    with closing(Runner(SIZE)) as runner:
        scores, found = score_forms([whole, crashing, int8], network, loader.epoch(0), CLASSES, runner)
        assert len(children_of(os.getpid())) == 1
        alone, kept = score_forms([whole, int8], network, loader.epoch(0), CLASSES, runner)
    assert children_of(os.getpid()) == []
    assert isinstance(found[1], UnmeasuredError)
    assert str(found[1]) == "its process was killed by signal 11; its last output: (none)"
    assert scores == alone
    assert [found[0], found[2]] == kept
    assert all(isinstance(each, FormScores) for each in kept)


def test_a_refusal_carries_the_words_of_the_runtime_and_the_process_goes_on(
    brittle: Brittle, graph: bytes, calibrated: Calibrated, images: list[np.ndarray]
) -> None:
    brittle("refuses")
    target = parse_target("brittle@cpu:1")
    with closing(Runner(SIZE)) as runner:
        runner.image[...] = images[0]
        expected = runner.labels(Form(target=target, graph=graph))
        running = children_of(os.getpid())
        with pytest.raises(UnmeasuredError, match=r"^RuntimeError: no kernel$"):
            runner.labels(Form(target=target, graph=calibrated.quantized()))
        with pytest.raises(UnmeasuredError, match="available here; ask for at most"):
            runner.labels(Form(target=parse_target("onnxruntime@cpu:999"), graph=graph))
        assert np.array_equal(runner.labels(Form(target=WHOLE, graph=graph)), expected)
        assert children_of(os.getpid()) == running
        os.kill(running[0], signal.SIGKILL)  # as the kernel does when memory runs out, which is no verdict on a form
        with pytest.raises(WorkerError, match="that runs onnxruntime@cpu:1 was killed by signal 9") as told:
            runner.labels(Form(target=WHOLE, graph=graph))
        assert told.value.ended


@pytest.mark.slow
def test_a_convolution_whose_quantization_crashes_the_runtime_counts_as_most_sensitive(
    brittle: Brittle, graph: bytes, calibrated: Calibrated, images: list[np.ndarray]
) -> None:
    brittle("part")
    whole, int8 = parse_target("brittle@cpu:1"), parse_target("brittle:int8@cpu:1")
    said: list[str] = []
    with closing(Runner(SIZE)) as runner:
        forms = Form(target=whole, graph=graph), Form(target=int8, graph=calibrated.quantized())
        order = most_sensitive_first(calibrated, *forms, images, runner, said.append)
    assert sorted(order) == sorted(calibrated.convolutions)
    died = "left out: its process was killed by signal 11; its last output: (none)"
    assert said == [f"brittle:int8@cpu:1 ({name} alone): {died}" for name in calibrated.convolutions]


@pytest.mark.slow
def test_the_process_of_a_killed_owner_ends(graph: bytes, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(graph)
    code = OWNER.replace("GRAPH", repr(str(tmp_path / "graph.onnx")))
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ran\n"
    (child,) = children_of(owner.pid)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("it runs on")
