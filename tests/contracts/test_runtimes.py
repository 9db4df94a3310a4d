"""What every runtime must do, those in nas/latency/runtimes and those of other packages; a new one is tested by being
there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import space
from nas.export.comparison import logits_of, same_labels
from nas.latency import Meter, runtimes
from nas.latency.protocol import anchor
from nas.latency.protocol.reference import CLASSES, Canary, Reference
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.latency.worker.session import build, tie_of
from space.errors import TargetError

SIZES = ((64, 96), (45, 84))
SLOW = ("torch-compile",)  # to prepare: it calls a C++ compiler
NULL = Target(runtime="null", threads=1)


def targets() -> list[object]:
    """Every runtime at every precision on every device that it names."""
    found = []
    for name in runtimes.names():
        for offered in runtimes.targets(name):
            target = offered if offered.on_cuda else replace(offered, threads=1)
            marks = [pytest.mark.gpu] * target.on_cuda + [pytest.mark.slow] * (name in SLOW)
            found.append(pytest.param(target, id=str(target), marks=marks))
    return found


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
    network = build(space.load(name), None, 7)  # float16 cannot hold what a plain untrained one computes
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    call = runtime.prepare(network, image, target)
    first, second = call().clone(), call()
    assert first.shape == (1, *size)
    assert torch.equal(first, second)
    assert same_labels(logits_of(network, image), first.cpu(), tie_of(target)) >= 0.999


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
    target = runtimes.targets(name)[0]
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
        f"import sys; from nas.latency import runtimes; runtimes.targets('{name}');"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_null_gives_the_same_record_in_every_process_and_goes_through_the_whole_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(cache: Path) -> tuple[Latency, list[int]]:
        """With an anchor of its own, and the processes that were ours while it was measured."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        with Meter(NULL, (64, 96), 4) as meter:
            latency = meter.measure(space.load("ndnet29-fcn32"))
            own = os.getpid()
            return latency, [int(each) for each in Path(f"/proc/{own}/task/{own}/children").read_text().split()]

    one, its_processes = measured(tmp_path / "one")
    other, others_processes = measured(tmp_path / "other")
    assert one == other
    assert set(its_processes) - set(others_processes)
    assert set(others_processes) - set(its_processes)
    assert (one.flagged, one.set_aside) == ((), 0)
    assert len(one.blocks) >= 8
    assert one.samples >= 5 * len(one.blocks)
    assert len(set(one.blocks)) == 1
    assert one.ratio_low == one.ratio == one.ratio_high
    kept = [anchor.read(next((tmp_path / cache).rglob("anchors/*.yaml"))) for cache in ("one", "other")]
    assert [each.milliseconds for each in kept if each is not None] == [one.reference_milliseconds] * 2


@pytest.mark.parametrize(
    ("network", "parameters", "shape", "total"),
    [(Reference(), 209_003, (1, CLASSES, 32, 32), 3779.2224), (Canary(), 7_296, (1, 64, 8, 8), 5692.9243)],
    ids=["reference", "canary"],
)
def test_the_networks_beside_every_candidate_are_frozen(
    network: nn.Module, parameters: int, shape: tuple[int, ...], total: float
) -> None:
    """Anchors and ratios of every published result hang on it: if this fails, restore the file."""
    assert sum(tensor.numel() for tensor in network.parameters()) == parameters
    logits = logits_of(network, torch.ones(1, 3, 32, 32))
    assert logits.shape == shape
    assert float(logits.double().abs().sum()) == pytest.approx(total, rel=1e-5)
