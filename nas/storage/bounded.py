"""A folder of files that can be made again, which together take no more than a limit, for several processes at once.

Files appear whole, by a rename. How much there is stands in a ledger that is locked while it changes. A process that is
killed between the two leaves the ledger too high, which is put right by counting once it says that there is no room.
Counting waits for those who have room and are still writing.
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
"""After which a file makes room for another. One that is in use is never dropped: it would only be made again."""
TOUCHED_SECONDS = 600.0  # a file that is used is marked so at most so often
LEAST_FREE_BYTES = 2**30
"""Left on the disk, since runs have more precious things to write."""


class BoundedFolder:
    """Files by name. `most_bytes` is their limit, all together."""

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root = root
        self._most_bytes = most_bytes
        self._full = False

    def opened(self, name: str) -> mmap.mmap | None:
        """What is in a file, mapped into memory and shared with all processes; None where there is none to be read."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if time.time() - os.fstat(descriptor).st_mtime > TOUCHED_SECONDS:
                with contextlib.suppress(OSError):  # it can be read, and not be written
                    os.utime(descriptor)
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # no room for the map, or nothing in it
            return None
        finally:
            os.close(descriptor)

    def keep(self, name: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Write a file, in the place of one that is of no use; False where there is no room for it, and then for no
        other either.

        Raises: OSError when the disk is full or the folder cannot be written; the next one is not tried any more.
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
                    writing.close()  # who counts anew waits for it, with the ledger in its hands
                    with contextlib.suppress(OSError), self._locked(LEDGER) as ledger:
                        _write(ledger, max(0, _read(ledger) - size))
                    raise
        except OSError:
            self._full = True
            raise
        return True

    def held_bytes(self) -> int:
        """What the files take together, by the ledger."""
        try:
            return int((self._root / LEDGER).read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _path(self, name: str) -> Path:
        return self._root / name[:2] / name

    def _reserved(self, size: int, writing: contextlib.ExitStack) -> bool:
        """Whether there is room for so many more bytes; they are counted then, and no file is counted anew before
        `writing` is closed.
        """
        with self._locked(LEDGER) as ledger:
            if shutil.disk_usage(self._root).free < size + LEAST_FREE_BYTES:
                return False
            held = _read(ledger)
            if held + size > self._most_bytes:
                with self._locked(WRITERS):  # what others have room for and did not write yet would not be counted
                    held = self._cleared(self._most_bytes - size)
            fits = held + size <= self._most_bytes
            _write(ledger, held + size if fits else held)
            if fits:
                writing.enter_context(self._locked(WRITERS, fcntl.LOCK_SH))
            return fits

    def _cleared(self, most_bytes: int) -> int:
        """Drop what was not used for long, the oldest first, until no more than `most_bytes` are left; what is left."""
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
        """The ledger's file, or the one that is locked by all who write."""
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, how)
            yield descriptor
        finally:
            os.close(descriptor)


def _read(ledger: int) -> int:
    """Bytes that the ledger counts; more than any limit where it is new or damaged, so that they are counted anew."""
    text = os.pread(ledger, 100, 0)
    return int(text) if text.isdigit() else 2**63


def _write(ledger: int, held: int) -> None:
    os.pwrite(ledger, b"%020d" % held, 0)
