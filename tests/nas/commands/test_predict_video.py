"""`nas predict --video`: every frame under its overlay, in the certified runtime."""

from __future__ import annotations

import _thread
import re
import shutil
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from nas.data import read_image
from nas.data.pictures import overlay
from nas.runs.trained import load_trained
from nas.training.prediction import predict
from nas.video.frames import opencv

cv2 = opencv()
SIZE = (64, 96)  # of the network
FRAME = (130, 252)
CAPTION_ROWS = 30


def write_video(file, frames, fourcc="mp4v"):
    """Frames (H, W, 3), RGB, as a video."""
    height, width, _ = frames[0].shape
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*fourcc), 12.5, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return file


def read_video(file):
    """The frames of a video, RGB, and its frames per second."""
    capture = cv2.VideoCapture(str(file))
    frames = []
    while (read := capture.read())[0]:
        frames.append(np.ascontiguousarray(read[1][..., ::-1]))
    return frames, capture.get(cv2.CAP_PROP_FPS)


def distance(one, other):
    """Mean difference of two frames without their captions, in 0..255."""
    return np.abs(one.astype(float) - other)[CAPTION_ROWS:].mean()


@pytest.fixture(scope="module")
def drive(pictures, tmp_path_factory):
    """Four frames, larger than the network's input and of another shape."""
    images = [pictures / "val" / "images" / f"{index}.jpg" for index in (0, 1, 2, 0)]
    frames = [np.asarray(Image.fromarray(read_image(image, None)).resize(FRAME[::-1])) for image in images]
    return write_video(tmp_path_factory.mktemp("videos") / "drive.mp4", frames)


@pytest.fixture
def winner(trained, other, certify, tmp_path):
    """A certified folder whose graph is another network than its weights, so that labels tell which one ran."""
    folder = tmp_path / "winner"
    shutil.copytree(trained, folder)
    (folder / "model.onnx").write_bytes(other[1])
    certify(folder, "onnxruntime@cpu:1")
    return folder


def test_every_frame_becomes_the_overlay_of_its_prediction(nas, trained, drive, tmp_path):
    answer = nas("predict", trained, "--video", drive, "--out", tmp_path).done()
    first, last = answer.out.splitlines()
    assert first == f"note: here PyTorch runs the network in float32: {trained} has no certificate"
    file = tmp_path / "drive.overlay.mp4"
    assert re.fullmatch(rf"{file}: 4 frames: the network takes [\d.]+ ms \(median\); [\d.]+ frames/s with .*", last)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    usable = load_trained(str(trained), None)
    network, palette = usable.network(3), usable.labelling.palette
    (frames, rate), (written, written_rate) = read_video(drive), read_video(file)
    assert (len(written), written_rate) == (len(frames), rate) == (4, 12.5)
    for frame, picture in zip(frames, written, strict=True):
        expected = overlay(frame, predict(network, frame, SIZE), palette)
        assert picture.shape == frame.shape == (*FRAME, 3)
        assert distance(picture, expected) < 6, "what the codec loses"
        assert distance(picture, frame) > 20
        assert (picture[:CAPTION_ROWS, :100].max(2) > 200).any(), "white letters"


def test_nas_predict_replaces_only_its_own_videos(nas, trained, drive, tmp_path):
    file = tmp_path / "drive.overlay.mp4"
    shutil.copy(drive, file)
    words = ("predict", trained, "--video", drive, "--out", tmp_path)
    told = nas(*words).refusal()
    assert f"expected no {file}, or one that this version of `nas predict` wrote, got another file" in told
    assert file.read_bytes() == drive.read_bytes()
    file.unlink()
    for frames in (1, 3):
        nas(*words, "--frames", frames).done()
        assert len(read_video(file)[0]) == frames


def test_a_certified_network_runs_in_its_runtime(nas, winner, other, drive, tmp_path):
    answer = nas("predict", winner, "--video", drive, "--frames", "2", "--out", tmp_path / "out").done()
    first, last = answer.out.splitlines()
    assert first == "the network runs on onnxruntime@cpu:1, as certified"
    assert "certified: 9.00 ms on onnxruntime@cpu:1, with nothing else running" in last
    usable = load_trained(str(winner), None)
    frames, _ = read_video(drive)
    written, _ = read_video(tmp_path / "out" / "drive.overlay.mp4")
    assert len(written) == 2
    for frame, picture in zip(frames, written, strict=False):
        by_graph, by_weights = (
            overlay(frame, predict(network, frame, SIZE), usable.labelling.palette)
            for network in (other[0], usable.network(3))
        )
        assert distance(picture, by_graph) < 6
        assert distance(picture, by_weights) > 12


def test_a_note_gives_the_reason_why_a_network_does_not_run_as_certified(
    nas, winner, trained, drive, certify, tmp_path
):
    def told(*words):
        answer = nas("predict", *words, "--video", drive, "--frames", "1", "--out", tmp_path / "out").done()
        note, reason = answer.out.splitlines()[-2].split("here PyTorch runs the network in float32: ")
        return reason, note

    certified = "note: the certificate is for onnxruntime@cpu:1; "
    assert told(winner, "--device", "cpu") == ("as --device asks", certified)
    assert told(winner, "--input", "32x48") == ("it is certified at 64x96, not at 32x48", certified)
    weights = trained / "weights.safetensors"
    assert told(winner, "--weights", weights) == ("the weights of --weights have no certificate", "note: ")
    for target, words in (
        ("null@cpu:1", "it is certified on null@cpu:1, which reads no ONNX graphs"),
        ("onnxruntime@ssh:board", "it is certified on another host, onnxruntime@ssh:board"),
    ):
        certify(winner, target)
        assert told(winner) == (words, f"note: the certificate is for {target}; ")


def test_a_graph_that_differs_from_the_certified_one_is_refused(nas, winner, drive, tmp_path):
    graph = winner / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    words = ("predict", winner, "--video", drive, "--out", tmp_path / "out")
    assert "model.onnx: expected the file that certificate.yaml beside it certifies" in nas(*words).refusal()
    graph.unlink()
    assert "model.onnx: expected the graph that certificate.yaml beside it certifies, got none" in nas(*words).refusal()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("https://example.org/drive.mp4", None, "got the address https://example.org/drive.mp4; download it first"),
        ("none.mp4", None, "none.mp4: expected a video file or a camera's number such as 0, got no such file"),
        ("63", None, "camera 63 does not open"),
        (".", None, "got a folder or a device"),
        ("notes.txt", b"no video\n" * 100, "notes.txt: expected a video (MP4, MOV"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\ndrive.mp4\n#EXT-X-ENDLIST\n", "list.m3u8: expected a video (MP4, MOV"),
        ("list.mp4", b"ffconcat version 1.0\nfile drive.mp4\n", "list.mp4: expected a video (MP4, MOV"),
        ("empty.mp4", b"", "empty.mp4: expected a video (MP4, MOV"),
    ],
)
def test_files_that_are_no_video_are_refused(nas, trained, drive, tmp_path, monkeypatch, capfd, name, content, words):
    monkeypatch.chdir(tmp_path)
    shutil.copy(drive, tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert words in nas("predict", trained, "--video", name, "--out", tmp_path / "out").refusal()
    assert not list(tmp_path.glob("out/*"))
    assert capfd.readouterr() == ("", ""), "OpenCV and FFmpeg say nothing themselves"


def test_videos_without_frames_and_with_enormous_frames_are_refused(nas, trained, tmp_path):
    video = write_video(tmp_path / "small.avi", [np.zeros((64, 96, 3), np.uint8)] * 3, "MJPG")
    size, claimed = np.array([[96, 64], [12000, 10000]], dtype="<u4")  # width and height as in the header
    raw = video.read_bytes().replace(b"MJPG", b"I420").replace(bytes(size), bytes(claimed))
    (tmp_path / "large.avi").write_bytes(raw)
    answer = nas("predict", trained, "--video", tmp_path / "large.avi", "--out", tmp_path / "out")
    assert "large.avi: expected frames of at most 89478485 pixels, got 10000x12000 (HxW)" in answer.refusal()
    (tmp_path / "none.avi").write_bytes(raw.replace(bytes(claimed), bytes(size)).replace(b"00dc", b"JUNK"))
    answer = nas("predict", trained, "--video", tmp_path / "none.avi", "--out", tmp_path / "out")
    assert "none.avi: expected frames, got none that can be read" in answer.refusal()
    assert not list(tmp_path.glob("out/*"))


def test_a_truncated_video_is_reported_and_its_readable_frames_are_kept(nas, trained, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "whole.avi", list(noise), "MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    answer = nas("predict", trained, "--video", tmp_path / "cut.avi", "--out", tmp_path / "out")
    assert re.search(
        r"cut\.avi: expected about 20 frames by its header, got \d+: it is cut short or damaged", answer.refusal()
    )
    frames, _ = read_video(tmp_path / "out" / "cut.overlay.mp4")
    assert 5 < len(frames) < 12
    assert f"{len(frames)} frames: the network takes" in answer.out


def test_options_that_exclude_each_other_are_refused(nas, trained, drive, pictures):
    picture = pictures / "val" / "images" / "0.jpg"
    assert "expected images or --video, got neither" in nas("predict", trained).refusal()
    assert "expected images or --video, got both" in nas("predict", trained, picture, "--video", drive).refusal()
    assert "--frames goes with --video" in nas("predict", trained, picture, "--frames", "2").refusal()
    assert (
        "--frames: expected at least 1, got 0" in nas("predict", trained, "--video", drive, "--frames", "0").refusal()
    )


def test_missing_opencv_is_answered_with_the_command_that_installs_it(nas, trained, drive, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "pip install 'framebudget[video]'" in nas("predict", trained, "--video", drive).refusal()


def test_frames_finished_before_an_interruption_form_a_video(nas, trained, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, *FRAME, 3), dtype=np.uint8)
    video = write_video(tmp_path / "long.mp4", [noise[index % 8] for index in range(600)])
    out, ended = tmp_path / "out", threading.Event()

    def interrupt():
        while not ended.is_set():
            if any(file.stat().st_size > 1000 for file in out.glob(".*")):
                _thread.interrupt_main()
                return
            time.sleep(0.01)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        answer = nas("predict", trained, "--video", video, "--out", out)
    finally:
        ended.set()
        watcher.join()
    assert answer.code == 130
    assert "interrupted; nothing finished is lost" in answer.err
    (file,) = out.iterdir()
    frames, _ = read_video(file)
    assert 0 < len(frames) < 600
    assert f"{file}: " in answer.out.splitlines()[-1]
