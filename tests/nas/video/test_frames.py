"""Writing of videos: each is written whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.errors import DataError, HaltedError
from nas.video.frames import VideoFile, opened
from space import UserError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)


def write(path: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    with VideoFile(path, 30.0) as file:
        for frame in frames:
            file.write(frame)


def shapes(file: Path) -> list[tuple[int, ...]]:
    """Shapes of the frames in a video."""
    with opened(file) as video:
        return [frame.shape for frame in video.frames]


def test_a_written_video_can_be_read_and_leaves_out_an_odd_last_line(tmp_path: Path) -> None:
    write(tmp_path / "even.mp4", FRAMES)
    assert shapes(tmp_path / "even.mp4") == [(64, 96, 3)] * 3
    write(tmp_path / "odd.mp4", FRAMES[:1, :63, :95])
    assert shapes(tmp_path / "odd.mp4") == [(62, 94, 3)]


def test_slow_motion_of_an_odd_rate_is_written(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "a.mp4", 119.943) as file:
        file.write(FRAMES[0])
    assert shapes(tmp_path / "a.mp4") == [(64, 96, 3)]


def test_frames_of_another_size_are_refused_and_earlier_frames_are_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"frame 2: expected 64x96 \(HxW\) as before, got 32x96"):
        write(tmp_path / "a.mp4", [FRAMES[0], FRAMES[1, :32]])
    assert shapes(tmp_path / "a.mp4") == [(64, 96, 3)]


def test_a_file_that_appears_while_frames_are_written_is_not_replaced(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    write(video, FRAMES)
    write(video, FRAMES[:2])
    assert shapes(video) == [(64, 96, 3)] * 2
    video.unlink()

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield FRAMES[0]
        video.write_text("mine")
        yield FRAMES[1]

    with pytest.raises(UserError, match=r"a\.mp4: expected none still, .* got another file, which would be lost"):
        write(video, frames())
    assert video.read_text() == "mine"
    kept = tmp_path / "a-2.mp4"
    assert sorted(tmp_path.iterdir()) == sorted((video, kept))
    assert shapes(kept) == [(64, 96, 3)] * 2


def test_no_file_is_written_without_frames_or_with_frames_too_large_for_mp4(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [])
    with pytest.raises(DataError, match="expected frames of a size that MP4 supports, got 16x9000"):
        write(tmp_path / "a.mp4", [np.zeros((16, 9000, 3), dtype=np.uint8)])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_and_the_earlier_video_stays(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"the one before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(HaltedError, match="expected 60 frames on the disk, got 0; make room"):
            write(video, [FRAMES[index % 3] for index in range(60)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert video.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [video]
