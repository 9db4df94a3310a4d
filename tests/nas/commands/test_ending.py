"""The last line of an interrupted command: what is kept, and how to go on."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from nas import cli
from nas.commands.measure import words_of_kept
from nas.data import DataSpec
from nas.runs.folder import RunFolder
from nas.study import Study
from nas.training import load_recipe

ANEW = "so far is not kept: the same command begins anew"


class Ear(io.StringIO):
    """Standard output at which somebody presses Ctrl-C, once, as something is printed."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def write(self, text: str) -> int:
        count = super().write(text)
        if self._at and self._at in text:
            self._at = ""
            raise KeyboardInterrupt
        return count


@pytest.fixture
def last_words(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`last_words(at, words...)`: what is kept, by the last message of a command interrupted when it prints `at`."""

    def heard(at: str, *words: object) -> str:
        ear = Ear(at)
        with contextlib.redirect_stdout(ear):
            code = cli.main([str(word) for word in words])
        told = capsys.readouterr().err
        assert code == 130, ear.getvalue() + told
        (line,) = told.strip().splitlines()
        return line.removeprefix(f"nas {words[0]}: interrupted; ")

    return heard


def test_an_interrupted_command_that_keeps_nothing_advises_to_begin_anew(last_words, trained, pictures, tmp_path):
    data, out = ("--data", f"folder:{pictures}"), ("--out", tmp_path / "out")
    null = ("--target", "null@cpu:1")
    words = ("quantize", trained, *data, "--target", "onnxruntime@cpu:1", *out)
    assert last_words("scoring 3", *words) == f"what was timed, scored and fine-tuned {ANEW}"
    words = ("prune", trained, "--budget", "1ms", *null, *out)
    assert last_words("timing on", *words) == f"what was cut, trained and timed {ANEW}"
    assert last_words("1 network", "measure", "erfnet", *null, *out) == f"what was timed {ANEW}"
    assert last_words("scored at", "evaluate", trained, *data, *out) == f"what was scored {ANEW}"
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_names_the_way_to_go_on_with_kept_work(last_words, small, pictures, tmp_path):
    words = ("measure", "--calibrate", "--target", "null@cpu:1")
    nothing = "nothing was measured yet: the same command begins anew, or goes on where an earlier one was interrupted"
    assert last_words("550 random", *words) == nothing
    assert words_of_kept(0) == nothing
    assert words_of_kept(20) == "what was measured so far is kept: the same command goes on from there"
    out = tmp_path / "out"
    words = ("train", small, "--data", f"folder:{pictures}", "--input", "64x96", "--epochs", "2", "--out", out)
    assert last_words("parameters", *words) == "no epoch was finished: the same command begins anew"
    assert last_words("epoch 1/2", *words) == f"--resume goes on from the last finished epoch, in {out}"
    assert (
        last_words("going on after epoch 1", *words, "--resume")
        == f"--resume goes on from the last finished epoch, in {out}"
    )


def test_a_training_goes_on_in_a_folder_with_the_name_of_its_network(last_words, nas, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("train", "ndnet29-fcn32", "--data", f"folder:{pictures}", "--input", "64x96", "--epochs", "2")
    words = (*words, "--out", "ndnet29-fcn32")
    assert last_words("epoch 1/2", *words) == "--resume goes on from the last finished epoch, in ndnet29-fcn32"
    for name in ("ndnet29-fcn32", "./ndnet29-fcn32"):
        told = nas("evaluate", name).refusal()
        assert "ndnet29-fcn32: expected a finished training, got one that is not finished" in told
    nas(*words, "--resume").done()
    assert "validation images of folder at 64x96" in nas("evaluate", "ndnet29-fcn32").done().out


READ_ONLY = ("unshare", "-rm", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')


def test_work_on_a_read_only_disk_is_refused_with_advice(trained, small, pictures, tmp_path):
    out = shutil.copytree(trained, tmp_path / "out")
    study = Study(data=DataSpec(), budget="10ms", recipe=load_recipe("quick"), target="null@cpu:1")
    run = RunFolder.create(tmp_path / "run", study).root
    if subprocess.run([*READ_ONLY, tmp_path, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces here")
    data = ("--data", f"folder:{pictures}", "--input", "64x96")
    for folder, words in (
        (run, ("search", "--resume", run)),
        (out, ("train", small, *data, "--epochs", "1", "--out", out, "--resume")),
    ):
        command = [*READ_ONLY, tmp_path, sys.executable, "-m", "nas.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.splitlines()[-1] == (
            f"nas {words[0]}: expected a folder that can be written to, got {folder} (Read-only file system); "
            "copy it to a disk that can be written to, and go on there"
        )
