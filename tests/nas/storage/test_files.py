"""Files that are replaced whole: what is said of one that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas.storage.files import clear_unfinished, write_text, write_together


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="Is a directory") as raised:
        write_text(tmp_path / "taken", "words")
    assert raised.value.filename == str(tmp_path / "taken")
    assert str(raised.value).endswith(f"'{tmp_path / 'taken'}'")
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
    folder = tmp_path / ".model.xml.99999999.tmp" / "new"
    folder.mkdir(parents=True)
    (folder / "model.bin").touch()
    clear_unfinished(tmp_path)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {".cache.tmp", "notes.tmp", "trials/.swap.tmp", f"trials/.live.{os.getpid()}.tmp"}
    assert not folder.parent.exists()


def pair(first: Path) -> None:
    first.write_text("new first")
    first.with_suffix(".b").write_text("new second")
    first.with_name("besides").touch()


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


def test_files_that_belong_together_are_replaced_together(tmp_path: Path) -> None:
    files = tmp_path / "x" / "n.a", tmp_path / "x" / "n.b"
    for _ in range(2):
        write_together(files, pair)
        assert contents(tmp_path / "x") == {"n.a": "new first", "n.b": "new second"}
        assert len(list((tmp_path / "x").iterdir())) == 2
        for file in files:
            file.write_text("old")


@pytest.mark.parametrize("before", [{"n.a": "old first"}, {}])
def test_where_one_cannot_be_moved_all_stay_as_they_were(before: dict[str, str], tmp_path: Path) -> None:
    for name, text in before.items():
        (tmp_path / name).write_text(text)

    def lacking(first: Path) -> None:
        pair(first)
        first.with_suffix(".b").unlink()

    with pytest.raises(OSError, match="No such file") as raised:
        write_together((tmp_path / "n.a", tmp_path / "n.b"), lacking)
    assert str(raised.value).endswith(f"'{tmp_path / 'n.a'}'")
    assert contents(tmp_path) == before

    nowhere = tmp_path / "no such folder" / "besides"  # what is put there after n.b, and before n.a
    with pytest.raises(OSError, match="No such file"):
        write_together((tmp_path / "n.a", tmp_path / "n.b", nowhere), pair)
    assert contents(tmp_path) == before
    assert {file.name for file in tmp_path.iterdir()} == set(before)
