"""A folder for what a process needs only while it runs, under TMPDIR; a killed process's is removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "fb"  # short, since sockets with long names lie in it
OWNER = "owner.lock"  # locked as long as its process lives
UNLOCKED = "owner.new"
LENGTH = len(PREFIX) + 9  # of a folder's name and the slash before it


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder of this process alone, removed at the end.

    Raises: OSError when no folder can be made, because the disk is full say.
    """
    clear_abandoned()
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        owner = os.open(folder / UNLOCKED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, owner)
        fcntl.flock(owner, fcntl.LOCK_EX)
        (folder / UNLOCKED).rename(folder / OWNER)  # under this name it is locked, or its process is gone
        yield folder


def clear_abandoned() -> None:
    """Remove the folders of processes that are gone: the kernel has dropped their locks."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}????????/{OWNER}"):
        with contextlib.suppress(OSError):  # another user's, or one that another process removes just now
            owner = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lock.parent.stat().st_uid == os.getuid():
                    shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(owner)
