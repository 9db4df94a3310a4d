"""A training's epochs as scalars that TensorBoard draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.training.scores import EpochReport

EVENTS = "events"
"""The folder of them beside a training."""


@contextmanager
def event_files(folder: Path, after: int) -> Iterator[Callable[[EpochReport, float], None]]:
    """What takes an epoch's report and its last learning rate, and writes them to a new file in a training's folder.
    TensorBoard forgets what earlier files say of epochs later than `after`.
    """
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder / EVENTS), purge_step=after + 1)

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
        for name, value in scalars.items():
            if value is not None:
                writer.add_scalar(name, value, report.epoch)
        writer.flush()

    try:
        yield tell
    finally:
        writer.close()
