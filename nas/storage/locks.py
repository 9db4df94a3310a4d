"""Locks on files (flock), and file systems that have none: NFS without its lock service, Lustre without `-o flock`."""

from __future__ import annotations

import errno
import fcntl
import tempfile

from nas.errors import HaltedError

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system answers that knows no locks."""


def lock_under_tmpdir(descriptor: int, kind: int) -> None:
    """What `fcntl.flock` does, of a file under TMPDIR.

    Raises: HaltedError where the file system there knows no locks; OSError as flock does.
    """
    try:
        fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise HaltedError(
            f"expected a temporary folder whose files can be locked, got {tempfile.gettempdir()} ({error.strerror}); "
            "set TMPDIR to a folder on a local disk"
        ) from None
