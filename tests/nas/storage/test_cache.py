"""Everything that can be made again lies in one folder of the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.latency import device_cache
from nas.storage.cache import cache_folder


def test_the_environment_says_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "framebudget"
    assert device_cache.folder("anchors") == tmp_path / "framebudget" / "anchors"
    assert list(tmp_path.iterdir()) == []


def test_without_an_environment_the_cache_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "framebudget"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "framebudget"
