"""A training's epochs as scalars for TensorBoard."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
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
    """A function that writes epochs to an event file in a training's folder, made for the first of them. TensorBoard
    drops epochs after `after` that earlier files hold. Where the file cannot be written, or the library is missing or
    broken, nothing is written and the training goes on.
    """
    closing = ExitStack()

    @cache
    def writer() -> EventsWriter | None:
        try:
            opened = _opened(folder / EVENTS, after)
        except Exception:  # an incompatible version of protobuf raises a TypeError
            return None
        closing.callback(_close, opened)
        return opened

    def tell(report: EpochReport, learning_rate: float) -> None:
        scalars = {
            "loss": report.loss,
            "mIoU": None if report.scores is None else report.scores.miou,
            "pixel_accuracy": None if report.scores is None else report.scores.pixel_accuracy,
            "learning_rate": learning_rate,
            "seconds": report.seconds,
            "waited_for_data": report.waited_for_data,
            "waited_for_lane": report.waited_for_lane,
        }
        known = {name: value for name, value in scalars.items() if value is not None}
        if (opened := writer()) is not None:
            with suppress(OSError):
                _write(opened, report.epoch, known)

    with closing:
        yield tell


def one_after_another(tell: Tell) -> Tell:
    """Like `tell`, for several trainings in turn: their epochs are counted together."""
    epochs = itertools.count(1)
    return lambda report, learning_rate: tell(replace(report, epoch=next(epochs)), learning_rate)


def tell_nobody(report: EpochReport, learning_rate: float) -> None:
    """Ignore an epoch: for trainings whose epochs nobody asks for."""


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


def _close(writer: EventsWriter) -> None:
    with suppress(OSError):
        writer.close()
