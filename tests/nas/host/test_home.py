"""A user whose number the system does not know, with no home folder, as in many containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

NOBODY = ("unshare", "-U", "--map-user=54321", "--map-group=54321")


def as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command says to that user."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    kept["XDG_CACHE_HOME"] = ""
    return subprocess.run([*NOBODY, sys.executable, *command], env=kept, capture_output=True, text=True, timeout=120)


@pytest.fixture(autouse=True)
def _nobody() -> None:
    if shutil.which(NOBODY[0]) is None or as_nobody("-c", "").returncode != 0:
        pytest.skip("no other users can be pretended here")


def test_openvino_loads() -> None:
    """Its telemetry asks for a home folder as it is imported."""
    code = (
        "import os; from nas.host.home import some_home\n"
        "with some_home(): import openvino\n"
        "print(os.path.expanduser('~'), 'HOME' in os.environ)"
    )
    told = as_nobody("-c", code)
    assert told.stdout == "~ False\n", told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"), [(["doctor"], 0), (["measure", "ndnet29-fcn32", "--target", "openvino@cpu:1"], 2)]
)
def test_commands_answer(words: list[str], code: int) -> None:
    told = as_nobody("-m", "nas.cli", *words)
    assert told.returncode == code, told.stderr
    assert "fault of the program" not in told.stderr
    assert code == 0 or "set XDG_CACHE_HOME to a folder that can be written" in told.stderr
