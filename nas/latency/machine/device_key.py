"""Where measurements of a device are kept: in the cache folder, under a name for the device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from nas.latency.target import Target
from nas.storage.cache import cache_folder


def folder(kind: str) -> Path:
    """The cache folder for one `kind` of measurement: "anchors", "tables" or "defaults"."""
    return cache_folder() / kind


def key_of(environment: Mapping[str, str], size: tuple[int, int]) -> dict[str, str]:
    """Everything besides the network that a latency depends on: device, versions, precision, threads, input size."""
    key = {name: text for name, text in environment.items() if name not in ("python", "system")}
    return key | {"size": f"{size[0]}x{size[1]}"}


def key_but_host(environment: Mapping[str, str], size: tuple[int, int]) -> dict[str, str]:
    """`key_of` without the host's name, which differs between containers on one machine. The name is kept if the system
    does not report the processor's model (several words): processors called just "aarch64" differ widely in speed.
    """
    key = key_of(environment, size)
    return {name: text for name, text in key.items() if name != "host" or " " not in key.get("cpu", "")}


def key_of_anchor(environment: Mapping[str, str], target: Target, size: tuple[int, int]) -> dict[str, str]:
    """The key of the reference network's latency, for a target and its environment."""
    return key_of({**environment, "precision": target.of_reference().precision}, size)


def name_of(key: Mapping[str, str]) -> str:
    """A file name for a key: readable parts and a digest of the whole key."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:12]
    return "-".join([*(key[part] for part in ("runtime", "precision", "size") if part in key), digest])
