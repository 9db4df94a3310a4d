"""The program in a process of its own, as a user's shell starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of the program: that of this process, this checkout, and the changes; None removes a variable."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {name: text for name, text in variables.items() if text is not None}


@pytest.fixture(name="environment", scope="session")
def environment_fixture() -> Callable[..., dict[str, str]]:
    return environment


def program(*words: str, folder: Path | None = None, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """The output and the exit code of one command."""
    return subprocess.run(
        [sys.executable, "-m", "nas.cli", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(**changes),
        timeout=120,
        errors="replace",
    )


@pytest.fixture(name="program", scope="session")
def program_fixture() -> Callable[..., subprocess.CompletedProcess[str]]:
    return program


def refusal(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line with which a command refused."""
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stdout + done.stderr
    return done.stderr


@pytest.fixture(name="refusal", scope="session")
def refusal_fixture() -> Callable[..., str]:
    return refusal
