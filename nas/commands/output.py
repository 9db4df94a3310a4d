"""Where commands write: folders and files that --out names, none of which is lost that is of value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path


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


def require_own_files(paths: Sequence[Path], suffix: str) -> None:
    """Make sure that --out, the first of `paths`, names what may be written: new files, or those of its kind that
    nothing certifies. The others are what is written beside it; then all of them are there, or none, and --out ends in
    `suffix`, by which they are found.

    Raises: UserError for a folder, for a file of another kind and for one that a certificate is about.
    """
    from nas.runs.certificate import CERTIFICATE, read_certificate
    from space.errors import UserError

    out, *others = paths
    if out.is_dir():
        raise UserError(f"--out: expected a file, got the folder {out}; give {out / f'model{suffix}'}, say")
    if out.suffix != suffix and others:
        raise UserError(f"--out: expected a file that ends in {suffix}, got {out}; give {out}{suffix}, say")
    if out.exists() and out.suffix != suffix:
        raise UserError(f"--out: expected a new file, or one that ends in {suffix}, got {out}, which would be lost")
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


@contextlib.contextmanager
def owned_folder(out: Path) -> Iterator[None]:
    """The folder that --out names, for a network and its certificate: made, and this process's alone.

    Raises: UserError where it cannot be made, is in use, or holds something else than what would be replaced.
    """
    from nas.storage.ownership import owned

    with folder(out):
        _require_no_other(out)  # before anything is done there, as its owner too
        with owned(out):
            _require_no_other(out)
            yield


def _require_no_other(out: Path) -> None:
    """Raises: UserError where a folder holds something else than a network with its certificate, which is replaced."""
    from nas.runs.certificate import CERTIFICATE
    from nas.storage.files import OWNER
    from space.errors import UserError

    if not (out / CERTIFICATE).is_file() and any(each.name != OWNER for each in out.iterdir()):
        raise UserError(
            f"--out: expected a new folder or one that holds a network and its {CERTIFICATE}, got {out}, which would "
            "be replaced with all that it holds; give another one"
        )
