"""Signals to the program and killed processes: one line instead of a traceback, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
Environment = Callable[..., dict[str, str]]


@pytest.fixture
def measuring(tmp_path: Path, environment: Environment) -> Iterator[subprocess.Popen[str]]:
    """A command whose measuring processes are at work: `nas measure`, in a session of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "nas.cli", "measure", "--target", "torch@cpu:1", "--input", "64x96"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment(XDG_CACHE_HOME=str(tmp_path)),
    ) as process:
        for _ in range(600):
            if len(measuring_processes(process.pid)) > 1:  # that which gives turns, and that of a network
                break
            time.sleep(0.1)
        yield process
        process.kill()


def family(process: int) -> list[int]:
    """A process and all its descendants."""
    try:
        tasks = [each.read_text().split() for each in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return [process]
    return [process, *(each for children in tasks for child in children for each in family(int(child)))]


def measuring_processes(process: int) -> list[int]:
    """The measuring processes among its descendants; a loading library may start other programs for a moment."""
    return [each for each in family(process) if b"nas.latency.worker" in command_of(each)]


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def living(processes: list[int]) -> list[int]:
    def runs(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [each for each in processes if runs(each)]


def gone(processes: list[int]) -> bool:
    """Whether the processes end within five seconds."""
    end = time.monotonic() + 5
    while living(processes) and time.monotonic() < end:
        time.sleep(0.05)
    return not living(processes)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGTERM, "terminated"),
        pytest.param(signal.SIGINT, "interrupted", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "its terminal was closed", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_command_with_one_line_and_leaves_no_process(
    measuring: subprocess.Popen[str], number: int, words: str
) -> None:
    processes = family(measuring.pid)
    assert len(measuring_processes(measuring.pid)) > 1
    measuring.send_signal(number)
    said, _ = measuring.communicate(timeout=30)
    assert measuring.returncode == 128 + number, said
    kept = "what was timed so far is not kept: the same command begins anew"
    assert said.splitlines()[-1] == f"nas measure: {words}; {kept}"
    assert "Traceback" not in said
    assert gone(processes)


def test_measuring_processes_end_with_their_killed_owner(measuring: subprocess.Popen[str]) -> None:
    processes = family(measuring.pid)
    assert len(measuring_processes(measuring.pid)) > 1
    measuring.kill()
    measuring.wait()
    assert gone(processes)


@pytest.mark.slow
def test_a_killed_measuring_process_is_reported(measuring: subprocess.Popen[str]) -> None:
    os.kill(measuring_processes(measuring.pid)[0], signal.SIGKILL)
    said, _ = measuring.communicate(timeout=30)
    assert measuring.returncode == 2, said
    assert said.splitlines()[-1].startswith("nas measure: the process measuring on torch@cpu:1 was killed by signal 9;")
    assert "Traceback" not in said


@pytest.mark.share(4)
@pytest.mark.parametrize("module", ["nas.commands", "numpy", "torch._utils", "torch.nn"])
def test_ctrl_c_while_libraries_load_ends_a_command_without_a_traceback(
    module: str, tmp_path: Path, environment: Environment
) -> None:
    """Before the program's first line Python itself answers the signal."""
    with subprocess.Popen(
        [sys.executable, "-v", "-m", "nas.cli", "train", "erfnet", "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if f"import '{module}'" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "nas train: interrupted; nothing finished is lost" in said.splitlines()
    assert "Traceback" not in said


def test_ignored_signals_stay_ignored(environment: Environment) -> None:
    """nohup starts programs in this way."""
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); sys.argv[1:] = ['show', 'erfnet']\n"
        "from nas.cli import main; main(); signal.raise_signal(signal.SIGHUP); print('still here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60
    )
    assert done.stdout.endswith("still here\n"), done.stderr


@pytest.mark.parametrize("words", [["show", "erfnet"], ["show", "erfnett"], ["show", "--help"]])
def test_a_signal_while_python_ends_leaves_no_traceback(words: list[str], environment: Environment) -> None:
    """The output is complete by then; the libraries take some time to end."""
    code = (
        f"import atexit, signal, sys; sys.argv[1:] = {words}\n"
        "atexit.register(lambda: (signal.raise_signal(signal.SIGTERM), print('still here')))\n"
        "from nas.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60
    )
    assert done.returncode == -signal.SIGTERM
    assert "still here" not in done.stdout
    assert len(done.stderr.splitlines()) == (words[-1] == "erfnett")
