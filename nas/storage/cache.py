"""Where this user keeps what can be made again: drawn pictures, anchors of devices, latency tables."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/framebudget, or ~/.cache/framebudget where that is not set. It may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "framebudget"
