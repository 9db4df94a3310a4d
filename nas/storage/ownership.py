"""One owner at a time for a folder that is written to. Ownership ends with the owner's process, however that ends.

The owner holds a lock (flock) on a file in the folder, which the kernel drops when the process is gone; network file
systems carry the lock to other hosts. On file systems without locks the file itself serves as the lock: it
names the owner, which touches it every few seconds. A process that finds an owner on another host in it watches for a
while whether the file is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from nas.storage.files import OWNER, clear_unfinished
from nas.storage.locks import NO_LOCKS
from space.errors import UserError

TOUCHED_SECONDS = 2.0
WATCHED_SECONDS = 3.5 * TOUCHED_SECONDS
LOOK_SECONDS = 0.2
PREFIX = "process "
"""Beginning of the file that names an owner."""


@contextlib.contextmanager
def owned(folder: Path, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Own `folder`, which is created if necessary, and remove unfinished files of a killed owner. If it is empty at the
    end, the folder is removed.

    Raises: UserError when another process still owns it after `patience_seconds`, naming that process, or when another
    file has the name of the one with the owner; OSError when the folder cannot be written to.
    """
    file = folder / OWNER
    descriptor = _taken(file, time.monotonic() + patience_seconds)
    ended = threading.Event()
    touching = threading.Thread(target=_touch, args=(descriptor, ended), name="owner", daemon=True)
    try:
        touching.start()
        clear_unfinished(folder)
        yield
    finally:
        ended.set()
        touching.join()
        with contextlib.suppress(OSError):  # the folder was removed or renamed meanwhile
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                file.unlink()
                folder.rmdir()  # if nothing was written
        os.close(descriptor)


def is_owned(folder: Path) -> bool:
    """Whether a process owns `folder`, as far as is known without waiting and without taking the lock, which would get
    in the way of a new owner: the file was touched recently, and an owner on this host still exists.
    """
    file = folder / OWNER
    try:
        owner = file.read_text("utf-8", errors="replace").strip()
    except OSError:
        return False
    process, _, place = owner.removeprefix(PREFIX).partition(" on ")
    here = place == _name().partition(" on ")[2]
    if not place or (here and not Path("/proc", process).exists()):
        return False
    return abs(time.time() - _touched(file) / 1e9) < WATCHED_SECONDS


def _touch(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(TOUCHED_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _taken(file: Path, deadline: float) -> int:
    """Descriptor of the file, locked and with our name in it."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:  # its last owner has just removed the folder, which was empty
            continue
        try:
            locked = _lock(descriptor)
            owner = os.pread(descriptor, 1000, 0).decode(errors="replace").strip("\0 \n")
            if owner and not owner.startswith(PREFIX):
                raise UserError(
                    f"{file}: expected none, or the name of the process that works in this folder, got another file, "
                    "which would be lost; move it, or give another folder"
                )
            if locked is not False and not _lives(file, owner, locked=locked is True):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{_name()}\n".encode(), 0)
                if _ours(file, descriptor):
                    return descriptor
            elif time.monotonic() >= deadline:
                who = owner.partition(" boot ")[0] or "another process"
                raise UserError(
                    f"{file.parent} is in use by {who}: one at a time; wait for it to end, or stop it, and try again"
                )
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(LOOK_SECONDS)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock was free and is now ours; None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def _lives(file: Path, owner: str, *, locked: bool) -> bool:
    """Whether the owner that the file names exists although the lock is free.

    On the kernel that the owner runs on, the lock is decisive. On another one, the owner exists as long as it touches
    the file.
    """
    if not owner or (locked and owner.endswith(_boot())):
        return False
    until, before = time.monotonic() + WATCHED_SECONDS, _touched(file)
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        if _touched(file) != before:
            return True
    return False


def _touched(file: Path) -> int:
    with contextlib.suppress(OSError), file.open("rb") as opened:  # opening queries the server again
        return os.fstat(opened.fileno()).st_mtime_ns
    return 0


def _ours(file: Path, descriptor: int) -> bool:
    """Whether the file in the folder is still the one that was opened; its last owner may have removed it."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), file.stat())
    return False


def _name() -> str:
    return f"{PREFIX}{os.getpid()} on {socket.gethostname()} boot {_boot()}"


def _boot() -> str:
    """An identifier of the running kernel, unlike that of any other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()
