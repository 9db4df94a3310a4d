"""Small searches through the command line: a worker is killed, Ctrl-C comes, the run goes on and ends.

They time on the simulated device, with the same latencies everywhere; `tests/docs/test_examples.py` has a real one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import space
from nas import cli
from nas.runs.certificate import read_certificate
from nas.runs.folder import OF_A_RUN, RunFolder

SEARCHED = 2  # epochs of a candidate before it is finished


@dataclass(frozen=True, kw_only=True)
class Told:
    """The output of a command, and its exit code."""

    output: str
    code: int


class Tables(HTMLParser):
    """The rows of a page's tables, with the text of each cell."""

    @classmethod
    def of(cls, page: str) -> list[list[str]]:
        """All rows of a page."""
        reader = cls()
        reader.feed(page)
        return reader.rows

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def nas(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nas.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def trainers_of(session: int) -> list[int]:
    """Processes that Ray started for trials in the given session of the operating system."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"TrialRunner" in status.read_bytes() and os.getsid(int(status.parent.name)) == session:
                found.append(int(status.parent.name))
        except (OSError, ProcessLookupError):
            continue
    return found


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A finished run, and the outputs of its commands."""

    folder: Path
    told: Told
    """The output of the command that finished the run."""
    before: Told
    """The output of the command whose training process was killed: the same one, unless it got Ctrl-C."""
    done: dict[str, float]
    """The time at which each training finished before Ctrl-C was recorded as finished."""


@pytest.fixture(scope="module", params=["killed", pytest.param("killed, Ctrl-C", marks=pytest.mark.slow)])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, record: ModuleType) -> Ended:
    """A run whose training process was killed after its first epoch; with Ctrl-C it was also interrupted after the next
    epoch and resumed.
    """
    folder = tmp_path_factory.mktemp("search")
    (folder / "study.yaml").write_text(record.UNPRUNED)
    process = nas("search", str(folder / "study.yaml"), "--out", str(folder / "run"))
    lines, epochs = [], 0
    for line in process.stdout or ():
        lines.append(line)
        if re.search(r"train .* epoch .* mIoU", line):
            epochs += 1
            if epochs == 1:
                for trainer in trainers_of(process.pid):
                    os.kill(trainer, signal.SIGKILL)
            if epochs == 3 and request.param != "killed":
                process.send_signal(signal.SIGINT)
                break
    rest, _ = process.communicate(timeout=300)
    before = told = Told(output="".join(lines) + rest, code=process.returncode)
    run = RunFolder.open(folder / "run")
    done = {
        trial.architecture.key: (run.phase_path(trial, "search") / "progress.yaml").stat().st_mtime
        for trial in run.trials()
        if run.progress(trial, "search").done
    }
    if request.param != "killed":
        process = nas("search", "--resume", str(run.root))
        output, _ = process.communicate(timeout=300)
        told = Told(output=output, code=process.returncode)
    return Ended(folder=run.root, told=told, before=before, done=done)


def test_no_traceback_is_shown(ended: Ended) -> None:
    assert "Traceback" not in ended.before.output + ended.told.output


@pytest.mark.slow
@pytest.mark.parametrize("ended", ["killed, Ctrl-C"], indirect=True)
def test_ctrl_c_ends_with_the_command_that_goes_on(ended: Ended) -> None:
    assert ended.before.code == 130, ended.before.output
    assert f"nas search --resume {ended.folder}" in ended.before.output


def test_progress_is_shown_and_ray_is_silent(ended: Ended) -> None:
    output = ended.before.output
    assert re.search(
        r"train +\S.* epoch 1/2 +mIoU +\d+\.\d % +\d\.\d\d +of 1\.5 ms +(waited .*, )?about \d+ \w+( \d\d \w+)? left",
        output,
    )
    lines = output.lower().replace("array", "").splitlines()
    assert not [line for line in lines if "ray" in line]


def test_a_killed_training_goes_on_without_losing_or_repeating_an_epoch(
    ended: Ended,
) -> None:
    folder, told, done = ended.folder, ended.told, ended.done
    assert told.code == 0, told.output
    run = RunFolder.open(folder)
    feasible = [trial for trial in run.trials() if trial.feasible]
    assert [trial.origin for trial in feasible] == ["seed", "random", "guided", "guided"]
    for trial in feasible:
        assert not trial.failed
        assert [epoch.epoch for epoch in run.progress(trial, "search").history] == [1, 2]
    for trial in run.trials():
        if trial.architecture.key in done:
            file = run.phase_path(trial, "search") / "progress.yaml"
            assert file.stat().st_mtime == done[trial.architecture.key], "a finished training was done again"


def test_a_killed_and_interrupted_run_ends_as_an_undisturbed_one(ended: Ended, record: ModuleType) -> None:
    """Latencies are those of the simulated device, and exact; training rounds differently from processor to processor.
    The recorded search also prunes, and its winner was pruned; here the winner is the one finalist.
    """
    *found, winner = record.trials(ended.folder)
    expected = [row for row in record.read("search.csv")[:-1] if row[0] != record.PRUNED]
    assert [row[:4] for row in found] == [row[:4] for row in expected]
    (finalist,) = (row for row in expected if row[0] not in record.PUBLISHED and len(row[4].split()) > SEARCHED)
    assert winner[1:4] == finalist[1:4]
    for (name, *_, mious), (*_, wanted) in zip(found, expected, strict=True):
        scores, wanted_scores = ([float(score) for score in text.split()] for text in (mious, wanted))
        assert scores == pytest.approx(wanted_scores, abs=0.05), name


def test_the_winner_is_certified_and_rebuilds(ended: Ended) -> None:
    folder, told = ended.folder, ended.told
    winner = folder / "winner"
    certificate = read_certificate(winner)
    architecture = space.load(winner / "architecture.yaml")
    assert certificate.architecture == architecture.key
    assert certificate.passed
    assert certificate.latency.target == "null@cpu:1"
    assert certificate.latency.p50_milliseconds <= 1.5
    assert certificate.parameters == space.parameters(architecture, 11)
    assert certificate.onnx_same_labels > 0.999
    assert (winner / "model.onnx").stat().st_size > 0
    assert {each.name for each in folder.iterdir()} <= set(OF_A_RUN)
    assert f"winner  {winner}" in told.output
    assert f"certificate: PASS  {certificate.latency} against 1.5ms" in told.output


def test_every_published_network_stands_beside_the_winner_on_the_screen_and_in_the_report(
    ended: Ended,
) -> None:
    folder, told = ended.folder, ended.told
    run = RunFolder.open(folder)
    (winner,) = [trial for trial in run.trials() if trial.architecture.key == read_certificate(run.winner).architecture]
    standing = {"winner": {winner.name: winner}, "published, own width": {trial.name: trial for trial in run.company()}}
    assert set(standing["published, own width"]) == set(space.published())
    rows = Tables.of((folder / "report.html").read_text())
    figures = yaml.safe_load((folder / "report.yaml").read_text())["leaderboard"]
    for place, trials in standing.items():
        assert {row["name"] for row in figures if row["place"] == place} == set(trials)
        for name, trial in trials.items():
            milliseconds = f"{trial.latency.p50_milliseconds:.2f}"
            assert re.search(rf"^{place} +{re.escape(name)} +{milliseconds} ", told.output, re.M), name
            (row,) = [row for row in rows if row[:2] == [place, name]]
            assert milliseconds in row[2], name


def test_the_winner_segments_pictures(ended: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nas.data import DataSpec, load

    folder = ended.folder
    images = load(DataSpec(size=(48, 64), train_images=12, validation_images=4)).validation.images[:2]
    code = cli.main(["predict", str(folder / "winner"), *map(str, images), "--out", str(tmp_path)])
    assert code == 0, capsys.readouterr().err
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_certified_network_is_shown_at_its_certified_size(ended: Ended, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ended.folder
    work = read_certificate(folder / "winner").multiply_adds
    assert cli.main(["show", str(folder)]) == 0
    assert f"{work / 1e9:.3f} G multiply-adds at 48x64 with 11 classes" in capsys.readouterr().out
    assert cli.main(["show", str(folder), "--input", "96x128", "--classes", "3"]) == 0
    assert "at 96x128 with 3 classes" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_run_with_another_budget_reuses_its_trials(
    ended: Ended,
) -> None:
    folder = ended.folder
    before = {trial.architecture.key for trial in RunFolder.open(folder).trials()}
    process = nas("search", "--resume", str(folder), "--budget", "2.5ms")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    run = RunFolder.open(folder)
    assert run.study().budget == "2.5ms"
    assert before < {trial.architecture.key for trial in run.trials()}
    assert read_certificate(folder / "winner").budget == "2.5ms"
