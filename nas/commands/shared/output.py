"""Checks of the folders and files that --out names, so that no file of value is overwritten; and the lines that print a
certificate.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.commands.shared import common

if TYPE_CHECKING:
    from nas.runs.certificate import Certificate
    from space.errors import UserError

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Error numbers of folders and disks that cannot be written to; that of a full disk is not among them."""
PICTURES = (".png", ".svg")


@contextlib.contextmanager
def folder(text: str | Path) -> Iterator[Path]:
    """The folder that --out names, created if missing; folders that were created and are empty at the end are removed.

    Raises: UserError when it cannot be created.
    """
    from space.errors import UserError

    found = Path(text)
    made = [each for each in (found, *found.parents) if not each.exists()]
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of that name" if found.exists() else error.strerror
        raise UserError(f"--out: cannot make the folder {found} ({reason}); give another one") from None
    try:
        yield found
    finally:
        with contextlib.suppress(OSError):  # raised for a folder that is not empty
            for each in made:
                if each.exists():  # another process may have removed it
                    each.rmdir()


def require_folder(text: str | Path) -> None:
    """Check that the folder that --out names can be created, and leave no new folder behind.

    Raises: UserError when it cannot.
    """
    with folder(text):
        pass


def require_own_files(paths: Sequence[Path], suffix: str) -> None:
    """Check that an export may write `paths`: --out, which has to end in `suffix`, and the files beside it. They must
    be new, or all of an earlier export, and in no certificate.

    Raises: UserError for a folder, for a file of another kind and for a file that a certificate is about.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate
    from space.errors import UserError

    out, *others = paths
    if out.is_dir():
        raise UserError(f"--out: expected a file, got the folder {out}; give {out / f'model{suffix}'}, say")
    if out.suffix != suffix and out.exists() and not others:
        raise UserError(f"--out: expected a new file, or one that ends in {suffix}, got {out}, which would be lost")
    if out.suffix != suffix:
        raise UserError(
            f"--out: expected a file that ends in {suffix}, got {out}; give {out}{suffix}, say, or the --format that "
            "this suffix belongs to"
        )
    there = [path for path in paths if path.exists()]
    if any(path.is_dir() for path in there) or (there and len(there) < len(paths)):
        raise UserError(
            f"--out: expected {' and '.join(map(str, paths))} of an earlier export, or none of them, got {there[-1]}, "
            "which would be lost; give another file"
        )
    certified = read_certificate(out.parent).sha256 if (out.parent / CERTIFICATE).is_file() else {}
    for path in paths:
        if path.name in certified:
            raise UserError(f"--out: {path} is certified by {out.parent / CERTIFICATE}; give another file")


def require_replaceable(folder: Path, marks: Mapping[str, str], command: str, *, table: str = "") -> None:
    """Check that `nas COMMAND` would replace only its own files in a folder. `marks`: for the name of each file that it
    writes, a text near its beginning or end that identifies such a file. Pictures of earlier versions have none: they
    count as the command's own if the file called `table` is.

    Raises: UserError for the first existing file without its mark.
    """
    from nas.storage.files import is_marked
    from space.errors import UserError

    vouched_for = PICTURES if table and is_marked(folder / table, marks[table]) else ()
    for name, mark in marks.items():
        path = folder / name
        if os.path.lexists(path) and not (name.endswith(vouched_for) or is_marked(path, mark)):
            raise UserError(
                f"--out: expected no {path}, or one that this version of `nas {command}` wrote, got another file, "
                "which would be lost; remove it, or give another folder"
            )


def require_folder_for(what: str, out: Path, own: str) -> None:
    """Check that a folder for `what`, recognised by its file `own`, is not one of another kind: a search's, a
    training's, a data set's or a certified network's, whose own files would then describe the wrong contents.

    Raises: UserError for a folder of another kind.
    """
    from nas.runs.certificate import CERTIFICATE
    from nas.runs.folder import STUDY
    from nas.runs.trained import CHECKPOINT
    from space.errors import UserError

    for name in (STUDY, CHECKPOINT, CERTIFICATE, "classes.txt", "classes.yaml"):
        if name != own and (out / name).is_file():
            raise UserError(f"--out: expected a folder for {what}, got {out} with its {name}; give another one")


@contextlib.contextmanager
def owned_folder(out: Path) -> Iterator[None]:
    """The folder that --out names, for a network and its certificate: created, and owned by this process alone.

    Raises: UserError where it cannot be created, is in use, lies in a run, or holds files that would not be replaced.
    """
    _require_no_run(out)
    with folder(out):
        _require_no_other(out)  # first without ownership, so that a refused folder stays untouched
        with owned(out):
            _require_no_other(out)
            yield


@contextlib.contextmanager
def owned(folder: Path, *, resume: bool = False) -> Iterator[None]:
    """Own a folder (`nas.storage.ownership.owned`). `resume`: the command continues the work in it.

    Raises: UserError when another process owns the folder, or it cannot be written to.
    """
    from nas.storage import ownership

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(ownership.owned(folder))
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
            raise unwritable(folder, error, resume=resume) from None
        yield


def unwritable(folder: Path, error: OSError, *, resume: bool = False) -> UserError:
    """The error to raise when `error` shows that a folder cannot be made or written to."""
    from space.errors import UserError

    advice = "copy it to a disk that can be written to, and go on there" if resume else "give another with --out"
    return UserError(f"expected a folder that can be written to, got {folder} ({error.strerror}); {advice}")


def require_other_folder(out: Path, architecture: str, weights: Path) -> None:
    """Check that a network is not written over its source: the folder of the weights, or of what ARCH names.

    Raises: UserError where it would be.
    """
    from nas.runs.trained import folder_of
    from space.errors import UserError

    sources = (folder_of(architecture), Path(architecture).parent if Path(architecture).is_file() else None)
    found = {each.resolve() for each in (*sources, weights.parent) if each is not None}
    if out.resolve() in found:
        raise UserError(
            f"--out: expected another folder than that of the given network, got {out}, where it would be lost; give "
            "another one"
        )


def require_same_network(out: Path, key: str) -> None:
    """Check that the certificate in a folder, if there is one, is about the architecture of that key, and print that it
    will be replaced.

    Raises: UserError where it is about another architecture, or cannot be read.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate
    from space.errors import UserError

    if (out / CERTIFICATE).is_file() and (found := read_certificate(out).architecture) != key:
        raise UserError(
            f"--out: expected a new folder, or one with a {CERTIFICATE} of the network {key}, got {out} with that of "
            f"another network, {found}, which would be lost; give another one"
        )
    say_replaced(out)


def say_replaced(out: Path) -> None:
    """Print which certificate in a folder will be replaced, if there is one.

    Raises: UserError where it cannot be read.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate

    if (out / CERTIFICATE).is_file():
        certificate = read_certificate(out)
        subject = f"{certificate.runs_on}, network {certificate.architecture}"
        common.say(f"note: {out} holds a certificate of {certificate.certified} ({subject}), which will be replaced")


def say_certificate(certificate: Certificate, out: Path, more: str = "") -> None:
    """Print the verdict and latency of a certificate in the folder `out`, and `more`; if unsure, how to settle it."""
    from nas.latency.budget import settling_in

    against = "" if certificate.budget is None else f" against {certificate.budget}"
    print(f"certificate: {certificate.verdict or 'no budget'}  {certificate.latency}{against}{more}")
    if certificate.verdict == "UNSURE":
        print(f"  {settling_in(certificate.unsure, out)}")


def _require_no_run(out: Path) -> None:
    """Raises: UserError where a folder lies inside that of a run, whose contents are the run's own."""
    from nas.runs.folder import run_around
    from space.errors import UserError

    run = run_around(out)
    if run is not None:
        raise UserError(
            f"--out: expected a folder outside of runs, got {out} in the run {run}, which writes its own networks and "
            "certificates; give another one"
        )


def _require_no_other(out: Path) -> None:
    """Raises: UserError where a folder holds a file that would not be replaced: one that is neither a certificate nor
    named by it, or that was changed since.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate
    from nas.runs.data_seen import FILE as DATA_SEEN
    from nas.runs.data_seen import DataSeen
    from nas.runs.events import EVENTS
    from nas.runs.trained import digest_of
    from nas.storage.files import OWNER, UNFINISHED
    from nas.storage.records import cached_record
    from space.errors import UserError

    replaced = {OWNER, EVENTS, "lost+found"}  # the last two stay: new event files go beside earlier ones
    if (out / CERTIFICATE).is_file():
        certified = read_certificate(out).sha256
        there = [name for name in certified if (out / name).is_file()]
        replaced |= {CERTIFICATE, *(name for name in there if digest_of(out / name) == certified[name])}
        if cached_record(out / DATA_SEEN, DataSeen) is not None:
            replaced.add(DATA_SEEN)
    for name in sorted(each.name for each in out.iterdir()):
        if name not in replaced and not UNFINISHED.fullmatch(name):
            raise UserError(
                f"--out: expected a new folder, or one with only a network and its {CERTIFICATE} to be replaced, got "
                f"{out} with {name}, which would be lost; give another one"
            )
