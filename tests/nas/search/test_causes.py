"""Causes of failed trainings: verdicts on a candidate, troubles of its surroundings, and faults of the program."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from nas.errors import BusyError, DamagedError, DataError, TrainingError
from nas.search.train.causes import cause_of, cause_of_death
from space.errors import ArchitectureError

ACTOR = "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tip: 192.0.2.2"
LOST = f"{ACTOR}\nThe actor died because its node has died. Node Id: 6b\n\tthe actor's node was terminated: SIGTERM"
"""Ray 2.60 in its own words."""
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights.safetensors")


def of_torch(call: object) -> Exception:
    """The error that PyTorch raises in a function."""
    with pytest.raises(RuntimeError) as raised:
        call()  # type: ignore[operator]
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
        DataError("a.png: expected a picture, got a damaged file"),
        DamagedError("weights.safetensors: checksum mismatch"),
        MemoryError("Unable to allocate 16.0 KiB for an array"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("unable to mmap 100 bytes from file </dev/shm/x>: Cannot allocate memory (12)"),
        ModuleNotFoundError("No module named 'nas.runs'"),
    ],
    ids=str,
)
def test_a_cause_of_the_surroundings_is_no_verdict(error: Exception) -> None:
    cause = cause_of(error)
    assert cause.advice
    assert str(error).splitlines()[-1] in cause.words


def test_memory_held_by_other_processes_is_no_verdict_and_the_advice_is_to_free_it() -> None:
    busy = BusyError("expected a network that fits into memory; end other processes that hold it")
    assert cause_of(busy).words == str(busy)
    assert "free memory" in cause_of(busy).advice


@pytest.mark.parametrize("error", [AssertionError("ours"), KeyError("ours"), TypeError("ours"), AttributeError("ours")])
def test_a_fault_of_the_program_is_neither_a_verdict_nor_a_full_disk(error: Exception) -> None:
    cause = cause_of(error)
    assert cause.fault.startswith(type(error).__name__)
    assert "ours" in cause.fault
    assert not cause.advice


def test_a_cause_of_the_candidate_is_its_exception_s_last_line() -> None:
    diverged = TrainingError("epoch 1, step 2 of abc: expected finite numbers, got a loss of nan")
    assert cause_of(diverged).words == str(diverged)
    for error in (diverged, ArchitectureError("too deep"), ValueError("first\nExpected more than 1 value per channel")):
        assert not cause_of(error).advice
        assert cause_of(error).words.endswith(str(error).splitlines()[-1])


def test_a_candidate_that_alone_needs_more_memory_than_exists_gets_the_verdict() -> None:
    giant = of_torch(lambda: torch.empty(2**50, dtype=torch.uint8))
    assert "allocate" in cause_of(giant).words
    assert not cause_of(giant).advice
    small = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to "
                         "allocate 1024 bytes. Error code 12 (Cannot allocate memory)")  # fmt: skip
    assert "free memory" in cause_of(small).advice


def test_a_crashed_process_is_a_verdict_and_a_killed_one_is_not() -> None:
    died = f"{ACTOR}\nThe actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
    crash = cause_of_death(died, "Fatal Python error: Segmentation fault\n\nThread 0x1", 4)
    assert crash.words == "its process crashed 4 times: Segmentation fault"
    assert not crash.advice
    for told, words in ((died, ""), (died, "Fatal Python error: Bus error"), ("", ""), ("OutOfMemoryError: x", "")):
        assert "memory" in cause_of_death(told, words, 4).advice
    assert "or with its node" in cause_of_death("The actor is temporarily unavailable: RpcError", "", 4).words
    lost = cause_of_death(LOST, "Fatal Python error: Segmentation fault", 4)
    assert lost.words == "the cluster's node 192.0.2.2 that trained it is lost"
    assert "`ray status`" in lost.advice
    missing = cause_of_death("Traceback\nModuleNotFoundError: No module named 'nas'\n", "", 4)
    assert missing.words == "ModuleNotFoundError: No module named 'nas'"
    assert missing.advice
