"""A video under the colours of what a network sees in it, with the time that takes."""

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
from nas.latency.machine import lane
from nas.runs.labelling import Labelling
from nas.training.batch_loop import guarded
from nas.training.prediction import fitted, network_input
from nas.video.frames import Video, VideoFile, write_caption
from nas.video.segmenter import Segmenter

SHOWN_FRAMES = 30  # that the numbers in a frame are of


@dataclass(kw_only=True)
class Pace:
    """How long frames take, as they come."""

    network: array[float] = field(default_factory=lambda: array("d"))
    """Milliseconds of the network alone, of each frame."""
    seconds: float = 0.0
    """Of everything, of all frames: reading, network, overlay, writing, and waiting for what must be timed alone."""
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=SHOWN_FRAMES))

    def add(self, milliseconds: float, seconds: float) -> None:
        """Another frame is finished: what the network took, and everything."""
        self.network.append(milliseconds)
        self.seconds += seconds
        self._last.append(seconds)

    def caption(self, milliseconds: float) -> str:
        """What is written into a frame, for which the network took `milliseconds`: the median of the last frames, and
        how many of those there are in a second.
        """
        network = f"{statistics.median([*self.network[1 - SHOWN_FRAMES :], milliseconds]):.1f} ms"
        return f"{network}  {len(self._last) / sum(self._last):.0f} frames/s" if self._last else network

    def __str__(self) -> str:
        return (
            f"{len(self.network)} frames, the network takes {statistics.median(self.network):.2f} ms (median), "
            f"{len(self.network) / self.seconds:.1f} frames/s with reading, overlay and writing"
        )


def write_overlays(
    video: Video, segmenter: Segmenter, labelling: Labelling, path: Path, pace: Pace, most: int | None = None
) -> None:
    """Write the overlays of all frames, or the first `most`, as a video; `pace` is told as they are finished.

    What is finished when this is interrupted is kept. Do not call it inside a training step.

    Raises: DataError for frames that cannot be read, or change their size; HaltedError when the disk is full.
    """
    image = np.zeros((1, 3, *labelling.size), dtype=np.float32)
    call = segmenter.open(image)
    with lane.shared():
        call()  # what libraries prepare in their first call is no frame's
    frames = itertools.islice(video.frames, most)
    with VideoFile(path, video.frames_per_second) as file, closing(guarded(frames, lane.shared_on("cpu"))) as steps:
        last = time.perf_counter()
        for frame in steps:
            image[...] = network_input(frame, labelling.size)
            begin = time.perf_counter()
            labels = call()
            milliseconds = 1000 * (time.perf_counter() - begin)
            picture = overlay(frame, fitted(labels[0].astype(np.uint8), frame.shape[:2]), labelling.palette)
            write_caption(picture, f"{segmenter.name}  {pace.caption(milliseconds)}")
            file.write(picture)
            now = time.perf_counter()
            pace.add(milliseconds, now - last)
            last = now
