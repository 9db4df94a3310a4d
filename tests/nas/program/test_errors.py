"""Faults of the program and shortages of memory: one line, and a file or advice."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nas.cli import main
from nas.commands import show
from nas.latency import WorkerError

ROOT = Path(__file__).parents[3]
Environment = Callable[..., dict[str, str]]
Refusal = Callable[..., str]


def test_a_fault_of_the_program_prints_one_line_and_leaves_a_file(
    tmp_path: Path, environment: Environment, refusal: Refusal
) -> None:
    code = (
        "import sys, nas.commands.show as show\n"
        "def broken(options): raise KeyError('of ours')\n"
        "show.run = broken\nfrom nas.cli import main\nsys.exit(main(['show', 'erfnet']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        timeout=60,
    )
    said = refusal(done, code=1)
    (file,) = tmp_path.iterdir()
    assert str(file) in said
    assert "KeyError: 'of ours'" in said
    assert "in broken" in file.read_text()


def test_a_shortage_of_memory_is_no_fault_of_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shortage is in this process, or in the traceback of one of several processes."""
    with pytest.raises(RuntimeError) as here:
        torch.empty(2**50, dtype=torch.uint8)
    there = WorkerError("".join(traceback.format_exception(here.value)))
    on_gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    threads = RuntimeError("can't start new thread")  # ulimit -u
    for error in (here.value, there, on_gpu, MemoryError(), threads):

        def short(options: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(show, "run", short)
        assert main(["show", "erfnet"]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "there is not enough memory (" in said
        assert "use a smaller batch, input or network" in said
        assert "`ulimit -v` and `ulimit -u`" in said


def test_a_library_that_cannot_be_mapped_is_a_shortage_only_under_a_memory_limit(environment: Environment) -> None:
    """The loader has the same message for a disk that is mounted `noexec`."""
    code = (
        "import resource, sys; from nas.host.room import is_shortage\n"
        "error = ImportError('libtorch_cpu.so: failed to map segment from shared object')\n"
        "print(is_shortage(error)); resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)); print(is_shortage(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "True"]
