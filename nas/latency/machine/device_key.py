"""Where what was once measured on a device is kept: $XDG_CACHE_HOME/framebudget, under a name for the device."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path


def folder(kind: str) -> Path:
    """The folder of "anchors" or "tables"."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "framebudget" / kind


def key_of(environment: Mapping[str, str], size: tuple[int, int]) -> dict[str, str]:
    """Everything that a latency of a given network depends on: device, versions, precision, threads, input size."""
    key = {name: text for name, text in environment.items() if name not in ("python", "system")}
    return key | {"size": f"{size[0]}x{size[1]}"}


def name_of(key: Mapping[str, str]) -> str:
    """A readable name, and a digest of the whole key."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:12]
    return "-".join([*(key[part] for part in ("runtime", "precision", "size") if part in key), digest])
