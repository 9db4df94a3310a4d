"""The lane, which keeps timings apart from training steps: real processes, recorded on one monotonic clock."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas.errors import HaltedError
from nas.latency.machine import device, lane
from nas.latency.target import Target
from nas.latency.worker import connection
from nas.latency.worker.connection import Connection
from nas.latency.worker.replies import WorkerError

# After a line of input it enters `kind` `count` times, stays for `hold` seconds and prints when it was inside.
VISITOR = """
import sys, time
from nas.latency.machine import lane
kind, count, hold = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
print("ready", flush=True)
input()
for _ in range(count):
    with getattr(lane, kind)():
        start = time.monotonic()
        print("in", flush=True)
        time.sleep(hold)
        end = time.monotonic()
    print(start, end, flush=True)
"""
# It answers after its timing.
WAITER = """
from nas.latency.machine import lane
with lane.exclusive():
    print("{}")
"""


@pytest.fixture(autouse=True)
def own_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def prepared(kind: str, count: int, hold: float) -> subprocess.Popen[str]:
    """A visitor that waits for `go`."""
    arguments = [sys.executable, "-c", VISITOR, kind, str(count), str(hold)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    next_line(process)  # "ready"
    return process


def next_line(process: subprocess.Popen[str]) -> str:
    return "" if process.stdout is None else process.stdout.readline()


def go(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    print("go", file=process.stdin, flush=True)
    return process


def visitor(kind: str, count: int, hold: float) -> subprocess.Popen[str]:
    return go(prepared(kind, count, hold))


def stays(process: subprocess.Popen[str]) -> list[tuple[float, float]]:
    """The times when a visitor was inside; none after an error."""
    output, _ = process.communicate(timeout=60)
    if process.returncode:
        return []
    return [(float(a), float(b)) for a, b in (line.split() for line in output.splitlines() if line != "in")]


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_timings_overlap_with_nothing_and_are_not_starved() -> None:
    steps = [prepared("shared", 200, 0.005) for _ in range(2)]
    timings = [prepared("exclusive", 5, 0.02) for _ in range(2)]
    for process in (*steps, *timings):
        go(process)
    timed = [stays(process) for process in timings]
    trained = [stays(process) for process in steps]
    assert [len(each) for each in (*timed, *trained)] == [5, 5, 200, 200]
    alone = [stay for each in timed for stay in each]
    for index, stay in enumerate(alone):
        for other in [*alone[index + 1 :], *(step for each in trained for step in each)]:
            assert not overlap(stay, other)
    # One of two steps is always under way: a timing that had to find a gap between them would come last.
    assert max(end for _, end in alone) < max(end for each in trained for _, end in each)


def test_training_steps_run_beside_each_other() -> None:
    with lane.shared():
        other = visitor("shared", 1, 0.0)
        assert len(stays(other)) == 1  # while this process is still inside


@pytest.mark.share(2)
@pytest.mark.parametrize("kind", ["exclusive", "shared"])
def test_a_killed_holder_frees_the_lane(kind: str) -> None:
    holder = visitor(kind, 1, 600)
    assert next_line(holder) == "in\n"
    waiting = visitor("exclusive", 1, 0.0)
    time.sleep(0.3)
    assert waiting.poll() is None  # it had time to end, but waits
    holder.send_signal(signal.SIGKILL)
    assert len(stays(waiting)) == 1
    holder.communicate()


def test_a_suspended_holder_of_the_lane_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lane, "TELL_SECONDS", 0.05)
    holder = visitor("shared", 1, 0.4)
    assert next_line(holder) == "in\n"
    holder.send_signal(signal.SIGSTOP)
    wakes = threading.Timer(0.5, holder.send_signal, [signal.SIGCONT])
    wakes.start()
    with lane.exclusive():
        pass
    told = capsys.readouterr().err
    assert f"for process {holder.pid} ({sys.executable} -c" in told
    assert f"which is suspended: `kill -CONT {holder.pid}` lets it go on" in told
    assert len(stays(holder)) == 1


@pytest.mark.slow
def test_waiting_for_the_timing_of_another_process_does_not_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lane, "TELL_SECONDS", 0.1)
    timing = visitor("exclusive", 1, 2.0)
    assert next_line(timing) == "in\n"
    asked = Connection(Target.parse("null@cpu:1"), ["-c", WAITER])
    while not lane.awaited(session=asked._process.pid):
        time.sleep(0.01)
    assert asked.hear(limit_seconds=0.5) == {}
    asked.stop()
    told = [line for line in capsys.readouterr().err.splitlines() if f"for process {timing.pid} " in line]
    assert len(told) > 1, "it is said again"
    assert len(stays(timing)) == 1


@pytest.mark.slow
def test_a_hanging_holder_of_the_lane_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "TELL_SECONDS", 0.1)
    monkeypatch.setattr(connection, "MOST_WAIT_SECONDS", 0.3)
    hangs = visitor("exclusive", 1, 600)
    assert next_line(hangs) == "in\n"
    asked = Connection(Target.parse("null@cpu:1"), ["-c", WAITER])
    while not lane.awaited(session=asked._process.pid):
        time.sleep(0.01)
    with pytest.raises(WorkerError, match="gave no answer within"):
        asked.hear(limit_seconds=0.5)
    asked.stop()
    hangs.kill()
    hangs.communicate()


@pytest.mark.parametrize("inner", ["exclusive", "shared"])
@pytest.mark.parametrize("outer", ["exclusive", "shared"])
def test_a_thread_cannot_enter_the_lane_twice(outer: str, inner: str) -> None:
    with getattr(lane, outer)(), pytest.raises(AssertionError, match="nested"), getattr(lane, inner)():
        pass
    with getattr(lane, inner)():  # after leaving, a thread can enter again
        pass


def test_an_error_inside_frees_the_lane() -> None:
    with pytest.raises(RuntimeError, match="inside"), lane.exclusive():
        raise RuntimeError("inside")
    assert len(stays(visitor("exclusive", 1, 0.0))) == 1


def test_a_timing_excludes_other_threads_of_its_process() -> None:
    entered = threading.Event()

    def enter() -> None:
        with lane.exclusive():
            entered.set()

    other = threading.Thread(target=enter)
    with lane.shared():
        other.start()
        assert not entered.wait(0.2)
    other.join(timeout=30)
    assert entered.is_set()


@pytest.mark.parametrize(
    ("one", "other", "beside"),
    [
        # a timing on a GPU has that GPU and a core
        (("exclusive", "A"), ("exclusive", "B"), True),
        (("exclusive", "A"), ("shared", "B"), True),
        (("exclusive", "A"), ("exclusive", "A"), False),
        (("exclusive", "A"), ("shared", "A"), False),
        (("exclusive", "A"), ("shared", ""), False),  # such a step may take all cores
        # a timing on the CPU has the whole machine
        (("exclusive", ""), ("exclusive", "A"), False),
        (("exclusive", ""), ("shared", "A"), False),
        (("exclusive", ""), ("shared", ""), False),
        # steps run beside each other on any devices
        (("shared", "A"), ("shared", "A"), True),
        (("shared", "A"), ("shared", "B"), True),
        (("shared", ""), ("shared", "A"), True),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_work_on_one_gpu_does_not_wait_for_work_on_another_gpu(
    one: tuple[str, str], other: tuple[str, str], beside: bool, turned: bool
) -> None:
    first, second = (other, one) if turned else (one, other)
    entered = threading.Event()

    def enter() -> None:
        with getattr(lane, second[0])(second[1]):
            entered.set()

    waiting = threading.Thread(target=enter)
    with getattr(lane, first[0])(first[1]):
        waiting.start()
        assert entered.wait(30 if beside else 0.05) == beside
    waiting.join(timeout=30)
    assert entered.is_set()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.parametrize(
    ("seen", "timed_on", "beside"),
    [
        (2, "", True),
        (1, "cuda:1", True),  # Ray shows a training its own GPU alone
        (1, "", False),  # a training cannot know the GPU and the core of other timings
    ],
)
def test_steps_on_one_of_several_gpus_leave_a_core_and_run_beside_timings_on_others(
    seen: int, timed_on: str, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: SimpleNamespace(uuid=name))
    monkeypatch.setattr(device, "BEGAN_WITH", frozenset(range(os.cpu_count() or 1)))
    entered = threading.Event()

    def enter() -> None:
        with lane.exclusive("cuda:1"):
            entered.set()

    def train() -> bool:
        """Train in a thread of its own, which has its own affinity, in a process that began with all cores."""
        os.sched_setaffinity(0, device.BEGAN_WITH)
        core = device.core_of("cuda:1")
        steps = lane.shared_on("cuda:0", timed_on=timed_on)
        assert (core not in os.sched_getaffinity(0)) == beside
        timing = threading.Thread(target=enter)
        with steps():
            timing.start()
            found = entered.wait(30 if beside else 0.05)
        timing.join(timeout=30)
        return found

    with ThreadPoolExecutor(1) as trainer:
        assert trainer.submit(train).result() == beside
    assert lane.shared_on("cpu") is lane.shared, "that holds all cores"


def test_steps_on_a_gpu_and_timings_on_other_gpus_do_not_block_each_other_for_ever() -> None:
    """Threads that enter every kind of lane many times all finish."""
    ways = [(kind, gpu) for kind in ("exclusive", "shared") for gpu in ("", "A", "B")]
    inside: list[tuple[str, str]] = []
    wrong: list[tuple[tuple[str, str], ...]] = []

    def apart(first: tuple[str, str], second: tuple[str, str]) -> bool:
        if first[0] == second[0] == "shared":
            return False
        return "" in (first[1], second[1]) or first[1] == second[1]

    def visit(way: tuple[str, str]) -> None:
        for _ in range(40):
            with getattr(lane, way[0])(way[1]):
                inside.append(way)
                wrong.extend((way, each) for each in tuple(inside) if each is not way and apart(way, each))
                time.sleep(0.0005)
                inside.remove(way)

    visitors = [threading.Thread(target=visit, args=(way,), daemon=True) for way in ways]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join(timeout=60)
    assert not any(each.is_alive() for each in visitors)
    assert not wrong


def test_a_forked_child_does_not_keep_the_lane() -> None:
    reader, writer = os.pipe()
    with lane.exclusive():
        child = os.fork()
        if child == 0:  # lives on with the lock's file open until the pipe closes
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    assert len(stays(visitor("exclusive", 1, 0.0))) == 1
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)


def test_a_lane_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / f"framebudget-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="a folder that only you can write to"), lane.exclusive():
        pass


@pytest.mark.parametrize("way", [lane.shared, lane.exclusive])
def test_the_error_on_a_disk_without_locks_names_the_variable_to_set(
    way: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates NFS without its lock service, which no test can mount."""

    def flock(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):  # the lane can be entered again
        with pytest.raises(HaltedError, match="; set TMPDIR to"), way():
            pass
