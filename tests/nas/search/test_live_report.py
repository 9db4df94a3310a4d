"""The report of a run while it goes on."""

from __future__ import annotations

import time
from pathlib import Path

from nas.data import DataSpec
from nas.latency.machine import lane
from nas.runs.folder import RunFolder
from nas.search.live_report import live_report
from nas.study import Study
from nas.training import load_recipe

ASKED = Study(data=DataSpec(size=(64, 96)), budget="10ms", target="null@cpu:1", recipe=load_recipe("quick"))
PATIENCE_SECONDS = 60.0


def test_a_live_page_is_written_in_the_background(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", ASKED)
    page = run.root / "report.html"
    end = time.monotonic() + PATIENCE_SECONDS
    with live_report(run, pause_seconds=0.0) as ended:
        ended()
        assert not page.exists()  # the call does not wait for it
        while not page.exists() and time.monotonic() < end:
            time.sleep(0.05)
    assert "Still to come: train new and paused candidates" in page.read_text()
    assert (run.root / "report.yaml").is_file()


def test_no_live_page_is_written_during_a_timing_or_after_the_end(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", ASKED)
    with live_report(run, pause_seconds=0.0) as ended, lane.exclusive():
        ended()
        time.sleep(0.5)
        assert {file.name for file in run.root.iterdir()} == {"study.yaml", "trials"}
    with live_report(run) as ended:
        ended()
    assert {file.name for file in run.root.iterdir()} == {"study.yaml", "trials"}
