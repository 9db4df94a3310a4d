"""Libraries that are installed but do not load: each is left out with a one-line message, and commands go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOST = "libonnxruntime.so.1: cannot open shared object file: No such file or directory"
BROKEN = {
    "ImportError": f"raise ImportError('{LOST}')",
    "OSError": f"raise OSError('{LOST}')",
    "TypeError": f"raise TypeError('{LOST}')",  # protobuf of another version
}
STATES = """
from nas.latency import default, parse_target, runtimes
print(runtimes.missing(parse_target("onnxruntime@cpu")))
print(*default.ready_targets())
"""
CHOOSE = """
from nas.latency import default
print(default.choose(lambda target: default.Speed(milliseconds=1.0, low=1.0, high=1.0)).target)
"""
REQUIRE = """
from nas.latency import parse_target, runtimes
runtimes.require(parse_target("onnxruntime@cpu"))
"""


def python(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the modules in `site` before the installed ones."""
    paths = os.pathsep.join([str(site), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(site / "cache")}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_runtime_is_no_candidate_for_the_default(kind: str, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(BROKEN[kind])
    done = python(tmp_path, "-c", STATES)
    assert done.returncode == 0, done.stderr
    reason, ready = done.stdout.splitlines()
    assert reason == f"its libraries do not load: {LOST}; install them again"
    assert ready.startswith("openvino@cpu")
    assert "onnxruntime" not in ready


def test_a_broken_runtime_is_reported_each_time_a_target_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(BROKEN["ImportError"])
    for _ in range(2):
        done = python(tmp_path, "-c", CHOOSE)
        assert done.stdout == "openvino@cpu\n", done.stderr
        assert f"left out: onnxruntime: its libraries do not load: {LOST}; install them again\n" in done.stderr


def test_a_target_on_a_broken_runtime_is_refused(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(BROKEN["OSError"])
    done = python(tmp_path, "-c", REQUIRE)
    assert f"TargetError: onnxruntime@cpu cannot be timed here: its libraries do not load: {LOST}" in done.stderr


@pytest.mark.parametrize("kind", BROKEN)
def test_the_doctor_goes_on_after_a_broken_pytorch(kind: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(BROKEN[kind])
    done = python(tmp_path, "-m", "nas.cli", "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert f"missing or broken ({LOST})" in lines["torch"]
    assert lines["torch@cpu"].endswith(f"not here: its libraries do not load: {LOST}; install them again")
    assert lines["torch@cuda:0"].endswith(f"not here: its libraries do not load: {LOST}; install them again")
    assert {"dali", "ray", "default target", "export onnx"} <= set(lines)
    assert list(lines)[-1] == "cache"
