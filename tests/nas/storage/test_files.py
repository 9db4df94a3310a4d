"""Files that are replaced whole: what is said of one that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas.storage.files import clear_unfinished, write_text


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="Is a directory") as raised:
        write_text(tmp_path / "taken", "words")
    assert raised.value.filename == str(tmp_path / "taken")
    assert ".tmp" not in str(raised.value)
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


def test_what_a_killed_process_left_goes_and_others_files_stay(tmp_path: Path) -> None:
    names = (
        ".progress.yaml.99999999.tmp",
        ".cache.tmp",
        "notes.tmp",
        "trials/.trial.yaml.88888888.tmp",
        f"trials/.live.{os.getpid()}.tmp",
        "trials/.swap.tmp",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clear_unfinished(tmp_path)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {".cache.tmp", "notes.tmp", "trials/.swap.tmp", f"trials/.live.{os.getpid()}.tmp"}
