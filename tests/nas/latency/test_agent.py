"""Measuring over ssh on a host that has Python, NumPy and a runtime, but not this package."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import save_file

import space
from nas.errors import TargetError
from nas.latency import Meter, parse_target
from nas.latency.machine import lane
from nas.latency.protocol import anchor
from nas.latency.worker import parcel
from nas.latency.worker.session import environment

SIZE = (64, 96)
QUICK = 0.12  # requested half of the interval, as a share of the latency
TARGET = "onnxruntime@ssh:board/cpu:1"
BROKEN = """
__version__ = "0.0"
import numpy

class SessionOptions:
    def add_session_config_entry(self, name, value): ...

def set_global_thread_pool_sizes(one, other): ...

class InferenceSession:
    def __init__(self, graph, options, providers): ...
    def get_inputs(self):
        return [type("Input", (), {"name": "image"})]
    def run(self, names, feed):
        return [numpy.full((1, *feed["image"].shape[2:]), 2)]
"""

Board = Callable[..., Path]


@pytest.fixture
def board(tmp_path: Path, bare_python: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Board:
    """Makes `board` a host that ssh knows: this machine with a Python of its own, which can import only the named
    modules. Returns its home folder.
    """
    home, ssh = tmp_path / "home", tmp_path / "ssh"

    def make(*names: str, python: str = sys.executable, greeting: str = "") -> Path:
        home.mkdir()
        (home / "random.py").write_text("raise SystemExit('the current folder was imported')")
        its_python = bare_python(*names, python=python)
        ssh.write_text(
            f"""#!/bin/sh
while test "$1" = -o; do shift 2; done
shift
cd {home}
{greeting}
exec env -i PATH=/usr/bin:/bin HOME={home} TMPDIR={tempfile.gettempdir()} PYTHONDONTWRITEBYTECODE=1 \\
    FRAMEBUDGET_PYTHON={its_python} sh -c "$*"
"""
        )
        ssh.chmod(0o755)
        return home

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return make


def refused(target: str = TARGET) -> str:
    with pytest.raises(TargetError) as told, Meter(parse_target(target), SIZE, 4):
        pass
    message = str(told.value)
    assert "\n" not in message
    assert target in message
    return message


def test_a_host_without_this_package_measures(board: Board, tmp_path: Path) -> None:
    home = board("numpy", "onnxruntime")
    lacks = "import importlib.util as u; print([n for n in ('torch', 'yaml', 'nas', 'onnx') if u.find_spec(n)])"
    there = subprocess.run([tmp_path / "its-python", "-P", "-c", lacks], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == "[]"
    architecture, weights = space.load("ndnet29-fcn32"), tmp_path / "weights.safetensors"
    save_file(architecture.build(4).state_dict(), weights)
    with Meter(parse_target(TARGET), SIZE, 4, patience_seconds=0) as meter:
        told = dict(meter.environment)
        latency = meter.measure(architecture, weights=weights, within=QUICK)
    assert latency.target == TARGET
    assert latency.samples >= 5
    # The host is this machine, so a latency depends on the same environment.
    assert dict(latency.environment) == told == environment(parse_target("onnxruntime@cpu:1"))
    left = sorted(path for path in home.rglob("*") if path.is_file() and "Microsoft" not in path.parts)  # ORT's own
    assert [path.parent.relative_to(home) for path in left] == [Path(".cache/framebudget/anchors"), Path()]
    kept = anchor.read(left[0])
    assert kept is not None
    assert kept.milliseconds == pytest.approx(latency.reference_milliseconds)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_several_networks_take_turns_on_the_host(board: Board, runtime: str) -> None:
    pytest.importorskip(runtime)
    board("numpy", runtime)
    with Meter(parse_target(f"{runtime}@ssh:board/cpu:1"), SIZE, 4) as meter:
        networks = [space.load("ndnet29-fcn32"), space.load("erfnet-encoder")]
        fast, slow = meter.measure_together(networks, within=QUICK)
        again = meter.measure(networks[0], within=QUICK)
    assert slow.ratio > fast.ratio
    assert slow.reference_milliseconds == fast.reference_milliseconds
    assert again.samples >= 5


def test_a_network_whose_labels_differ_from_pytorch_is_not_timed(board: Board, tmp_path: Path) -> None:
    home = board("numpy")
    (tmp_path / "packages" / "onnxruntime.py").write_text(BROKEN)
    with Meter(parse_target(TARGET), SIZE, 4) as meter:
        connection = meter._worker
        with pytest.raises(TargetError, match=f"{TARGET} gives other labels than PyTorch on .*% of the pixels"):
            meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
        assert meter._worker is connection
        with pytest.raises(TargetError, match="gives other labels"):  # the agent still answers
            meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
    assert not list(home.rglob("*.yaml"))


@pytest.mark.parametrize(
    ("names", "lacking"), [([], "numpy onnxruntime"), (["onnxruntime"], "numpy"), (["numpy"], "onnxruntime")]
)
def test_libraries_that_the_host_lacks_are_named(board: Board, names: list[str], lacking: str) -> None:
    board(*names)
    message = refused()
    assert "cannot be timed on board: expected numpy and onnxruntime for" in message
    assert message.endswith(f"`pip install {lacking}` there")


def test_a_library_that_the_host_cannot_import_is_named(board: Board, tmp_path: Path) -> None:
    board("numpy")
    (tmp_path / "packages" / "onnxruntime.py").write_text("raise ImportError('libgomp.so.1: no such file')")
    assert "libgomp.so.1: no such file; install it again" in refused()


def test_a_host_without_python_is_refused(board: Board) -> None:
    board("numpy", python="/nowhere/python3")
    assert "install Python 3.10 or later there" in refused()


def test_a_host_with_too_old_a_python_is_refused(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "OLDEST_PYTHON", (3, 99))
    board("numpy", "onnxruntime")
    here = ".".join(str(number) for number in sys.version_info[:2])
    assert f"on board: expected Python 3.99 or later, got {here} (" in refused()


def test_every_python_3_can_read_the_code_that_checks_its_version() -> None:
    text = parcel.BOOTSTRAP.read_text("utf-8")
    assert ast.parse(text, feature_version=(3, 6)).body
    assert "from __future__" not in text  # annotations came with 3.7


def test_more_threads_than_the_host_has_cores_are_refused(board: Board) -> None:
    board("numpy", "onnxruntime")
    assert "ask for at most" in refused("onnxruntime@ssh:board/cpu:5000")


def test_a_shell_that_prints_a_greeting_is_refused(board: Board) -> None:
    board("numpy", "onnxruntime", greeting="echo Welcome to board")
    assert "printed 'Welcome to board' instead of an answer" in refused()


def test_a_dropped_connection_ends_all_processes_on_the_host(board: Board, family: Callable[[int], list[int]]) -> None:
    board("numpy", "onnxruntime")
    with Meter(parse_target(TARGET), SIZE, 4) as meter, ThreadPoolExecutor(1) as pool:
        assert meter._worker is not None
        process = meter._worker._process
        with lane.shared():  # so that the timing waits, and the connection can be cut
            measuring = pool.submit(meter.measure, space.load("ndnet29-fcn32"))
            started: list[int] = []
            while len(started) < 3 and not measuring.done():  # a shell, the agent and the network's process
                time.sleep(0.05)
                started = family(process.pid)
            assert len(started) >= 3
            assert process.stdin is not None
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), process.stdin.fileno())
            assert process.wait(timeout=60) == 0
        with pytest.raises(Exception, match="ended with code 0"):
            measuring.result(timeout=60)
    while any(family(each) for each in started):  # the kernel ends what is left with its parent, in its own time
        time.sleep(0.05)


def test_a_runtime_of_another_package_is_sent_with_its_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "boards" / "runtimes"
    folder.mkdir(parents=True)
    (tmp_path / "boards" / "__init__.py").write_text("import torch")
    (tmp_path / "boards" / "helper.py").write_text("VALUE = 1")
    (tmp_path / "boards" / "other.py").write_text("VALUE = 2")
    (folder / "__init__.py").write_text("")
    (folder / "quick.py").write_text("from boards.helper import VALUE\nfrom nas.latency.target import Target\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sent = parcel.sources("boards.runtimes.quick")
    assert {name for name in sent if name.startswith("boards")} == {
        "boards/__init__.py", "boards/helper.py", "boards/runtimes/__init__.py", "boards/runtimes/quick.py",
    }  # fmt: skip
    assert sent["boards/__init__.py"] == ""
