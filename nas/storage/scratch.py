"""A temporary folder of a running process, under TMPDIR. That of a killed process is removed by the next process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nas.storage.locks import lock_under_tmpdir

PREFIX = "fb"  # short, because paths of sockets in the folder must not be too long
OWNER = "owner.lock"  # locked as long as the owner lives
UNLOCKED = "owner.new"
LENGTH = len(PREFIX) + 9  # length of a folder's name and the slash before it


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for this process alone, removed at the end.

    Raises: OSError when it cannot be made, for example because the disk is full; HaltedError when TMPDIR's disk has no
    locks.
    """
    clear_abandoned()
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        owner = os.open(folder / UNLOCKED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, owner)
        lock_under_tmpdir(owner, fcntl.LOCK_EX)
        (folder / UNLOCKED).rename(folder / OWNER)  # a file of this name is locked, or its process is gone
        yield folder


def clear_abandoned() -> None:
    """Remove folders of processes that are gone, whose locks the kernel has dropped."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}????????/{OWNER}"):
        with contextlib.suppress(OSError):  # another user's, or being removed by another process
            owner = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lock.parent.stat().st_uid == os.getuid():
                    shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(owner)
