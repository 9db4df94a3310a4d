"""A folder of reproducible files whose total size has a limit, shared by several processes.

Files appear whole, by a rename. A ledger records their total size and is locked while it changes. A process that is
killed in between leaves the ledger too high; this is corrected by counting the files once the ledger leaves no room.
Counting waits for processes that have reserved room and are still writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nas.storage.files import clear_unfinished, write_atomically

LEDGER = "held"
WRITERS = "writers"
UNUSED_SECONDS = 3 * 3600.0
"""Age at which an unused file may be dropped for another one. Files in use are never dropped."""
TOUCHED_SECONDS = 600.0  # shortest interval between marking a file as used
LEAST_FREE_BYTES = 2**30
"""Bytes to leave free on the disk, since runs have more important things to write."""


class BoundedFolder:
    """Files by name, which together take at most `most_bytes`."""

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root = root
        self._most_bytes = most_bytes
        self._full = False

    def opened(self, name: str) -> mmap.mmap | None:
        """The content of a file, mapped into memory that all processes share; None if it cannot be read."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if time.time() - os.fstat(descriptor).st_mtime > TOUCHED_SECONDS:
                with contextlib.suppress(OSError):  # readable, but not writable
                    os.utime(descriptor)
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # no room for the mapping, or an empty file
            return None
        finally:
            os.close(descriptor)

    def keep(self, name: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Write a file, in place of an unusable one if there is one. Returns False if there is no room; later calls
        then do not try again.

        Raises: OSError when the disk is full or the folder cannot be written; later calls then do not try again.
        """
        if self._full:
            return False
        path = self._path(name)
        size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
        with contextlib.suppress(OSError):
            size -= path.stat().st_size

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                file.writelines(parts)

        try:
            with contextlib.ExitStack() as writing:
                if not self._reserved(size, writing):
                    self._full = True
                    return False
                try:
                    write_atomically(path, write)
                except BaseException:
                    writing.close()  # a process that recounts waits for this while it holds the ledger
                    with contextlib.suppress(OSError), self._locked(LEDGER) as ledger:
                        _write(ledger, max(0, _read(ledger) - size))
                    raise
        except OSError:
            self._full = True
            raise
        return True

    def held_bytes(self) -> int:
        """Total size of the files according to the ledger."""
        try:
            return int((self._root / LEDGER).read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _path(self, name: str) -> Path:
        return self._root / name[:2] / name

    def _reserved(self, size: int, writing: contextlib.ExitStack) -> bool:
        """Reserve `size` bytes in the ledger. Returns False if there is no room. No process recounts the files before
        `writing` is closed.
        """
        with self._locked(LEDGER) as ledger:
            if shutil.disk_usage(self._root).free < size + LEAST_FREE_BYTES:
                return False
            held = _read(ledger)
            if held + size > self._most_bytes:
                with self._locked(WRITERS):  # wait for files that are reserved but not yet written
                    held = self._cleared(self._most_bytes - size)
            fits = held + size <= self._most_bytes
            _write(ledger, held + size if fits else held)
            if fits:
                writing.enter_context(self._locked(WRITERS, fcntl.LOCK_SH))
            return fits

    def _cleared(self, most_bytes: int) -> int:
        """Drop unused files, oldest first, until at most `most_bytes` are left. Returns the bytes that are left."""
        clear_unfinished(self._root)
        found = []
        for folder in self._root.iterdir():
            if folder.is_dir():
                with os.scandir(folder) as files:
                    for file in files:
                        with contextlib.suppress(FileNotFoundError):
                            status = file.stat()
                            found.append((status.st_mtime, status.st_size, file.path))
        held = sum(size for _, size, _ in found)
        before = time.time() - UNUSED_SECONDS
        for modified, size, path in sorted(found):
            if held <= most_bytes or modified > before:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            held -= size
        return held

    @contextlib.contextmanager
    def _locked(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[int]:
        """Lock the file of the ledger, or the one that all writers lock."""
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, how)
            yield descriptor
        finally:
            os.close(descriptor)


def _read(ledger: int) -> int:
    """Bytes in the ledger; more than any limit if it is new or damaged, so that the files are counted."""
    text = os.pread(ledger, 100, 0)
    return int(text) if text.isdigit() else 2**63


def _write(ledger: int, held: int) -> None:
    os.pwrite(ledger, b"%020d" % held, 0)
