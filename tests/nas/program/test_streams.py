"""Output streams of the program: closed pipes and streams, full disks, encodings of terminals, paths outside UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
Environment = Callable[..., dict[str, str]]
Program = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]
Head = Callable[..., tuple[int, str]]


@pytest.fixture
def head(environment: Environment) -> Head:
    """`head(lines, words...)`: the exit code and standard error of a command of whose output so many lines are read."""

    def read(lines: int, *words: str, unbuffered: str | None = None) -> tuple[int, str]:
        with subprocess.Popen(
            [sys.executable, "-m", "nas.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(PYTHONUNBUFFERED=unbuffered),
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for _ in range(lines):
                process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
            return process.wait(), said

    return read


def test_a_closed_output_pipe_is_no_error(environment: Environment) -> None:
    for words in (["show", "erfnet"], ["--help"], ["show", "--help"]):
        reads, writes = os.pipe()
        os.close(reads)
        done = subprocess.run(
            [sys.executable, "-m", "nas.cli", *words],
            stdout=writes,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
        )
        os.close(writes)
        assert (done.returncode, done.stderr) == (0, b""), words


@pytest.mark.parametrize("unbuffered", [None, "1"])
def test_a_verdict_keeps_its_exit_code_when_the_output_pipe_is_closed(
    unbuffered: str | None, tmp_path: Path, head: Head
) -> None:
    words = ("measure", "ndnet29-fcn32", "--target", "null@cpu:1", "--input", "64x96", "--within", "20%")
    out = ("--out", str(tmp_path / "out"))
    code, said = head(1, *words, *out, "--budget", "0.001ms", unbuffered=unbuffered)
    assert (code, said) == (3, ""), "FAIL"
    assert (tmp_path / "out" / "latency.csv").is_file()


@pytest.mark.parametrize("unbuffered", [None, "1"])
def test_files_are_written_although_the_output_pipe_is_closed(
    unbuffered: str | None, tmp_path: Path, head: Head
) -> None:
    copy = ("zoo", "camvid-searched", "--out", str(tmp_path / "copy"))
    assert head(0, *copy, unbuffered=unbuffered) == (0, "")
    assert (tmp_path / "copy" / "certificate.yaml").is_file()
    code, said = head(0, *copy, unbuffered=unbuffered)  # a note on replaced files comes first
    assert code == 141
    assert said.startswith("nas zoo: stopped: its output pipe was closed")
    assert head(0, "zoo", unbuffered=unbuffered) == (0, "")


def test_a_training_stopped_by_a_closed_output_pipe_names_the_way_to_go_on(tmp_path: Path, head: Head) -> None:
    size = ("--input", "32x48")
    code, said = head(3, "train", "erfnet-encoder", *size, "--epochs", "9", "--out", str(tmp_path / "out"))
    assert code == 141
    begun = "no epoch was finished: the same command begins anew"
    later = f"--resume goes on from the last finished epoch, in {tmp_path / 'out'}"
    ended = "nas train: stopped: its output pipe was closed"
    assert said.splitlines()[-1] in (f"{ended}; {begun}", f"{ended}; {later}")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str, tmp_path: Path, environment: Environment) -> None:
    """Daemons start programs in this way. A traceback, which may have no stream to go to, would end them with 1."""
    for words, code in (("--version", 0), ("show nosuch", 2)):
        done = subprocess.run(
            ["sh", "-c", f"exec '{sys.executable}' -m nas.cli {words} {closed}"],
            capture_output=True,
            text=True,
            env=environment(TMPDIR=str(tmp_path)),
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == [], "no fault was written down"


def test_output_to_a_full_disk_is_reported(environment: Environment) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nas.cli", "show", "erfnet"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=60,
        )
    assert done.returncode == 2
    assert (
        done.stderr
        == "nas show: [Errno 28] No space left on device; make room there, then try again; nothing finished is lost\n"
    )


@pytest.mark.share(3)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_are_shown_in_every_encoding_of_a_terminal(encoding: str, program: Program, refusal: Refusal) -> None:
    done = program("show", "歩行者-Straße", PYTHONIOENCODING=encoding)
    assert "expected a published network or a YAML file" in refusal(done)


def test_paths_outside_utf8_are_refused_before_any_work(tmp_path: Path, environment: Environment) -> None:
    odd = os.fsencode(tmp_path) + b"/stra\xdfe"
    os.mkdir(odd)
    train = ["train", "erfnet", "--input", "32x48"]
    search = ["search", "--budget", "10ms", "--target", "null@cpu:1"]
    shutil.copy(ROOT / "space" / "published" / "erfnet.yaml", os.fsdecode(odd))
    show = [sys.executable, "-m", "nas.cli", "show", odd + b"/erfnet.yaml"]
    assert subprocess.run(show, env=environment()).returncode == 0, "nothing of it is written down"
    os.unlink(odd + b"/erfnet.yaml")
    for words, folder in (
        ([*search, "--out", odd + b"/run"], tmp_path),
        ([*train, "--data", b"folder:" + odd], tmp_path),
        ([*train, "--out", odd], tmp_path),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "nas.cli", *words], capture_output=True, text=True, cwd=folder, env=environment()
        )
        assert done.returncode == 2
        assert "expected a path in UTF-8, got b'" in done.stderr
        assert "stra\\xdfe" in done.stderr
        assert "fault of the program" not in done.stderr
    assert os.listdir(odd) == []
