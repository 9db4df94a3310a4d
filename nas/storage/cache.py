"""The folder for this user's reproducible data: drawn pictures, anchors of devices, latency tables."""

from __future__ import annotations

import os
from pathlib import Path

from space.errors import UserError


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/framebudget, or ~/.cache/framebudget if that variable is not set. It may not exist yet.

    Raises: UserError when the variable is not set and the user has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "framebudget"
    try:
        return Path.home() / ".cache" / "framebudget"
    except RuntimeError:  # HOME is not set, and the user ID has no entry
        raise UserError(
            "expected a home folder to keep pictures and latency tables in, got none: HOME is not set and the system "
            f"does not know user {os.getuid()}; set XDG_CACHE_HOME to a folder that can be written to"
        ) from None
