"""A user ID that the system does not know, as in many containers, with no home folder or another user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = ("unshare", "-U", "--map-user=54321", "--map-group=54321")


def as_nobody(*command: str, cache: str = "", home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python as that user, with `cache` as XDG_CACHE_HOME and, if given, `home` as HOME."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    kept |= {"XDG_CACHE_HOME": cache} | ({} if home is None else {"HOME": str(home)})
    return subprocess.run([*NOBODY, sys.executable, *command], env=kept, capture_output=True, text=True, timeout=300)


@pytest.fixture(autouse=True)
def _nobody() -> None:
    if shutil.which(NOBODY[0]) is None or as_nobody("-c", "").returncode != 0:
        pytest.skip("no other users can be pretended here")


def test_openvino_loads_for_an_unknown_user() -> None:
    """OpenVINO's telemetry looks for a home folder on import."""
    code = (
        "import os; from nas.host.home import some_home\n"
        "with some_home(): import openvino\n"
        "print(os.path.expanduser('~'), 'HOME' in os.environ)"
    )
    told = as_nobody("-c", code)
    assert told.stdout == "~ False\n", told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["doctor"], 0),
        (["measure", "ndnet29-fcn32", "--target", "openvino@cpu:1"], 2),
        (["search", "--budget", "10ms", "--target", "null@cpu:1"], 2),
    ],
)
def test_commands_answer_an_unknown_user(words: list[str], code: int) -> None:
    told = as_nobody("-m", "nas.cli", *words)
    assert told.returncode == code, told.stderr
    assert "fault of the program" not in told.stderr
    assert code == 0 or "set XDG_CACHE_HOME to a folder that can be written to" in told.stderr


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A home folder that this user may not enter, such as root's (`docker run --user 1000`, `sudo -E`)."""
    home = tmp_path / "home"
    home.mkdir(mode=0o000)
    yield home
    home.chmod(0o755)


def test_no_cached_record_is_found_in_a_home_that_may_not_be_entered(closed: Path) -> None:
    code = (
        "from nas.latency.default import DefaultTarget\n"
        "from nas.storage.cache import cache_folder\n"
        "from nas.storage.records import cached_record\n"
        "print(cache_folder().parents[1], cached_record(cache_folder() / 'defaults' / 'one.yaml', DefaultTarget))"
    )
    told = as_nobody("-c", code, home=closed)
    assert told.stdout == f"{closed} None\n", told.stderr


def test_drawn_pictures_that_cannot_be_kept_are_refused_with_advice(closed: Path) -> None:
    code = "from nas.data import DataSpec, load\nload(DataSpec(name='road_scenes', size=(48, 64)))"
    told = as_nobody("-c", code, home=closed)
    assert "DataError" in told.stderr
    assert "cannot be written to (Permission denied)" in told.stderr
    assert "set XDG_CACHE_HOME" in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["doctor"], 0),
        (["measure", "ndnet29-fcn32"], 2),
        (["measure", "ndnet29-fcn32", "--target", "null@cpu:1"], 2),
        (["search", "--budget", "10ms", "--target", "null@cpu:1"], 2),
    ],
)
def test_commands_of_a_user_with_a_closed_home_name_the_variable_to_set(
    words: list[str], code: int, closed: Path
) -> None:
    told = as_nobody("-m", "nas.cli", *words, home=closed)
    assert told.returncode == code, told.stderr
    (line,) = [line for line in (told.stdout + told.stderr).splitlines() if "XDG_CACHE_HOME" in line]
    assert line.startswith("cache " if code == 0 else f"nas {words[0]}: ")


STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 4, validation_images: 2}
budget: 2ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
search: {seeds: [ndnet29-fcn32], random_trials: 0, guided_trials: 0, finalists: 1, finish_epochs: 0}
"""


@pytest.mark.slow
def test_an_unknown_user_with_a_cache_folder_can_search(tmp_path: Path) -> None:
    """Each of Ray's processes asks for a home folder as it begins."""
    (tmp_path / "study.yaml").write_text(STUDY)
    tmp_path.chmod(0o777)
    run = str(tmp_path / "run")
    told = as_nobody("-m", "nas.cli", "search", str(tmp_path / "study.yaml"), "--out", run, cache=str(tmp_path))
    assert told.returncode == 0, told.stdout + told.stderr
    assert "certificate: PASS" in told.stdout
