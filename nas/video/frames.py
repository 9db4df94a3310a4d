"""Reading frames from videos and cameras, and writing videos, with OpenCV.

FFmpeg, which decodes for OpenCV, would also fetch URLs, follow playlists and render text files as pictures. For safety,
a video must be a local file in one of the usual containers, judged by its content, and may open no other files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError, HaltedError
from nas.host.words import counted
from nas.storage.files import write_atomically
from space.errors import UserError

CONTAINERS = "MP4, MOV, Matroska, WebM, AVI or MPEG"
CODEC = "mp4v"
MARK = "freenas predict"
"""Text that identifies a written video: the type and the content of a `free` box at its end, which players skip."""
USUAL_RATES = (1.0, 240.0)
"""Plausible frames per second; DEFAULT_RATE is assumed for a file or a camera that reports another rate."""
DEFAULT_RATE = 25.0
CUT_SHORT = 0.9  # least share of the frames that a header announces, which is an estimate in some containers
_DEMUXERS = "mov,matroska,avi,mpegts,mpeg"  # FFmpeg's names of CONTAINERS
_CAMERA = re.compile(r"[0-9]{1,2}")

VideoSource = Path | int
"""A video file, or the number of a camera."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """An open video, read one frame at a time."""

    frames: Iterator[NDArray[np.uint8]]
    """Frames (H, W, 3), RGB."""
    frames_per_second: float


def source_of(text: str) -> VideoSource:
    """The file or the camera that `text` names.

    Raises: DataError when there is no such file; UserError for a URL.
    """
    if _CAMERA.fullmatch(text):
        return int(text)
    path = Path(text)
    if path.is_file():
        return path
    if "://" in text:
        raise UserError(f"--video: expected a file or a camera's number, got the address {text}; download it first")
    if path.exists():
        raise DataError(f"{text}: expected a video file, got a folder or a device; give a file or a camera's number")
    raise DataError(f"{text}: expected a video file or a camera's number such as 0, got no such file; check the path")


def name_of(source: VideoSource) -> str:
    """The base name of files made from a source."""
    return f"camera{source}" if isinstance(source, int) else source.stem


def opencv() -> Any:
    """The module `cv2`, with its own messages and FFmpeg's silenced unless their environment variables are set.

    Raises: UserError when it is not installed.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's AV_LOG_QUIET
    try:
        import cv2
    except ImportError:
        raise UserError(
            "videos and cameras need OpenCV, which is not installed; pip install 'framebudget[video]'"
        ) from None
    return cv2


@contextlib.contextmanager
def opened(source: VideoSource) -> Iterator[Video]:
    """The video at `source`, open until the context ends.

    Raises: DataError for a file that is no video or has more pixels than an image may have, and for a camera that does
    not open. Also while frames are read: when there is none, or when a file ends long before its header says.
    """
    from nas.data.decoding import MOST_PIXELS

    cv2 = opencv()
    if isinstance(source, int):
        capture = cv2.VideoCapture(source, cv2.CAP_V4L2)
    else:
        # OpenCV reads this at every opening. It allows only files, no playlists, and no larger frames.
        options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS, "max_pixels": MOST_PIXELS}
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join(f"{name};{value}" for name, value in options.items())
        # An absolute path, since FFmpeg takes anything before a colon for a protocol.
        capture = cv2.VideoCapture(str(source.absolute()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise DataError(_not_opened(source))
        height, width = (int(capture.get(each)) for each in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        if height * width > MOST_PIXELS:
            raise DataError(
                f"{source}: expected frames of at most {MOST_PIXELS} pixels, got {height}x{width} (HxW); scale it down"
            )
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        usual = USUAL_RATES[0] <= rate <= USUAL_RATES[1]
        yield Video(frames=_frames(capture, source), frames_per_second=rate if usual else DEFAULT_RATE)
    finally:
        capture.release()


def _not_opened(source: VideoSource) -> str:
    if isinstance(source, int):
        return (
            f"--video: camera {source} does not open; expected /dev/video{source}, not used by another program; "
            "check the number and the device's permissions"
        )
    return (
        f"{source}: expected a video ({CONTAINERS}), got something else or a damaged file; convert it or download it "
        "again"
    )


def _frames(capture: Any, source: VideoSource) -> Iterator[NDArray[np.uint8]]:
    ready, frame = capture.read()
    if not ready:
        what = f"camera {source}" if isinstance(source, int) else source
        raise DataError(f"{what}: expected frames, got none that can be read; play it with another program first")
    count = 0
    while ready:
        yield np.ascontiguousarray(frame[..., ::-1])  # OpenCV's are BGR
        count += 1
        ready, frame = capture.read()
    announced = int(capture.get(opencv().CAP_PROP_FRAME_COUNT))
    if isinstance(source, Path) and count < CUT_SHORT * announced:
        raise DataError(
            f"{source}: expected about {announced} frames by its header, got {count}: it is cut short or damaged; "
            "download or convert it again"
        )


def write_caption(frame: NDArray[np.uint8], text: str) -> None:
    """Write white text on black into the upper left corner of a frame (H, W, 3), in place."""
    cv2 = opencv()
    scale = max(0.4, frame.shape[0] / 900)
    thickness = max(1, round(1.5 * scale))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    frame[: height + 2 * below, : width + 2 * below] = 0
    at = (below, height + below // 2)
    cv2.putText(frame, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thickness, cv2.LINE_AA)


MOST_ODD_RATE = 65.0  # frames per second


class VideoFile:
    """A video that is being written (MP4, codec mp4v). It appears at its path when the context ends, even by an error
    or Ctrl-C, and replaces only a video written by this class.

    Without frames no file is left. The codec needs even sizes: an odd last row or column is left out.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self.path = path
        # The codec counts time in at most 65,535ths of a second, too coarse for fractional rates of slow motion.
        self._rate = frames_per_second if frames_per_second <= MOST_ODD_RATE else round(frames_per_second)
        self._unfinished = path.with_name(f".{path.stem}.{os.getpid()}.unfinished.mp4")
        self._writer: Any = None
        self._shape: tuple[int, ...] = ()
        self._frames = 0

    def __enter__(self) -> VideoFile:
        return self

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame (H, W, 3), RGB.

        Raises: DataError when its size differs from that of the frames before, or the codec does not support it.
        """
        if self._writer is None:
            self._open(frame.shape)
        if frame.shape != self._shape:
            (height, width, _), (was_high, was_wide, _) = frame.shape, self._shape
            raise DataError(
                f"frame {self._frames + 1}: expected {was_high}x{was_wide} (HxW) as before, got {height}x{width}; "
                "cut the video where its size changes"
            )
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self._frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
            if self._frames:
                self._require_whole()
                with contextlib.suppress(OSError), self._unfinished.open("ab") as file:  # OpenCV writes no text of ours
                    file.write((4 + len(MARK)).to_bytes(4, "big") + MARK.encode())
                write_atomically(self.path, self._unfinished.replace, mark=MARK)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def _open(self, shape: tuple[int, ...]) -> None:
        cv2 = opencv()
        self._unfinished.touch()  # raises an error if the folder cannot be written to, which OpenCV would not
        size = (shape[1], shape[0])
        self._writer = cv2.VideoWriter(
            str(self._unfinished.absolute()), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*CODEC), self._rate, size
        )
        if not self._writer.isOpened():
            raise DataError(
                f"expected frames of a size that MP4 supports, got {shape[0]}x{shape[1]} (HxW); scale the video"
            )
        self._shape = shape

    def _require_whole(self) -> None:
        """Check that all frames were written, since OpenCV does not report a full disk.

        Raises: HaltedError when frames are missing.
        """
        cv2 = opencv()
        capture = cv2.VideoCapture(str(self._unfinished.absolute()), cv2.CAP_FFMPEG)
        held = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if held < self._frames:  # there is one more if Ctrl-C came between writing and counting
            raise HaltedError(
                f"{self.path}: expected {counted(self._frames, 'frame')} on the disk, got {held}; make room there, "
                "then try again"
            )
