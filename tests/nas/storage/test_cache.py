"""The one folder of the user's cache for everything that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas.latency.machine import device_key
from nas.latency.protocol import anchor
from nas.storage.cache import cache_folder
from space.errors import UserError


def test_an_environment_variable_names_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "framebudget"
    assert device_key.folder("anchors") == tmp_path / "framebudget" / "anchors"
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_in_the_home_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "framebudget"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "framebudget"


def test_an_anchor_is_kept_whole_or_refused_with_advice(tmp_path: Path) -> None:
    taken = anchor.Anchor(
        milliseconds=2.5,
        canary=0.4,
        blocks_milliseconds=(2.5,),
        blocks_canary=(0.4,),
        taken="2024-05-01T12:00:00+00:00",
        device={"cpu": "Prozessor für Tests"},
    )
    kept = tmp_path / "anchors" / "one.yaml"
    anchor.write(kept, taken)
    assert anchor.read(kept) == taken
    assert list(kept.parent.iterdir()) == [kept]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot keep the device's anchor in .*file.* set XDG_CACHE_HOME"):
        anchor.write(tmp_path / "file" / "one.yaml", taken)


def test_the_error_for_a_user_without_a_home_names_the_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a user is common in containers: /etc/passwd does not know the number."""
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder that can be written to"):
        cache_folder()
