"""Locks on files (flock), and file systems that have none: NFS without its lock service, Lustre without `-o flock`."""

from __future__ import annotations

import errno
import fcntl
import tempfile

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Error numbers of file systems without locks."""


def lock_under_tmpdir(descriptor: int, kind: int) -> None:
    """`fcntl.flock`, for a file under TMPDIR.

    Raises: HaltedError when the file system there has no locks; OSError as flock does.
    """
    try:
        fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        from nas.errors import HaltedError  # with the whole package `space`, which a guard process does not need

        raise HaltedError(
            f"expected a temporary folder whose files can be locked, got {tempfile.gettempdir()} ({error.strerror}); "
            "set TMPDIR to a folder on a local disk"
        ) from None
