"""The page of a run that has a winner, written while the run goes on."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nas.latency.machine import lane
from nas.runs.folder import RunFolder
from nas.search.live_report import live_report

PATIENCE_SECONDS = 60.0


@pytest.mark.slow
def test_the_live_page_is_written_between_timings_and_delays_none(
    full: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a lane of this test's own
    monkeypatch.setattr(tempfile, "tempdir", None)
    full.write_study(replace(full.study(), budget="9.05ms"))
    page, timings = full.root / "report.html", 0
    end = time.monotonic() + PATIENCE_SECONDS
    with live_report(full, pause_seconds=0.0) as ended:
        ended()
        while not page.exists() and time.monotonic() < end:
            with lane.exclusive():  # repeated, so that one timing comes while the page is made
                timings += 1
            time.sleep(0.05)
    assert timings > 1
    assert "data:image/" in page.read_text("utf-8")
