"""Ownership of a folder: one owner at a time, which ends with its process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nas.storage import ownership
from nas.storage.files import OWNER, replace_folder
from nas.storage.ownership import is_owned, owned
from space import UserError

HOLD = "import sys, time; from pathlib import Path; from nas.storage.ownership import owned\n" + (
    "with owned(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
)


@contextlib.contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_owner_gets_the_name_of_the_first_and_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    told = r"is in use by process \d+ on .*one at a time"
    with holder(run) as process, pytest.raises(UserError, match=told) as refused, owned(run):
        pass
    assert f"process {process.pid} on" in str(refused.value)
    with owned(run):
        assert (run / OWNER).read_text().startswith(f"process {os.getpid()} on ")
    assert not run.exists(), "nothing is left"


def test_ownership_of_a_folder_is_visible_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_owned(tmp_path)
    with holder(tmp_path) as process:
        assert is_owned(tmp_path)
        process.kill()
        process.wait()
        assert (tmp_path / OWNER).exists()
        assert not is_owned(tmp_path)
    (tmp_path / OWNER).write_text(f"process {os.getpid()} on another boot of another\n")
    assert is_owned(tmp_path)
    monkeypatch.setattr(ownership, "WATCHED_SECONDS", 0.0)  # any file counts as untouched for longer
    assert not is_owned(tmp_path)


def test_a_file_of_the_user_with_the_name_of_an_owner_file_stays(tmp_path: Path) -> None:
    (tmp_path / OWNER).write_text("Ada Lovelace\n")
    with pytest.raises(UserError, match="got another file, which would be lost"), owned(tmp_path):
        pass
    assert (tmp_path / OWNER).read_text() == "Ada Lovelace\n"
    (tmp_path / OWNER).write_bytes(bytes(40))  # of our own after a crash of the machine
    with owned(tmp_path):
        assert (tmp_path / OWNER).read_text().startswith(f"process {os.getpid()} on ")


def test_a_patient_owner_waits_for_the_first_to_end(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        ending = threading.Timer(0.5, process.kill)
        ending.start()
        with owned(tmp_path, patience_seconds=30):
            assert process.wait() == -signal.SIGKILL


def test_an_ending_owner_does_not_remove_the_folder_of_the_next(tmp_path: Path) -> None:
    run = tmp_path / "run"
    owns, ends = threading.Event(), threading.Event()

    def first() -> None:
        with owned(run):
            owns.set()
            ends.wait(30)

    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(first)
        assert owns.wait(30)
        threading.Timer(0.5, ends.set).start()
        with owned(run, patience_seconds=30):
            ending.result(30)
            assert (run / OWNER).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("lives", [True, False])
def test_an_owner_on_another_host_lives_while_it_touches_the_file(
    lives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared disk carries no locks, and the text of the file names the other host."""
    monkeypatch.setattr(ownership, "WATCHED_SECONDS", 1.0)
    (tmp_path / OWNER).write_text("process 7 on elsewhere boot 0000\n")
    touch = "import os, sys, time\nwhile True: os.utime(sys.argv[1]); time.sleep(0.1)"
    other = subprocess.Popen([sys.executable, "-c", touch if lives else "", str(tmp_path / OWNER)])
    try:
        time.sleep(0.5)
        if lives:
            with pytest.raises(UserError, match="in use by process 7 on elsewhere:"), owned(tmp_path):
                pass
        else:
            with owned(tmp_path):
                assert "process 7 on elsewhere" not in (tmp_path / OWNER).read_text()
    finally:
        other.kill()
        other.wait()


def test_an_owned_folder_can_be_removed_and_owned_again(tmp_path: Path) -> None:
    for _ in range(2):
        with owned(tmp_path / "run"):
            (tmp_path / "run" / OWNER).unlink()
            (tmp_path / "run").rmdir()
        assert not (tmp_path / "run").exists()


def test_a_folder_that_is_replaced_stays_owned(tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    with owned(pruned):
        for text in ("first", "second"):
            with replace_folder(pruned, "weights") as unfinished:
                (unfinished / "weights").write_text(text)
            with pytest.raises(UserError, match=f"in use by process {os.getpid()} on"), owned(pruned):
                pass
    assert [each.name for each in pruned.iterdir()] == ["weights"]
    assert (pruned / "weights").read_text() == "second"
    with owned(pruned):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["pruned"]
