"""GPUs: other processes that compute on them, their clocks, their drivers, and the cores beside them."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest
import torch

from nas.errors import TargetError
from nas.latency import parse_target
from nas.latency.machine import device, gpu, load
from nas.latency.machine.gpu import UNSEEN, GpuState, processor_seconds, read, slowdowns
from nas.latency.machine.watch import Watch
from nas.latency.protocol import anchor
from nas.latency.protocol.controls import Controls
from nas.latency.runtimes import tensorrt
from nas.latency.worker.connection import Connection

BUSY = "import os; print(flush=True)\nwhile os.getppid() > 1: pass"
IDLE = "import sys; print(flush=True); sys.stdin.read()"
SAY_CORES = "import json, os; print(json.dumps({'cores': [*os.sched_getaffinity(0)]}))"


def state_with(*processes: subprocess.Popen[bytes]) -> GpuState:
    """The state of a GPU that these processes have open."""
    used = {each.pid: processor_seconds(each.pid) for each in processes}
    return GpuState(others={process: seconds for process, seconds in used.items() if seconds is not None})


def test_a_process_that_computes_nothing_during_a_timing_is_no_disturbance() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as busy,
        subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as idle,
    ):
        for started in (busy, idle):
            assert started.stdout is not None
            started.stdout.readline()
        seconds, states = time.monotonic(), []
        for _ in range(2):
            states.append(state_with(busy, idle))
            time.sleep(0.5)
        seconds = time.monotonic() - seconds
        busy.kill()
        assert slowdowns([(states[0], states[1])], seconds) == ("other processes computed on the GPU: 1",)


def test_processor_time_is_that_which_the_process_itself_reads() -> None:
    code = "import time; [sum(range(10**6)) for _ in range(20)]; print(time.process_time(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        itself = float(process.stdout.readline())
        assert processor_seconds(process.pid) == pytest.approx(itself, abs=0.05)
    assert processor_seconds(process.pid) is None  # the process has ended


def test_a_slowdown_counts_before_and_after_a_timing() -> None:
    quiet, capped = GpuState(reasons=0x1), GpuState(reasons=0x4 | 0x1)
    assert slowdowns([(quiet, quiet), (quiet, capped), (capped, quiet)], 1.0) == (
        "its power cap held the GPU's clocks down",
    )
    assert slowdowns([(quiet, quiet)], 1.0) == ()


def test_the_state_of_a_gpu_without_a_driver_is_unknown() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert read("cuda:0") == UNSEEN
    else:
        pytest.skip("there is a driver here")


class Nvml:
    """The part of NVML that a driver knows."""

    NVMLError = pynvml.NVMLError

    def __init__(self, **answers: object) -> None:
        for name, answer in answers.items():
            setattr(self, name, functools.partial(self._answer, answer))

    @staticmethod
    def _answer(answer: object, handle: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer


UNKNOWN = pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)


@pytest.mark.parametrize(
    ("driver", "reasons"),
    [
        (Nvml(nvmlDeviceGetCurrentClocksEventReasons=0x20, nvmlDeviceGetComputeRunningProcesses=[]), 0x20),
        (Nvml(nvmlDeviceGetCurrentClocksEventReasons=0x20), 0x20),  # a driver without the function that lists processes
        (Nvml(nvmlDeviceGetCurrentClocksEventReasons=0x20, nvmlDeviceGetComputeRunningProcesses=UNKNOWN), 0x20),
        (Nvml(nvmlDeviceGetCurrentClocksThrottleReasons=0x8), 0x8),  # before driver 535
        (
            Nvml(nvmlDeviceGetCurrentClocksEventReasons=UNKNOWN, nvmlDeviceGetCurrentClocksThrottleReasons=0x8),
            0x8,
        ),
        (Nvml(), 0),
    ],
)
def test_a_driver_that_lacks_some_functions_still_gives_the_rest(driver: Nvml, reasons: int) -> None:
    assert gpu.state_of(driver, object()) == GpuState(reasons=reasons)


@pytest.mark.parametrize(
    ("build", "driver", "said"),
    [
        ("13.0", 12040, ["built for CUDA 13.0", "up to 12.4", "whl/cu126", "dali-cu12"]),
        ("12.8", 11040, ["built for CUDA 12.8", "up to 11.4", "whl/cu118"]),
        (None, 13000, ["CPU build", "whl/cu130", "dali-cu13"]),
        (None, 12080, ["CPU build", "whl/cu126"]),
        ("12.6", 12080, ["CUDA 12.6 does not start", "nvidia-smi"]),
        ("13.0", 14010, ["does not start"]),
        ("12.6", 10020, ["install a newer driver"]),
        ("12.6", None, ["does not answer", "nvidia-smi"]),
    ],
)
def test_wheels_that_fit_the_driver_are_named(build: str | None, driver: int | None, said: list[str]) -> None:
    answer = gpu.wheels(build, driver)
    assert all(each in answer for each in said), answer


def test_a_gpu_that_torch_cannot_use_is_no_reason_to_train_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "_gpus_of_driver", lambda: (1, 12040))
    with pytest.raises(TargetError, match=r"there is a GPU here, but torch .* cannot use it"):
        gpu.training_device()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert gpu.training_device() == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpu, "_gpus_of_driver", lambda: (0, None))
    assert gpu.training_device() == "cpu"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("__version__ = '10.9.0.34'", "CUDA devices"),  # then a GPU is missing
        ("__version__ = '11.0.1'", "expected TensorRT 10, got 11.0.1"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "cannot be loaded"),
    ],
)
def test_the_version_of_tensorrt_comes_from_its_module(
    module: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installed package may be called tensorrt-cu12."""
    if torch.cuda.is_available():
        pytest.skip("TensorRT may be here")
    (tmp_path / "tensorrt.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    missing = tensorrt.available(parse_target("tensorrt:fp16@cuda:0"))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert missing is not None
    assert said in missing


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_timings_on_a_gpu_have_a_core_that_trainings_on_other_gpus_leave_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Affinity belongs to threads, here to those of a process that began with all cores."""
    monkeypatch.setattr(device, "BEGAN_WITH", frozenset(range(os.cpu_count() or 1)))

    def all_cores() -> set[int]:
        os.sched_setaffinity(0, device.BEGAN_WITH)
        return os.sched_getaffinity(0)

    def timing() -> None:
        cores = all_cores()
        with device.on_core_of("cuda:1", gpus=2):
            inside = os.sched_getaffinity(0)
        assert os.sched_getaffinity(0) == cores
        assert inside == {device.core_of("cuda:1")}
        assert inside != {device.core_of("cuda:0")}, "each GPU has one of its own"

    def training() -> None:
        cores, of_timings = all_cores(), device.core_of("cuda:1")
        for _ in range(3):  # one training after the other in the same thread
            assert device.leave_cores_of(("cuda:1",))
        assert os.sched_getaffinity(0) == cores - {of_timings}
        asked = Connection(parse_target("null@cpu:1"), ["-c", SAY_CORES])
        assert set(asked.hear(60)["cores"]) == cores, "what is started to time has them all"
        asked.stop()
        assert os.sched_getaffinity(0) == cores - {of_timings}

    for work in (timing, training, training, timing):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(work).result()


def test_trainings_leave_at_most_half_of_the_cores_free() -> None:
    before = os.sched_getaffinity(0)
    assert not device.leave_cores_of(tuple(f"cuda:{number}" for number in range(len(before))))
    assert not device.leave_cores_of(()), "nor says that one is left where there is no other GPU"
    assert os.sched_getaffinity(0) == before


def test_a_machine_with_one_gpu_uses_all_its_cores_for_it() -> None:
    before = os.sched_getaffinity(0)
    with device.on_core_of("cuda:0", gpus=1):
        assert os.sched_getaffinity(0) == before


def test_an_anchor_on_a_gpu_records_its_disturbances() -> None:
    """Networks take 1 ms each on a clock that advances 1 ms at each reading, on a GPU that is hot."""
    ticks = itertools.count(step=1_000_000)

    def snapshot(device: str) -> load.Snapshot:
        return replace(load.snapshot(), gpu=GpuState(reasons=0x20) if device == "cuda:0" else UNSEEN)

    watch = Watch(nanoseconds=lambda: next(ticks), sleep=lambda seconds: None, snapshot=snapshot)
    beside = Controls(reference=tuple, canary=tuple, key={}, device="cuda:0", watch=watch)
    hot = "heat held the GPU's clocks down"
    assert hot in anchor.take(beside).flagged
    assert hot not in anchor.take(replace(beside, device="cpu")).flagged
