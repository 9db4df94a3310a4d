"""Files that are either the old ones or the new ones, never half."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from nas.errors import DamagedError
from space.errors import UserError

Written = TypeVar("Written")
UNFINISHED = re.compile(r"\..+\.(\d+|words)\.tmp")  # as files and folders are named here, and last words
NO_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""What file systems answer that take no order to write a folder (CIFS, some of FUSE)."""
OWNER = ".owner"  # in a folder: the process that writes there (`nas.storage.ownership`)


def expanded(path: str | Path) -> Path:
    """A path that a user gave, with `~` and `~name` as a shell reads them; one of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))


def require_utf8(path: str | Path) -> None:
    """Make sure that a path can be written down.

    Raises: UserError for one that is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"expected a path in UTF-8, got {os.fsencode(path)!r}; rename what is not, and try again"
        ) from None


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then put it in the place of `path` in one move.

    A process that is killed, or a disk that is full, leaves whatever was at `path` before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")  # a thread's is found in /proc as well
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _settle(path.parent)
    except OSError as error:
        _rename(error, temporary, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_together(paths: Sequence[Path], write: Callable[[Path], Written]) -> Written:
    """Let `write` fill a temporary folder with files of the names of `paths`, then put them in the place of `paths`.

    `paths` are neighbours. `write` is given the first one's path there; what else it leaves there is removed.

    The first is the one that is opened: it is put there last, and out of the way while the others are replaced, so that
    files which do not belong together are never read together. An error or a full disk leaves whatever was there
    before; a process that is killed leaves that, the new files or, in the instant between the moves, not the first. One
    file alone is replaced in one move. One process at a time.
    """
    first, *others = paths
    first.parent.mkdir(parents=True, exist_ok=True)
    temporary = first.with_name(f".{first.name}.{os.getpid()}.tmp")
    new, old = temporary / "new", temporary / "old"
    try:
        _remove(temporary)  # of a process that was killed and had our number
        for folder in (new, old):
            folder.mkdir(parents=True)
        written = write(new / first.name)
        for path in paths:
            with (new / path.name).open("rb") as file:
                os.fsync(file.fileno())
        with contextlib.ExitStack() as undo:
            for path in paths if others else ():
                if path.exists():
                    os.replace(path, old / path.name)
                    undo.callback(os.replace, old / path.name, path)
                else:
                    undo.callback(path.unlink, missing_ok=True)
            for path in (*others, first):
                os.replace(new / path.name, path)
            undo.pop_all()
        _settle(first.parent)
        return written
    except OSError as error:
        _rename(error, temporary, first)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(error: OSError, temporary: Path, path: Path) -> None:
    """Have an error say `path`, where it names what is or lies at `temporary`, which nobody knows, or nothing."""
    given = (error.filename, error.filename2)
    named = [Path(os.fsdecode(each)) for each in given if isinstance(each, str | bytes | os.PathLike)]
    if not named or any(each.is_relative_to(temporary) for each in named):
        error.filename = str(path)
        del error.filename2  # set to None, it would be printed


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Have what was renamed in a folder on the disk before anything that is written after it, where the file system
    does so on demand.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing in a folder and below. Nobody writes there."""
    for leftover in list(folder.rglob(".*.tmp")):
        found = UNFINISHED.fullmatch(leftover.name)  # other programs call theirs otherwise
        if found and not Path(f"/proc/{found[1]}").exists():  # nor is one taken from a process that is at it
            _remove(leftover)


def read_text(path: Path, expected: str) -> str:
    """The text of a file (UTF-8), which is `expected` in words.

    Raises: UserError when there is none or it cannot be read; DamagedError when it is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(
            f"{path}: expected {expected}, got a damaged file that is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None
    except OSError as error:
        raise UserError(f"expected {expected}, cannot read {path}: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one move (UTF-8), creating its folders. Of names of files, such as those of pictures,
    backslashes stand for what is not UTF-8.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8", errors="backslashreplace"))


@contextlib.contextmanager
def replace_folder(path: Path, last: str, goes: Collection[str] = ()) -> Iterator[Path]:
    """An empty folder to fill with files, which takes the place of the folder `path` (of what it links to) once the
    block has ended without an error. `last`: the file that says what the others are. `goes`: what an earlier one may
    have besides, and is removed; whatever else is in the folder then is somebody's, and stays.

    A process that is killed leaves the old folder, the new one or, in the instant between two renames, none; what it
    leaves behind beside them is put back or cleared away by the next call. Where the folder itself cannot be moved, or
    something is to stay in it, its files are replaced as `write_together` does. One process at a time: where one owns
    the folder, it owns what takes its place.
    """
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.unfinished")
    previous = path.with_name(f".{path.name}.previous")
    if previous.exists() and not path.exists():
        previous.rename(path)
    for leftover in (unfinished, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
    except OSError:
        if not path.is_dir():
            raise
        unfinished = path / f".new.{os.getpid()}.tmp"  # the folder around it is another's
        _remove(unfinished)
        unfinished.mkdir()
    try:
        yield unfinished
        for file in unfinished.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if not _swap(unfinished, path, previous, goes):
            _fill(path, unfinished, last, goes)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)


def _swap(new: Path, path: Path, previous: Path, goes: Collection[str]) -> bool:
    """Whether a folder could be put in the place of another, which is kept as `previous`: not in that of a mount point,
    nor where what is around it is another's or something in it stays, nor of the current folder, in which whoever
    stands would be left nowhere.
    """
    if path.exists():
        if new.parent == path or path == Path.cwd().resolve():
            return False
        if not set(os.listdir(path)) <= {*os.listdir(new), *goes, OWNER}:
            return False
        with contextlib.suppress(OSError):  # nobody owns it, or the disk knows no second names
            os.link(path / OWNER, new / OWNER)  # the same file, and so the same lock
        try:
            path.rename(previous)
        except OSError:
            return False
    new.rename(path)
    return True


def _fill(path: Path, new: Path, last: str, goes: Collection[str]) -> None:
    """Put the files of a folder in the place of those of their names in another, from which others go."""
    names = [last, *sorted({each.name for each in new.iterdir()} - {last, OWNER})]

    def copy(first: Path) -> None:
        for name in names:
            shutil.copyfile(new / name, first.with_name(name))

    write_together([path / name for name in names], copy)
    for name in goes:
        if name not in names:
            (path / name).unlink(missing_ok=True)
