"""A folder of limited size, with several writers and killed ones."""

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

from nas.storage import bounded
from nas.storage.bounded import BoundedFolder

ROOT = Path(__file__).resolve().parents[3]
LONG_AGO = time.time() - 2 * bounded.UNUSED_SECONDS


def held(root: Path) -> dict[str, int]:
    """Names and sizes of the kept files."""
    return {file.name: file.stat().st_size for file in root.glob("??/*")}


def content(folder: BoundedFolder, name: str) -> bytes | None:
    kept = folder.opened(name)
    return None if kept is None else kept[:]


def test_kept_files_are_found_by_other_users_of_the_folder(tmp_path: Path) -> None:
    assert BoundedFolder(tmp_path, 100).keep("aa1", [b"head", memoryview(b"body")])
    other = BoundedFolder(tmp_path, 100)
    assert content(other, "aa1") == b"headbody"
    assert content(other, "aa2") is None
    assert other.held_bytes() == 8


def test_a_bounded_folder_never_exceeds_its_limit(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, 25)
    assert [folder.keep(name, [b"x" * 10]) for name in ("aa", "ab", "ac", "ad")] == [True, True, False, False]
    assert held(tmp_path) == {"aa": 10, "ab": 10}


def test_files_unused_for_long_make_room_and_files_in_use_stay(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, 30)
    for age, name in enumerate(("aa", "bb", "cc")):
        folder.keep(name, [b"x" * 10])
        os.utime(tmp_path / name / name, (LONG_AGO - age, LONG_AGO - age))
    assert content(folder, "cc") is not None  # reading it means use
    assert BoundedFolder(tmp_path, 30).keep("dd", [b"y" * 10])
    assert held(tmp_path).keys() == {"aa", "cc", "dd"}


def test_many_writers_keep_to_the_limit_together(tmp_path: Path) -> None:
    def write(writer: int) -> int:
        folder = BoundedFolder(tmp_path, 1000)
        return sum(folder.keep(f"{writer}{index:02}", [b"x" * 30]) for index in range(20))

    with ThreadPoolExecutor(max_workers=4) as pool:
        kept = sum(pool.map(write, range(4)))
    assert kept == len(held(tmp_path)) == 33
    assert sum(held(tmp_path).values()) == 990


class Paused(list[bytes]):
    """Parts of a file whose writing stops after the beginning until `going` is set."""

    def __init__(self, parts: list[bytes]) -> None:
        super().__init__(parts)
        self.begun, self.going = threading.Event(), threading.Event()
        self._passes = 0

    def __iter__(self) -> Iterator[bytes]:
        self._passes += 1
        if self._passes == 2:  # the first pass adds up their sizes
            self.begun.set()
            assert self.going.wait(60)
        return super().__iter__()


def test_files_being_written_count(tmp_path: Path) -> None:
    parts = Paused([b"x" * 30])
    with ThreadPoolExecutor(max_workers=2) as pool:
        first = pool.submit(BoundedFolder(tmp_path, 50).keep, "aa", parts)
        assert parts.begun.wait(60)
        second = pool.submit(BoundedFolder(tmp_path, 50).keep, "bb", [b"y" * 30])
        with contextlib.suppress(TimeoutError):  # the second waits for the first
            second.result(timeout=0.2)
        parts.going.set()
        assert first.result()
        assert not second.result()
    assert held(tmp_path) == {"aa": 30}


def test_a_writer_that_is_killed_leaves_no_half_file_and_takes_no_room_for_good(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom nas.storage.bounded import BoundedFolder\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"BoundedFolder(Path({str(tmp_path)!r}), 25).keep('aa', [b'x' * 20])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    folder = BoundedFolder(tmp_path, 25)
    assert content(folder, "aa") is None
    assert folder.held_bytes() == 20
    assert folder.keep("ab", [b"y" * 20])
    assert held(tmp_path) == {"ab": 20}


@pytest.mark.parametrize("ledger", [b"", b"nonsense", b"-5"])
def test_a_damaged_ledger_is_made_again(ledger: bytes, tmp_path: Path) -> None:
    BoundedFolder(tmp_path, 25).keep("aa", [b"x" * 20])
    (tmp_path / bounded.LEDGER).write_bytes(ledger)
    assert not BoundedFolder(tmp_path, 25).keep("ab", [b"y" * 20])
    assert BoundedFolder(tmp_path, 45).keep("ab", [b"y" * 20])


def test_an_empty_file_counts_as_missing(tmp_path: Path) -> None:
    folder = BoundedFolder(tmp_path, 25)
    folder.keep("aa", [b"x"])
    os.truncate(tmp_path / "aa" / "aa", 0)
    assert content(folder, "aa") is None


def test_a_folder_that_cannot_be_made_raises_the_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = BoundedFolder(tmp_path / "file" / "pictures", 25)
    assert content(folder, "aa") is None
    with pytest.raises(OSError, match="Not a directory"):
        folder.keep("aa", [b"x"])
