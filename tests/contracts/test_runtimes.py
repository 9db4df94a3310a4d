"""Contract of runtimes: every file in nas/latency/runtimes and every installed runtime of another package is tested."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

import space
from nas.errors import TargetError
from nas.export.comparison import logits_of, same_labels
from nas.export.quantized import graph_in
from nas.latency import Meter, runtimes
from nas.latency.protocol import anchor
from nas.latency.protocol.reference import CLASSES, Canary, Reference
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.latency.worker import parcel
from nas.latency.worker.session import build, tie_of
from space import Architecture
from space.scale import scale_width

SLOW = ("torch-compile",)  # to prepare: it calls a C++ compiler
Shallow = Callable[[str], Architecture]
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


def imported_at_the_top(tree: ast.Module) -> Iterator[str]:
    """Modules that the statements of a module name, those in its functions and for type checkers not."""
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield str(statement.module)


@pytest.mark.share(6)
@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize(("name", "size"), [("ndnet29-fcn32", (45, 84)), ("swiftnet-mnv2", (64, 96))])
def test_labels_of_a_runtime_are_those_of_pytorch(
    target: Target, name: str, size: tuple[int, int], shallow: Shallow
) -> None:
    runtime = ready(target)
    architecture = scale_width(shallow(name), 0.25)
    network = build(architecture, None, 7)  # float16 cannot hold what a plain untrained one computes
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    call = runtime.prepare(network, image, target)
    first, second = call().clone(), call()
    assert first.shape == (1, *size)
    assert torch.equal(first, second)
    assert same_labels(logits_of(network, image), first.cpu(), tie_of(target)) >= 0.999


@pytest.mark.share(6)
@pytest.mark.parametrize("target", targets())
def test_preparing_leaves_the_network_unchanged_and_two_networks_run_side_by_side(
    target: Target, shallow: Shallow
) -> None:
    runtime = ready(target)
    reference = Reference().eval()
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    one = runtime.prepare(reference, image, target)
    expected = one().clone()
    other = runtime.prepare(scale_width(shallow("ndnet29-fcn32"), 0.25).build(CLASSES).eval(), image, target)
    other()
    assert torch.equal(one(), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in reference.state_dict().items())
    assert next(reference.parameters()).device.type == "cpu"


@pytest.mark.share(4)
@pytest.mark.parametrize("target", targets())
def test_a_runtime_that_reads_graphs_gives_the_same_labels_without_the_network(
    target: Target, shallow: Shallow
) -> None:
    """Such a runtime can be sent to a host that has its library but not this package."""
    runtime = ready(target)
    if not runtimes.reads_graphs(target):
        pytest.skip("it does not read ONNX graphs")
    reader = cast(runtimes.GraphRuntime, runtime)
    library = importlib.import_module(reader.LIBRARY)
    assert runtime.versions()[reader.LIBRARY] == str(library.__version__)
    network = build(scale_width(shallow("ndnet29-fcn32"), 0.25), None, 7)
    image = torch.randn(1, 3, 45, 84, generator=torch.Generator().manual_seed(3))
    graph = graph_in(target.precision, network, image, on_gpu=target.on_cuda)
    labels = reader.open_graph(graph, image.numpy(), target)()
    assert isinstance(labels, np.ndarray)
    assert np.array_equal(labels, runtime.prepare(network, image, target)().cpu().numpy())


@pytest.mark.parametrize("name", runtimes.names())
def test_modules_sent_to_a_host_import_only_the_standard_library_and_numpy(name: str) -> None:
    """The modules are also written for the oldest Python that they are sent to."""
    reader = runtimes.reader(runtimes.targets(name)[0])
    if reader is None:
        pytest.skip("it does not read ONNX graphs on the CPU, so that nothing is sent")
    sent = parcel.sources(reader.module)
    assert {"nas/latency/worker/agent.py", "nas/latency/protocol/timer.py", "nas/latency/target.py"} <= set(sent)
    assert (sent["space/__init__.py"], sent["nas/latency/__init__.py"]) == ("", "")
    ours = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in sent}
    known = ours | sys.stdlib_module_names | {"numpy"}
    foreign = [
        f"{file} imports {module}"
        for file, text in sent.items()
        for module in imported_at_the_top(ast.parse(text, feature_version=parcel.OLDEST_PYTHON))
        if module not in known and module.partition(".")[0] not in known - {"nas", "space"}
    ]
    assert foreign == []


@pytest.mark.parametrize("name", runtimes.names())
def test_a_runtime_gives_its_versions_or_the_package_to_install(name: str) -> None:
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


@pytest.mark.share(4)
@pytest.mark.parametrize("name", runtimes.names())
def test_finding_a_runtime_loads_no_heavy_library(name: str) -> None:
    code = (
        f"import sys; from nas.latency import runtimes; runtimes.targets('{name}');"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_null_gives_the_same_record_in_every_process_and_goes_through_the_whole_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(cache: Path) -> tuple[Latency, list[int]]:
        """A latency measured with an anchor of its own, and this test's child processes during the measurement."""
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
    """Anchors and ratios of every published result depend on these networks: if this fails, restore their file."""
    assert sum(tensor.numel() for tensor in network.parameters()) == parameters
    logits = logits_of(network, torch.ones(1, 3, 32, 32))
    assert logits.shape == shape
    assert float(logits.double().abs().sum()) == pytest.approx(total, rel=1e-5)
