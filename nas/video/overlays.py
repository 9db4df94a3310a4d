"""A video overlaid with the colours of a network's predictions, and the time that this takes."""

from __future__ import annotations

import itertools
import statistics
import time
from array import array
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.pictures import overlay
from nas.host.words import counted
from nas.latency.machine import lane
from nas.runs.labelling import Labelling
from nas.training.batch_loop import guarded
from nas.training.prediction import fitted, network_input
from nas.video.frames import Video, VideoFile, write_caption
from nas.video.segmenter import Segmenter

SHOWN_FRAMES = 30  # frames over which the numbers in the caption are taken


@dataclass(kw_only=True)
class FrameTimes:
    """The time that frames take."""

    network: array[float] = field(default_factory=lambda: array("d"))
    """Milliseconds of the network alone, for each frame."""
    seconds: float = 0.0
    """Total seconds of all frames: reading, network, overlay, writing, and waiting while networks are timed."""
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=SHOWN_FRAMES))

    def add(self, milliseconds: float, seconds: float) -> None:
        """Add a finished frame: milliseconds of the network, and seconds in all."""
        self.network.append(milliseconds)
        self.seconds += seconds
        self._last.append(seconds)

    def caption(self, milliseconds: float) -> str:
        """The caption of a frame, for which the network took `milliseconds`: the median over the last frames, and the
        frames per second.
        """
        network = f"{statistics.median([*self.network[1 - SHOWN_FRAMES :], milliseconds]):.1f} ms"
        return f"{network}  {len(self._last) / sum(self._last):.0f} frames/s" if self._last else network

    def __str__(self) -> str:
        return (
            f"{counted(len(self.network), 'frame')}: the network takes {statistics.median(self.network):.2f} ms "
            f"(median); {len(self.network) / self.seconds:.1f} frames/s with reading, overlay and writing"
        )


def write_overlays(
    video: Video, segmenter: Segmenter, labelling: Labelling, path: Path, times: FrameTimes, most: int | None = None
) -> None:
    """Write the overlays of all frames, or of the first `most`, as a video; each finished frame is added to `times`.

    Frames finished before an interruption are kept. Do not call this inside the lane (`nas.latency.machine.lane`).

    Raises: DataError for frames that cannot be read or change their size; HaltedError when the disk is full.
    """
    image = np.zeros((1, 3, *labelling.size), dtype=np.float32)
    call = segmenter.open(image)
    with lane.shared():
        call()  # warm-up, since libraries prepare themselves in their first call
    frames = itertools.islice(video.frames, most)
    with VideoFile(path, video.frames_per_second) as file, closing(guarded(frames, lane.shared_on("cpu"))) as steps:
        last = time.perf_counter()
        for frame in steps:
            image[...] = network_input(frame, labelling.size)
            begin = time.perf_counter()
            labels = call()
            milliseconds = 1000 * (time.perf_counter() - begin)
            picture = overlay(frame, fitted(labels[0].astype(np.uint8), frame.shape[:2]), labelling.palette)
            write_caption(picture, f"{segmenter.name}  {times.caption(milliseconds)}")
            file.write(picture)
            now = time.perf_counter()
            times.add(milliseconds, now - last)
            last = now
