"""Event files, which TensorBoard reads; a training goes on without them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from nas.runs.events import EVENTS, event_files, one_after_another
from nas.training.scores import EpochReport, Scores

SCORES = Scores(miou=0.25, class_iou=(0.25, None), pixel_accuracy=0.5)
REPORT = EpochReport(epoch=3, epochs=4, loss=1.5, scores=SCORES, seconds=2.0, waited_for_data=0.125)


def events_of(file: Path) -> list[Event]:
    found, content = [], file.read_bytes()
    while content:  # a length and its check, an event and its check
        end = 12 + int.from_bytes(content[:8], "little")
        found.append(Event.FromString(content[12:end]))
        content = content[end + 4 :]
    return found


def test_an_epoch_is_written_at_once_and_hides_later_epochs_of_earlier_files(tmp_path: Path) -> None:
    with event_files(tmp_path, 2) as tell:
        assert not (tmp_path / EVENTS).exists(), "it waits for an epoch"
        tell(REPORT, 0.01)
        (file,) = (tmp_path / EVENTS).iterdir()
        version, start, epoch = events_of(file)
    assert "tfevents" in file.name
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (3, SessionLog.START)
    assert epoch.step == 3
    values = {each.tag: each.simple_value for each in epoch.summary.value}
    assert values == {
        "loss": 1.5, "mIoU": 0.25, "pixel_accuracy": 0.5, "learning_rate": pytest.approx(0.01), "seconds": 2.0,
        "waited_for_data": 0.125,
    }  # fmt: skip


def test_an_epoch_that_was_not_scored_has_no_scores(
    tmp_path: Path, scalars: Callable[[Path], dict[str, list[tuple[int, float]]]]
) -> None:
    with event_files(tmp_path, 2) as tell:
        tell(replace(REPORT, scores=None), 0.01)
        tell(replace(REPORT, epoch=4), 0.01)
    drawn = scalars(tmp_path / EVENTS)
    assert [epoch for epoch, _ in drawn["loss"]] == [3, 4]
    assert [epoch for epoch, _ in drawn["mIoU"]] == [epoch for epoch, _ in drawn["pixel_accuracy"]] == [4]


def test_epochs_of_several_trainings_are_counted_together(
    tmp_path: Path, scalars: Callable[[Path], dict[str, list[tuple[int, float]]]]
) -> None:
    with event_files(tmp_path, 0) as tell:
        count_on = one_after_another(tell)
        for epoch, loss in ((1, 1.5), (2, 1.25), (1, 1.0)):
            count_on(replace(REPORT, epoch=epoch, loss=loss), 0.01)
    assert scalars(tmp_path / EVENTS)["loss"] == [(1, 1.5), (2, 1.25), (3, 1.0)]


def test_a_training_goes_on_without_writable_event_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / EVENTS).write_text("no folder")
    with event_files(tmp_path, 0) as tell:
        tell(REPORT, 0.01)
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with event_files(tmp_path / "other", 0) as tell:
        tell(REPORT, 0.01)
    assert not (tmp_path / "other").exists()
