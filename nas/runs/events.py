"""A training's epochs as scalars for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nas.training.scores import EpochReport

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

EVENTS = "events"
"""Folder of the event files, inside a training's folder."""
Tell = Callable[[EpochReport, float], None]
"""Receives the report of an epoch and its last learning rate."""


@contextmanager
def event_files(folder: Path, after: int) -> Iterator[Tell]:
    """A function that writes epochs to a new event file in a training's folder. TensorBoard drops epochs after `after`
    that earlier files hold. Where the file cannot be written, or the library is missing or broken, nothing is written
    and the training goes on.
    """
    try:
        writer = _opened(folder / EVENTS, after)
    except Exception:  # an incompatible version of protobuf raises a TypeError
        yield lambda report, learning_rate: None
        return

    def tell(report: EpochReport, learning_rate: float) -> None:
        scalars = {
            "loss": report.loss,
            "mIoU": report.scores.miou,
            "pixel_accuracy": report.scores.pixel_accuracy,
            "learning_rate": learning_rate,
            "seconds": report.seconds,
            "waited_for_data": report.waited_for_data,
            "waited_for_lane": report.waited_for_lane,
        }
        with suppress(OSError):
            _write(writer, report.epoch, {name: value for name, value in scalars.items() if value is not None})

    try:
        yield tell
    finally:
        with suppress(OSError):
            writer.close()


def _opened(folder: Path, after: int) -> EventsWriter:
    # Not its SummaryWriter, whose thread would wait forever when the disk is full.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    folder.mkdir(parents=True, exist_ok=True)
    writer = EventsWriter(str(folder / "events"))
    writer.write_event(Event(step=after + 1, session_log=SessionLog(status=SessionLog.START)))
    return writer


def _write(writer: EventsWriter, epoch: int, scalars: dict[str, float]) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
    writer.write_event(Event(wall_time=time.time(), step=epoch, summary=Summary(value=values)))
    writer.flush()
