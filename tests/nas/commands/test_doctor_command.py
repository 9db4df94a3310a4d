"""`nas doctor`: facts of this machine, and advice."""

from __future__ import annotations

import platform
import shutil

import onnxruntime
import pytest
import torch

from nas.commands.doctor import dali_advice
from nas.export import formats
from nas.host.processor import gpu_precision_words
from nas.latency import default, runtimes
from nas.latency.default import Speed
from nas.latency.target import Target

CU12, CU13 = "nvidia-dali-cuda120", "nvidia-dali-cuda130"


def speed(target: Target) -> Speed:
    milliseconds = 1.0 if target.runtime == "onnxruntime" else 2.0
    return Speed(milliseconds=milliseconds, low=milliseconds, high=milliseconds)


def test_the_doctor_lists_the_machine_and_its_libraries(nas, cache):
    shutil.rmtree(cache / "framebudget" / "defaults", ignore_errors=True)  # another test may have filled it
    unknown = nas("doctor")
    ready = ", ".join(map(str, default.ready_targets()))  # with bfloat16 where the processor computes in it
    assert ready.startswith("onnxruntime@cpu, openvino@cpu")
    assert f"the fastest of {ready}: timed once" in unknown.out
    assert not unknown.err, "nothing was timed for it"
    kept = default.choose(speed)  # invented speeds instead of timings
    answer = nas("doctor")
    assert answer.code == 0, answer.err
    lines = {line.split("  ")[0]: line for line in answer.out.splitlines()}
    assert platform.python_version() in lines["python"]
    assert torch.__version__ in lines["torch"]
    assert lines["cores"].split()[1] == "1"
    assert "GiB available" in lines["memory"]
    assert kept.target == "onnxruntime@cpu"
    assert f"{kept.target}: {kept.reason}" in lines["default target"]
    assert str(cache) in lines["cache"]
    assert "GiB free" in lines["cache"]
    assert {"dali", "ray", "optuna", "torch-pruning"} <= set(lines)
    assert all(any(line.startswith(name) for line in lines) for name in runtimes.names())
    assert lines["onnxruntime@cpu"].endswith("ready")
    assert lines["null@cpu"].endswith("ready: simulated, for tests")
    assert {f"export {name}" for name in formats.names()} <= set(lines)
    assert lines["export onnx"].endswith("ready: ONNX (.onnx)")
    assert lines["export openvino"].endswith("ready: OpenVINO IR (.xml, .bin)")
    assert formats.load("tensorrt").missing() or "ready" in lines["export tensorrt"]
    assert onnxruntime.__version__  # which is why it is ready


def test_advice_on_lower_precision_follows_the_compute_capability_of_a_gpu():
    assert gpu_precision_words("int8", (7, 5)).startswith("tensor cores compute in int8")
    assert gpu_precision_words("int8", (7, 0)).startswith("no tensor cores for it before compute capability 7.2")
    assert gpu_precision_words("fp16", (7, 0)).startswith("tensor cores compute in fp16")
    assert gpu_precision_words("fp32", (9, 0)) == ""


@pytest.mark.parametrize(
    ("cuda", "installed", "expected"),
    [
        ("13.0", {CU13}, ""),
        ("12.8", {CU12}, ""),
        (None, {CU12}, ""),
        (None, {CU13}, ""),
        (None, {CU12, CU13}, f"pip uninstall {CU12}, and install {CU13} again"),
        (None, set(), "dali-cu13"),
        ("12.6", set(), "dali-cu12"),
        ("13.0", {CU12}, f"pip uninstall {CU12}, pip install {CU13}"),
        ("12.8", {CU13}, f"pip uninstall {CU13}, pip install {CU12}"),
        ("12.8", {CU12, CU13}, f"pip uninstall {CU13}, and install {CU12} again"),
    ],
)
def test_dali_has_to_fit_the_cuda_of_torch(cuda, installed, expected):
    advice = dali_advice(cuda, frozenset(installed))
    assert expected in advice if expected else advice == ""
