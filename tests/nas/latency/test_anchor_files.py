"""Anchors as files: JSON, which is YAML too, so that a host without a YAML library reads and writes them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nas.latency.machine import load
from nas.latency.machine.watch import Watch
from nas.latency.protocol import anchor
from nas.latency.protocol.controls import Controls
from space import strict
from space.errors import UserError

KEPT = anchor.Anchor(
    milliseconds=5.25e-3,
    canary=0.2,
    blocks_milliseconds=(5e-3, 5.1e-3),
    blocks_canary=(0.2, 0.21),
    taken="2020-01-01T00:00:00+00:00",
    device={"runtime": "onnxruntime", "cpu": 'J\u00fcrgens "CPU" \U0001f600', "size": "64x96"},
    flagged=("the machine was busy",),
    best_milliseconds=5e-3,
    away_milliseconds=(6e-3,),
    away_since_seconds=7.5,
)


def test_an_anchor_is_read_as_written_also_as_yaml(tmp_path: Path) -> None:
    anchor.write(tmp_path / "one.yaml", KEPT)
    assert anchor.read(tmp_path / "one.yaml") == KEPT
    plain = anchor.of_text(anchor.text_of(KEPT).replace("\\ud83d\\ude00", ""))  # YAML has no surrogates
    assert strict.parse(anchor.text_of(plain), anchor.Anchor, "an anchor") == plain


def test_anchors_of_earlier_versions_are_read(tmp_path: Path) -> None:
    older = replace(KEPT, best_milliseconds=None, away_milliseconds=(), away_since_seconds=None)
    held = {name: value for name, value in json.loads(anchor.text_of(older)).items() if name not in anchor.LATER}
    assert anchor.of_text(json.dumps(held)) == older == anchor.of_text(anchor.text_of(older))


def test_observations_of_several_processes_are_counted_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    begun, path = replace(KEPT, away_milliseconds=(), away_since_seconds=None), anchor.path_of(KEPT.device)
    anchor.write(path, begun)
    for seconds in (10.0, 80.0, 140.0):  # each process knows only the first anchor
        noted = anchor.noted(begun, 8e-3, seconds)
    assert anchor.read(path) == noted == replace(begun, away_milliseconds=(8e-3,) * 3, away_since_seconds=10.0)
    assert anchor.noted(begun, None, 150.0) == begun == anchor.read(path), "one found it as it was anchored"
    assert anchor.noted(noted, 8e-3, 5.0).away_since_seconds == 5.0
    path.unlink()
    assert anchor.noted(begun, 8e-3, 160.0) == begun
    assert not path.exists(), "who removed it wants a new one"


def texts() -> list[str]:
    """Texts of an anchor, cut short or with one of its values exchanged."""
    whole = anchor.text_of(KEPT)
    found = [whole[:length] for length in range(len(whole))]
    held = json.loads(whole)
    values = (None, True, "text", "", -1, 0, 1e999, float("nan"), 10**400, [], {}, [None], {"a": 1})
    found += [
        json.dumps({**held, name: value}) for name in held for value in values if value not in ([], {}, "", "text")
    ]
    found += [json.dumps({**held, "milliseconds": value}) for value in values]
    found += [
        json.dumps({name: value for name, value in held.items() if name != left_out})
        for left_out in held
        if left_out not in anchor.LATER
    ]
    return [*found, json.dumps({**held, "more": 1}), "[" * 100_000, "1" * 5_000, "milliseconds: 5.0\ncanary: 0.2\n"]


def test_a_damaged_anchor_file_gives_no_anchor(tmp_path: Path) -> None:
    """The anchor is then taken anew: the folder is a cache. Older anchors were YAML in lines."""
    file = tmp_path / "one.yaml"
    read = []
    for text in texts():
        file.write_text(text, "utf-8")
        read.append((text, anchor.read(file)))
    assert len(read) > 400
    assert [text for text, found in read if found is not None] == []
    file.write_bytes(b"\xff\xfe")
    assert anchor.read(file) is None


def ticking(key: Mapping[str, str]) -> Controls:
    """Networks that take 1 ms each, on a clock that advances 1 ms at each reading."""
    ticks = itertools.count(step=1_000_000)
    watch = Watch(nanoseconds=lambda: next(ticks), sleep=lambda seconds: None, snapshot=load.snapshot)
    return Controls(reference=tuple, canary=tuple, key=key, watch=watch)


def test_an_anchor_is_taken_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = {"runtime": "torch", "precision": "fp32", "size": "64x96", "cpu": "a: 'strange' # one"}
    kept = replace(KEPT, milliseconds=7.5, device=device, flagged=())
    anchor.write(anchor.path_of(device), kept)
    assert anchor.obtain(ticking(device)) == kept
    assert anchor.path_of(device).parent == tmp_path / "framebudget" / "anchors"
    assert anchor.path_of(device) != anchor.path_of(device | {"cpu": "another"})
    assert [path.suffix for path in (tmp_path / "framebudget" / "anchors").iterdir()] == [".yaml"]


def test_a_missing_or_damaged_anchor_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = {"runtime": "torch", "precision": "fp32", "size": "64x96"}
    path = anchor.path_of(device)
    path.parent.mkdir(parents=True)
    path.write_text("milliseconds: [")
    taken = anchor.obtain(ticking(device))
    assert taken.milliseconds == 1.0
    assert anchor.read(path) == taken
    assert len(taken.blocks_milliseconds) == anchor.ANCHOR_BLOCKS


def test_an_anchor_of_a_disturbed_machine_is_replaced_on_a_quiet_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    marked, beside = replace(KEPT, milliseconds=9e9, flagged=("busy",)), ticking(KEPT.device)
    anchor.write(anchor.path_of(KEPT.device), marked)
    monkeypatch.setattr(load, "disturbances", lambda *_, **__: ("busy",))  # not those of this machine
    assert anchor.obtain(beside) == marked
    monkeypatch.setattr(load, "disturbances", lambda *_, **__: ())
    fresh = anchor.obtain(beside)
    assert (fresh.milliseconds, fresh.flagged) == (1.0, ())
    assert anchor.obtain(beside) == fresh


def test_an_unwritable_cache_for_anchors_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        anchor.write(anchor.path_of({}), KEPT)
