from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch


def pytest_configure() -> None:
    """With `pytest -n 2` each worker, and all that it starts, keeps to one core, where it times alone.

    So its timings need not wait for the other worker's training steps either: it has its own folder of locks.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
        folder = Path(tempfile.gettempdir()) / f"framebudget-tests-{os.getuid()}-{worker}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks of test size are slower with several threads than with one, and far slower beside another process."""
    torch.set_num_threads(1)
