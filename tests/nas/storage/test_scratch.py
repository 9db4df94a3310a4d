"""Scratch folders, which last as long as their process."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nas.errors import HaltedError
from nas.storage.scratch import PREFIX, scratch_folder

OWNER = "from nas.storage.scratch import scratch_folder\nwith scratch_folder() as it: print(it, flush=True); input()"


MANY = """
from nas.storage.scratch import OWNER, scratch_folder
lost = 0
for _ in range(1500):
    with scratch_folder() as it:
        lost += not (it / OWNER).exists()
print(lost)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_scratch_folder_is_removed_at_the_end_with_its_contents(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_only_scratch_folders_of_ended_processes_are_removed_by_the_next(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        (temporary / f"{PREFIX}12345678").mkdir()  # a folder of another program with a similar name
        with scratch_folder():
            assert folder.is_dir()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert folder.is_dir()
    with scratch_folder():
        assert not folder.exists()
    assert [each.name for each in temporary.iterdir()] == [f"{PREFIX}12345678"]


def test_the_error_on_a_disk_without_locks_names_the_variable_to_set(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates NFS without its lock service, which no test can mount."""

    def flock(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(HaltedError, match=f"got {temporary} .*; set TMPDIR to"), scratch_folder():
        pass
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_processes_that_start_together_do_not_remove_each_others_scratch_folders(temporary: Path) -> None:
    makers = [subprocess.Popen([sys.executable, "-c", MANY], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [maker.communicate(timeout=120)[0] for maker in makers] == ["0\n"] * 3
    assert list(temporary.iterdir()) == []
