"""Who computes on a GPU beside us, told from who only has it open."""

from __future__ import annotations

import subprocess
import sys
import time

import pynvml
import pytest

from nas.latency.machine.gpu import UNSEEN, GpuState, processor_seconds, read, slowdowns

BUSY = "import os; print(flush=True)\nwhile os.getppid() > 1: pass"
IDLE = "import sys; print(flush=True); sys.stdin.read()"


def state_of(*processes: subprocess.Popen[bytes]) -> GpuState:
    """The state of a GPU that these have open."""
    used = {each.pid: processor_seconds(each.pid) for each in processes}
    return GpuState(others={process: seconds for process, seconds in used.items() if seconds is not None})


def test_a_process_that_stands_still_while_we_time_is_no_stranger() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as busy,
        subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as idle,
    ):
        for started in (busy, idle):
            assert started.stdout is not None
            started.stdout.readline()
        seconds, states = time.monotonic(), []
        for _ in range(2):
            states.append(state_of(busy, idle))
            time.sleep(0.5)
        seconds = time.monotonic() - seconds
        busy.kill()
        assert slowdowns([(states[0], states[1])], seconds) == ("other processes computed on the GPU: 1",)


def test_processor_time_is_what_the_process_itself_reads() -> None:
    code = "import time; [sum(range(10**6)) for _ in range(20)]; print(time.process_time(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        itself = float(process.stdout.readline())
        assert processor_seconds(process.pid) == pytest.approx(itself, abs=0.05)
    assert processor_seconds(process.pid) is None  # it has ended


def test_a_slowdown_counts_wherever_it_was_seen() -> None:
    quiet, capped = GpuState(reasons=0x1), GpuState(reasons=0x4 | 0x1)
    assert slowdowns([(quiet, quiet), (quiet, capped), (capped, quiet)], 1.0) == (
        "its power cap held the GPU's clocks down",
    )
    assert slowdowns([(quiet, quiet)], 1.0) == ()


def test_without_a_driver_nothing_is_seen() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert read("cuda:0") == UNSEEN
    else:
        pytest.skip("there is a driver here")
