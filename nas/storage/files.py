"""Files that are always either the old ones or the new ones, never partly written."""

from __future__ import annotations

import contextlib
import errno
import itertools
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
UNFINISHED = re.compile(r"\..+\.(\d+|words)\.tmp")  # unfinished files of this module, and last words of trainings
NO_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
"""Errors of file systems that cannot sync a folder (CIFS, some FUSE ones)."""
MARKED_BYTES = 4096  # bytes at the beginning and at the end of a file that are searched for its mark
OWNER = ".owner"  # file that names the process which owns the folder (`nas.storage.ownership`)


def expanded(path: str | Path) -> Path:
    """A user's path with `~` and `~name` expanded as a shell does; `~name` of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))


def require_utf8(path: str | Path) -> None:
    """Make sure that a path can be stored as text.

    Raises: UserError when it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"expected a path in UTF-8, got {os.fsencode(path)!r}; rename the parts that are not, and try again"
        ) from None


def is_marked(path: Path, mark: str) -> bool:
    """Whether a path is a file with this text near its beginning or end."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(MARKED_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - MARKED_BYTES))
        return mark.encode() in beginning or mark.encode() in file.read(MARKED_BYTES)


def write_atomically(path: Path, write: Callable[[Path], object], *, mark: str = "") -> None:
    """Let `write` fill a temporary file beside `path`, then replace `path` by it in one rename.

    If the process is killed or the disk is full, `path` keeps its previous content. With a `mark`, only a file that has
    it (`is_marked`) is replaced: another one may have appeared since the command began.

    Raises: UserError when `path` is a file without the mark; what was written is then kept beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")  # /proc lists thread IDs too
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if mark and os.path.lexists(path) and not is_marked(path, mark):
            numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
            kept = next(each for each in numbered if not os.path.lexists(each))
            os.replace(temporary, kept)
            raise UserError(
                f"{path}: expected none still, or one that the same command wrote, got another file, which would be "
                f"lost; what was to replace it is {kept}"
            )
        os.replace(temporary, path)
        _settle(path.parent)
    except OSError as error:
        _rename(error, temporary, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_together(paths: Sequence[Path], write: Callable[[Path], Written]) -> Written:
    """Let `write` fill a temporary folder with files named as `paths`, then replace `paths` by them.

    `paths` are in one folder. `write` receives the first one's path in the temporary folder; other files that it leaves
    there are removed.

    The first path is the one that readers open: it is moved away while the others are replaced and is put in place
    last, so that files which do not belong together are never read together. After an error or on a full disk, the old
    files remain. A process that is killed leaves the old files, the new files or, between the renames, no first file. A
    single file is replaced in one rename. Not for several processes at a time.
    """
    first, *others = paths
    first.parent.mkdir(parents=True, exist_ok=True)
    temporary = first.with_name(f".{first.name}.{os.getpid()}.tmp")
    new, old = temporary / "new", temporary / "old"
    try:
        _remove(temporary)  # left by a killed process with the same process ID
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
    """Make an error name `path` if it names nothing, or something in `temporary`, which the user does not know."""
    names = (error.filename, error.filename2)
    named = [Path(os.fsdecode(name)) for name in names if isinstance(name, str | bytes | os.PathLike)]
    if not named or any(name.is_relative_to(temporary) for name in named):
        error.filename = str(path)
        del error.filename2  # it would be printed even if set to None


def _remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Sync a folder, so that renames in it reach the disk before anything written later, if the file system supports
    it.
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
    """Remove unfinished files of killed processes in a folder and below. Nothing may be writing there."""
    for leftover in list(folder.rglob(".*.tmp")):
        found = UNFINISHED.fullmatch(leftover.name)  # not of another program
        if found and not Path(f"/proc/{found[1]}").exists():  # nor of a process that still writes it
            _remove(leftover)


def read_text(path: Path, expected: str) -> str:
    """The text of a file (UTF-8). `expected` describes it in messages.

    Raises: UserError when the file is missing or cannot be read; DamagedError when it is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(
            f"{path}: expected {expected}, got a damaged file that is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None
    except OSError as error:
        raise UserError(f"expected {expected}, cannot read {path}: {error.strerror or error}") from None


def write_text(path: Path, text: str, *, mark: str = "") -> None:
    """Replace a text file (UTF-8) in one rename, creating its folders. Characters of file names that are not UTF-8 are
    written as backslash escapes. `mark` as in `write_atomically`.

    Raises: UserError when `path` is a file without the mark.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8", errors="backslashreplace"), mark=mark)


@contextlib.contextmanager
def replace_folder(path: Path, last: str, goes: Collection[str] = ()) -> Iterator[Path]:
    """An empty folder to fill with files, which replaces the folder `path` (or its link's target) if the block ends
    without an error.

    `last`: the file that describes the others and makes them count. `goes`: names of files of an earlier version that
    are removed. Any other file in the folder belongs to the user and stays.

    A process that is killed leaves the old folder, the new one or, between two renames, none; the next call restores
    or removes what it left behind. If the folder itself cannot be moved, or has files that stay, its files are replaced
    as by `write_together`. Not for several processes at a time. The owner of the folder also owns the new one.
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
        unfinished = path / f".new.{os.getpid()}.tmp"  # the folder around it cannot be written
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
    """Replace a folder by another one, and keep it as `previous`. Returns False if that is not possible: for a mount
    point, if the folder around it cannot be written, if some of its files stay, and for the current folder, where a
    shell would otherwise be left in a removed folder.
    """
    if path.exists():
        if new.parent == path or path == Path.cwd().resolve():
            return False
        if not set(os.listdir(path)) <= {*os.listdir(new), *goes, OWNER}:
            return False
        with contextlib.suppress(OSError):  # no owner, or a file system without hard links
            os.link(path / OWNER, new / OWNER)  # the same file, and so the same lock
        try:
            path.rename(previous)
        except OSError:
            return False
    new.rename(path)
    return True


def _fill(path: Path, new: Path, last: str, goes: Collection[str]) -> None:
    """Replace files in a folder by those of the same names in another one, and remove the files that go."""
    names = [last, *sorted({file.name for file in new.iterdir()} - {last, OWNER})]

    def copy(first: Path) -> None:
        for name in names:
            shutil.copyfile(new / name, first.with_name(name))

    write_together([path / name for name in names], copy)
    for name in goes:
        if name not in names:
            (path / name).unlink(missing_ok=True)
