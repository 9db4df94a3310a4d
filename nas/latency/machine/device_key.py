"""Where what was once measured on a device is kept: the cache folder, under a name for the device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from nas.latency.target import Target
from nas.storage.cache import cache_folder


def folder(kind: str) -> Path:
    """The folder of "anchors", "tables" or "defaults"."""
    return cache_folder() / kind


def key_of(environment: Mapping[str, str], size: tuple[int, int]) -> dict[str, str]:
    """Everything that a latency of a given network depends on: device, versions, precision, threads, input size."""
    key = {name: text for name, text in environment.items() if name not in ("python", "system")}
    return key | {"size": f"{size[0]}x{size[1]}"}


def key_of_anchor(environment: Mapping[str, str], target: Target, size: tuple[int, int]) -> dict[str, str]:
    """The same for the reference that latencies on a target, in its environment, are ratios to."""
    return key_of({**environment, "precision": target.of_reference().precision}, size)


def name_of(key: Mapping[str, str]) -> str:
    """A readable name, and a digest of the whole key."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:12]
    return "-".join([*(key[part] for part in ("runtime", "precision", "size") if part in key), digest])
