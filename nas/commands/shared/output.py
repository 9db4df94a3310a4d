"""Where commands write: folders and files that --out names, none of which is lost that is of value; and what is said
of a certificate that was written there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.commands.shared import common

if TYPE_CHECKING:
    from nas.runs.certificate import Certificate


@contextlib.contextmanager
def folder(text: str | Path) -> Iterator[Path]:
    """The folder that --out names, made if it is not there; what was made and is empty at the end is removed.

    Raises: UserError when it cannot be made.
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
        with contextlib.suppress(OSError):  # it holds something
            for each in made:
                if each.exists():  # its owner may have removed it
                    each.rmdir()


def require_folder(text: str | Path) -> None:
    """Make sure that the folder which --out names can be made, and leave none that was not there.

    Raises: UserError.
    """
    with folder(text):
        pass


def require_own_files(paths: Sequence[Path], suffix: str) -> None:
    """Make sure that --out, the first of `paths`, names what may be written: new files, or those of its kind that
    nothing certifies. It ends in `suffix`, by which it is known what it is. The others are what is written beside it;
    then all of them are there, or none.

    Raises: UserError for a folder, for a file of another kind and for one that a certificate is about.
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
            f"--out: expected a file that ends in {suffix}, got {out}; give {out}{suffix}, say, or the --format of "
            "what ends so"
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
            raise UserError(f"--out: {path} is what {out.parent / CERTIFICATE} is about; give another file")


def require_folder_for(what: str, out: Path, own: str) -> None:
    """Make sure that a folder for `what`, known by its file `own`, is not of another kind: a search's, a training's, a
    data set's or that of a certified network, of which the file that says so would speak of what is written beside it.

    Raises: UserError.
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
    """The folder that --out names, for a network and its certificate: made, and this process's alone.

    Raises: UserError where it cannot be made, is in use, lies in a run, or holds something else than what would be
    replaced.
    """
    from nas.storage.ownership import owned

    _require_no_run(out)
    with folder(out):
        _require_no_other(out)  # before anything is done there, as its owner too
        with owned(out):
            _require_no_other(out)
            yield


def require_other_folder(out: Path, architecture: str, weights: Path) -> None:
    """Make sure that a network is not written where it is made of another: neither its weights lie there, nor what
    ARCH names.

    Raises: UserError.
    """
    from nas.runs.trained import folder_of
    from space.errors import UserError

    sources = (folder_of(architecture), Path(architecture).parent if Path(architecture).is_file() else None)
    found = {each.resolve() for each in (*sources, weights.parent) if each is not None}
    if out.resolve() in found:
        raise UserError(
            f"--out: expected another folder than that of the network which is given, got {out}, where it would be "
            "lost; give another one"
        )


def require_same_network(out: Path, key: str) -> None:
    """Make sure that the certificate in a folder, if there is one, is about the architecture of that key; it is said
    that it will be replaced.

    Raises: UserError where it is about another one, or cannot be read.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate
    from space.errors import UserError

    if (out / CERTIFICATE).is_file() and (found := read_certificate(out).architecture) != key:
        raise UserError(
            f"--out: expected a new folder, or one with a {CERTIFICATE} of the network {key}, got {out}, whose one is "
            f"of another network, {found}, which would be lost; give another one"
        )
    say_replaced(out)


def say_replaced(out: Path) -> None:
    """Say which certificate in a folder will be replaced, if there is one.

    Raises: UserError where it cannot be read.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate

    if (out / CERTIFICATE).is_file():
        certificate = read_certificate(out)
        of = f"{certificate.runs_on}, network {certificate.architecture}"
        common.say(f"note: {out} holds a certificate of {certificate.certified} ({of}), which will be replaced")


def say_certificate(certificate: Certificate, out: Path, more: str = "") -> None:
    """Print what a certificate in the folder `out` says, and `more`; where it is unsure, why and what settles that."""
    from nas.latency.budget import settling_in

    against = "" if certificate.budget is None else f" against {certificate.budget}"
    print(f"certificate: {certificate.verdict or 'no budget'}  {certificate.latency}{against}{more}")
    if certificate.verdict == "UNSURE":
        print(f"  {settling_in(certificate.unsure, out)}")


def _require_no_run(out: Path) -> None:
    """Raises: UserError where a folder lies in that of a run, which says itself what is in it."""
    from nas.runs.folder import run_around
    from space.errors import UserError

    run = run_around(out)
    if run is not None:
        raise UserError(
            f"--out: expected a folder outside of runs, got {out} in the run {run}, whose networks and certificates "
            "are its own; give another one"
        )


def _require_no_other(out: Path) -> None:
    """Raises: UserError where a folder holds something else than a network with its certificate, which is replaced: any
    file that is not the one which the certificate names.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate
    from nas.runs.data_seen import FILE as DATA_SEEN
    from nas.runs.data_seen import DataSeen
    from nas.runs.trained import digest_of
    from nas.storage.files import OWNER, UNFINISHED
    from nas.storage.records import cached_record
    from space.errors import UserError

    replaced = {OWNER, "lost+found"}  # which a disk's own folder has, and keeps
    if (out / CERTIFICATE).is_file():
        certified = read_certificate(out).sha256
        there = [name for name in certified if (out / name).is_file()]
        replaced |= {CERTIFICATE, *(name for name in there if digest_of(out / name) == certified[name])}
        if cached_record(out / DATA_SEEN, DataSeen) is not None:
            replaced.add(DATA_SEEN)
    for name in sorted(each.name for each in out.iterdir()):
        if name not in replaced and not UNFINISHED.fullmatch(name):
            raise UserError(
                f"--out: expected a new folder, or one that holds nothing but a network and its {CERTIFICATE}, which "
                f"are replaced, got {out} with {name}, which would be lost; give another one"
            )
