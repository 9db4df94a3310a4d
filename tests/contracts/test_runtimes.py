"""What every runtime in nas/latency/runtimes must do; a new file there is tested by being there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import space
from nas.export.onnx import logits_of, same_labels
from nas.latency import runtimes
from nas.latency.protocol.reference import CLASSES, Canary, Reference
from nas.latency.target import PRECISIONS, Target
from nas.latency.worker.session import build
from space.errors import TargetError

SIZES = ((64, 96), (45, 84))
SLOW = ("torch-compile",)  # to prepare: it calls a C++ compiler


def targets() -> list[object]:
    """Every runtime at every precision on every device that it names."""
    found = []
    for name in runtimes.names():
        module = runtimes.load(_any_target(name))
        for kind, precisions in module.PRECISIONS.items():
            for precision in precisions:
                target = Target.parse(f"{name}:{precision}@{kind}" + (":1" if kind == "cpu" else ":0"))
                marks = [pytest.mark.gpu] * target.on_cuda + [pytest.mark.slow] * (name in SLOW)
                found.append(pytest.param(target, id=str(target), marks=marks))
    return found


def _any_target(name: str) -> Target:
    for device in ("cpu", "cuda:0"):
        for precision in PRECISIONS:
            target = Target(runtime=name, precision=precision, device=device)
            try:
                runtimes.load(target)
            except TargetError:
                continue
            return target
    raise AssertionError(f"{name} runs at no precision on no device")


def ready(target: Target) -> runtimes.Runtime:
    runtime = runtimes.load(target)
    missing = runtime.available(target)
    if missing is not None:
        pytest.skip(f"{target}: {missing}")
    return runtime


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["ndnet29-fcn32", "swiftnet-mnv2"])
def test_labels_are_those_of_pytorch(target: Target, size: tuple[int, int], name: str) -> None:
    runtime = ready(target)
    network = build(space.load(name).to_yaml(), None, 7)  # float16 cannot hold what a plain untrained one computes
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    run = runtime.prepare(network, image, target)
    first, second = run().clone(), run()
    assert first.shape == (1, *size)
    assert torch.equal(first, second)
    tie = 2e-2 if target.on_cuda else 1e-4
    assert same_labels(logits_of(network, image), first.cpu(), tie) >= 0.999


@pytest.mark.parametrize("target", targets())
def test_preparing_leaves_the_network_alone_and_two_run_side_by_side(target: Target) -> None:
    runtime = ready(target)
    reference = Reference().eval()
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    one = runtime.prepare(reference, image, target)
    expected = one().clone()
    other = runtime.prepare(space.load("ndnet29-fcn32").build(CLASSES).eval(), image, target)
    other()
    assert torch.equal(one(), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in reference.state_dict().items())
    assert next(reference.parameters()).device.type == "cpu"


@pytest.mark.parametrize("name", runtimes.names())
def test_a_runtime_tells_its_versions_or_what_to_install(name: str) -> None:
    target = _any_target(name)
    runtime = runtimes.load(target)
    missing = runtime.available(target)
    if missing is None:
        assert runtime.versions()
        assert all(isinstance(text, str) and text for text in runtime.versions().values())
    else:
        assert missing.strip()
        with pytest.raises(TargetError, match="cannot be timed here"):
            runtimes.require(target)


@pytest.mark.parametrize("name", runtimes.names())
def test_finding_a_runtime_loads_no_heavy_library(name: str) -> None:
    code = (
        "import sys; from nas.latency import runtimes; import importlib;"
        f"importlib.import_module('nas.latency.runtimes.{name.replace('-', '_')}');"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("network", "parameters", "shape", "total"),
    [(Reference(), 209_003, (1, CLASSES, 32, 32), 3779.2224), (Canary(), 7_296, (1, 64, 8, 8), 5692.9243)],
    ids=["reference", "canary"],
)
def test_what_stands_beside_every_candidate_is_frozen(
    network: nn.Module, parameters: int, shape: tuple[int, ...], total: float
) -> None:
    """Anchors and ratios of every published result hang on it: if this fails, restore the file."""
    assert sum(tensor.numel() for tensor in network.parameters()) == parameters
    logits = logits_of(network, torch.ones(1, 3, 32, 32))
    assert logits.shape == shape
    assert float(logits.double().abs().sum()) == pytest.approx(total, rel=1e-5)
