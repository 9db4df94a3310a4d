"""Searches that are killed, starved of disk space, started twice and damaged end where an undisturbed one does.

    pytest -m slow tests/faults

They run on the simulated device, so that latencies are the same everywhere. The last test counts and prints (with
`-s`): kills, finished work lost, wrong winners, tracebacks, processes left after five seconds, files left.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nas.runs.certificate import read_certificate
from nas.runs.folder import RunFolder
from nas.runs.trained import CHECKPOINT, WEIGHTS
from nas.runs.trial import PROGRESS

pytestmark = pytest.mark.slow

STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 8, validation_images: 4}
budget: 1.5ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 4, batch_size: 4}
space: {stages: [2], stage.depth: [1], block: [nonbt, sep]}
search:
  {seeds: [ndnet45-fcn32], random_trials: 1, guided_trials: 1, finalists: 1, finish_epochs: 1, pruned: 0,
   concurrent: 2}
"""
LIMIT_SECONDS = 300
MOST_LIVES = 80
ORPHAN_SECONDS = 5
RANDOM_KILLS = 20
FEWEST_KILLS = 50
Outcome = dict[str, object]


@dataclass
class Told:
    """What a search printed, and its exit code."""

    code: int
    output: str


@dataclass
class Campaign:
    """A folder to work in, what an undisturbed search found, and what was counted."""

    folder: Path
    expected: Outcome = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    searches: dict[int, str] = field(default_factory=dict)
    """What marks the processes of each search, by its own process."""

    @property
    def kills(self) -> Path:
        """The file with a line for each process that was killed when it wrote."""
        return self.folder / "kills"

    def start(self, run: Path, **broken: str) -> subprocess.Popen[str]:
        """A search that begins, or goes on, in a process group of its own."""
        resumed = ["--resume", str(run)] if (run / "study.yaml").exists() else []
        words = resumed or [str(self.folder / "study.yaml"), "--out", str(run)]
        paths = [str(self.folder / "path"), *filter(None, [os.environ.get("PYTHONPATH")])]
        writes = run.with_suffix(".writes")
        if broken.get("BREAK") != "kill":  # kills are counted over all lives of a run
            writes.unlink(missing_ok=True)
        marks = {
            "CAMPAIGN": self.mark,
            "BREAK_RUN": str(run.resolve()),
            "BREAK_WRITES": str(writes),
            "BREAK_KILLS": str(self.kills),
        }
        marks["CAMPAIGN_SEARCH"] = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, "-m", "nas.cli", "search", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"} | marks | broken,
        )
        self.searches[process.pid] = marks["CAMPAIGN_SEARCH"]
        return process

    def end(self, process: subprocess.Popen[str]) -> Told:
        """Wait for a search to end, and count the processes that it left behind."""
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
        self.counts["tracebacks"] += output.count("Traceback (most recent call last)")
        if process.returncode != 0:
            self.counts["orphans"] += len(self._orphans(self.searches[process.pid]))
        return Told(code=process.returncode, output=output)

    def search(self, run: Path, **broken: str) -> Told:
        """A search to its end, however it ends."""
        return self.end(self.start(run, **broken))

    def check(self, run: Path, told: Told) -> None:
        """Compare the end of a run with that of the undisturbed search."""
        assert told.code == 0, told.output
        found = outcome(run)
        self.counts["wrong winners"] += found["winner"] != self.expected["winner"]
        self.counts["files left"] += len([*run.rglob(".*.tmp"), *run.rglob(".owner"), *run.glob(".winner*")])
        assert found == self.expected

    def _orphans(self, search: str) -> list[int]:
        """Processes left of one search, while another one may run."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (left := self.processes("", search)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def processes(self, word: str, mark: str = "") -> list[int]:
        """Processes of this campaign, or those with another mark, whose command line has a word in it."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (mark or self.mark).encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes()
                    if command and word.encode() in command:
                        found.append(int(folder.name))
        return found


def outcome(run: Path) -> Outcome:
    """Everything that must not depend on what happened on the way."""
    folder = RunFolder.open(run)
    certificate = read_certificate(folder.winner)
    return {
        "winner": certificate.architecture,
        "miou": certificate.miou,
        "trials": {
            (each.number, each.name, each.architecture.key): (
                each.rungs,
                each.failed,
                [epoch.scores for epoch in folder.progress(each, "search").history],
                [epoch.scores for epoch in folder.progress(each, "finish").history],
            )
            for each in folder.trials()
        },
    }


def finished(run: Path) -> dict[str, int]:
    """The time at which each finished training was recorded as finished."""
    folder = RunFolder.open(run)
    return {
        f"{each.architecture.key}/{phase}": (folder.phase_path(each, phase) / PROGRESS).stat().st_mtime_ns
        for each in folder.trials()
        for phase in ("search", "finish")
        if folder.progress(each, phase).done  # type: ignore[arg-type]
    }


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "path").mkdir()
    shutil.copy(Path(__file__).with_name("breaking.py"), folder / "path" / "sitecustomize.py")
    found = Campaign(folder)
    found.kills.touch()
    told = found.search(folder / "undisturbed")
    assert told.code == 0, told.output
    found.expected = outcome(folder / "undisturbed")
    yield found
    print("\ncampaign: " + ", ".join(f"{count} {what}" for what, count in sorted(found.counts.items())))


def lost(campaign: Campaign, before: dict[str, int], run: Path) -> None:
    """Count the trainings that were finished before and are lost or were repeated."""
    after = finished(run)
    campaign.counts["finished work lost"] += sum(after.get(name) != when for name, when in before.items())


@pytest.mark.parametrize("time", [1, 2, 3])
def test_a_search_killed_between_two_writes_ends_as_an_undisturbed_one(time: int, campaign: Campaign) -> None:
    """Kills fall between each two kinds of file that are written in turn, at their first, second or third time."""
    run = campaign.folder / f"aimed{time}"
    for _ in range(MOST_LIVES):
        before = finished(run) if (run / "study.yaml").exists() else {}
        told = campaign.search(run, BREAK="kill", BREAK_AT=str(time))
        if (run / "study.yaml").exists():
            lost(campaign, before, run)
        if told.code == 0:
            break
        if told.code != -signal.SIGKILL:  # one training's process was killed again and again
            assert told.code == 2, told.output
            assert f"nas search --resume {run}" in told.output
    campaign.counts["aimed kills"] = len(campaign.kills.read_text().splitlines())
    campaign.check(run, told)
    assert campaign.counts["finished work lost"] == 0


def test_a_search_with_random_kills_ends_as_an_undisturbed_one(campaign: Campaign) -> None:
    draw, run, kills = random.Random(0), campaign.folder / "random", 0
    for _ in range(MOST_LIVES):
        before = finished(run) if (run / "study.yaml").exists() else {}
        process = campaign.start(run)
        deadline = time.monotonic() + LIMIT_SECONDS
        while process.poll() is None and kills < RANDOM_KILLS and time.monotonic() < deadline:
            time.sleep(draw.uniform(0.5, 6.0))
            workers = campaign.processes("ray::")
            victim = process.pid if draw.random() < 0.3 or not workers else draw.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                kills += 1
        told = campaign.end(process)
        if (run / "study.yaml").exists():
            lost(campaign, before, run)
        if told.code == 0:
            break
    campaign.counts["random kills"] += kills
    campaign.check(run, told)
    assert campaign.counts["finished work lost"] == 0


def test_a_full_disk_is_no_verdict_on_a_candidate(campaign: Campaign) -> None:
    """The disk fills up in each stage from proposing to reporting; each time room is made and the run goes on."""
    run = campaign.folder / "full"
    for at in ("/order.yaml", "/search/progress.yaml", "/finish/", "/model.onnx", "/winner", "/report.html"):
        before = finished(run) if (run / "study.yaml").exists() else {}
        told = campaign.search(run, BREAK="full", BREAK_AT=at)
        assert told.code == 2, told.output
        assert "No space left on device" in told.output
        assert f"nas search --resume {run}" in told.output
        assert all(not each.failed for each in RunFolder.open(run).trials())
        lost(campaign, before, run)
    before = finished(run)
    told = campaign.search(run)
    lost(campaign, before, run)
    campaign.check(run, told)


def test_a_run_has_one_owner_and_goes_on_after_its_search_was_terminated(campaign: Campaign) -> None:
    run = campaign.folder / "twice"
    first = campaign.start(run)
    while not list(run.glob(f"trials/*/search/{PROGRESS}")) and first.poll() is None:
        time.sleep(0.2)
    second = campaign.search(run)
    assert second.code == 2, second.output
    assert len(second.output.splitlines()) == 1
    assert re.search(rf"in use by process {first.pid} on ", second.output)
    first.send_signal(signal.SIGTERM)
    told = campaign.end(first)
    assert told.code not in (0, 1), told.output
    campaign.check(run, campaign.search(run))


@pytest.mark.parametrize("name", [CHECKPOINT, PROGRESS, WEIGHTS])
def test_damaged_files_are_made_again(name: str, campaign: Campaign) -> None:
    run = campaign.folder / f"damaged-{name}"
    shutil.copytree(campaign.folder / "undisturbed", run)
    shutil.rmtree(run / "winner")
    for file in [*run.glob(f"trials/*/*/{name}")]:
        file.write_bytes(file.read_bytes()[:-300] if name != PROGRESS else b"\xff\xfe damaged")
    told = campaign.search(run)
    campaign.check(run, told)


def test_the_campaign_lost_no_work_and_found_no_wrong_winner(campaign: Campaign) -> None:
    for what in ("finished work lost", "wrong winners", "tracebacks", "orphans", "files left"):
        assert campaign.counts[what] == 0, campaign.counts
    assert campaign.counts["aimed kills"] + campaign.counts["random kills"] >= FEWEST_KILLS
