"""Files and folders that are replaced as a whole, or stay unchanged with an error that names the file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.storage.files import _settle, clear_unfinished, replace_folder, write_text, write_together
from space import UserError


def test_an_error_names_the_requested_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="Is a directory") as raised:
        write_text(tmp_path / "taken", "words")
    assert raised.value.filename == str(tmp_path / "taken")
    assert str(raised.value).endswith(f"'{tmp_path / 'taken'}'")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


def test_a_page_may_name_a_picture_that_is_not_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "page", os.fsdecode(b"stra\xdfe.png"))
    assert (tmp_path / "page").read_text("utf-8") == "stra\\udcdfe.png"


def test_only_a_new_file_or_one_with_the_mark_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "table"
    for text in ("ours, first", "ours, second"):
        write_text(file, text, mark="ours, ")
        assert file.read_text() == text
    file.write_text("mine")
    with pytest.raises(UserError, match=f"{file}: expected none still, .* got another file, .* is {tmp_path}/table-2"):
        write_text(file, "ours, third", mark="ours, ")
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(UserError, match="got another file"):
        write_text(file, "ours, fourth", mark="ours, ")
    assert file.is_symlink()
    kept = {each.name: each.read_text() for each in tmp_path.iterdir() if each != file}
    assert kept == {"table-2": "ours, third", "table-3": "ours, fourth"}, "nothing that was finished is lost"


def test_temporary_files_of_killed_processes_are_removed_and_other_files_stay(tmp_path: Path) -> None:
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
def test_files_stay_unchanged_if_one_of_them_cannot_be_moved(before: dict[str, str], tmp_path: Path) -> None:
    for name, text in before.items():
        (tmp_path / name).write_text(text)

    def lacking(first: Path) -> None:
        pair(first)
        first.with_suffix(".b").unlink()

    with pytest.raises(OSError, match="No such file") as raised:
        write_together((tmp_path / "n.a", tmp_path / "n.b"), lacking)
    assert str(raised.value).endswith(f"'{tmp_path / 'n.a'}'")
    assert contents(tmp_path) == before

    nowhere = tmp_path / "no such folder" / "besides"  # moved after n.b and before n.a
    with pytest.raises(OSError, match="No such file"):
        write_together((tmp_path / "n.a", tmp_path / "n.b", nowhere), pair)
    assert contents(tmp_path) == before
    assert {file.name for file in tmp_path.iterdir()} == set(before)


def test_file_systems_that_cannot_sync_folders_are_tolerated() -> None:
    descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(descriptor)
    os.close(descriptor)
    _settle(Path("/proc"))


def replace(folder: Path) -> None:
    with replace_folder(folder, "b", goes=("old",)) as new:
        for name in "abc":
            (new / name).write_text(f"new {name}")


def half(folder: Path) -> None:
    with replace_folder(folder, "b") as new:
        (new / "a").write_text("half")
        raise OSError(28, "No space left on device")


def test_a_linked_folder_is_replaced_in_place(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large disk")
    replace(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert contents(tmp_path / "large disk") == {name: f"new {name}" for name in "abc"}
    assert {each.name for each in tmp_path.iterdir()} == {"out", "large disk"}


def test_the_current_folder_is_replaced_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "old"):
        (tmp_path / name).write_text("old")
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    replace(Path())
    assert tmp_path.stat().st_ino == before
    assert contents(tmp_path) == {name: f"new {name}" for name in "abc"}
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("current", [False, True])
def test_files_that_appear_during_a_command_stay(
    current: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command may take hours, in the current folder or in another one."""
    out = tmp_path / "out"
    replace(out)
    (out / "old").write_text("old")
    if current:
        monkeypatch.chdir(out)
    with replace_folder(out, "b", goes=("old",)) as new:
        for name in "abc":
            (new / name).write_text(f"newer {name}")
        (out / "notes").mkdir()
        (out / "thesis.txt").write_text("mine")
    assert contents(out) == {**{name: f"newer {name}" for name in "abc"}, "thesis.txt": "mine"}
    assert (out / "notes").is_dir()
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def lent() -> Iterator[Path]:
    """A writable folder in a read-only one, for a user who is not root."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))  # readable for every user
    lent = root / "lent"
    lent.mkdir()
    lent.chmod(0o777)
    root.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield lent
    os.seteuid(user)
    root.chmod(0o755)
    shutil.rmtree(root)


def test_a_folder_in_a_read_only_folder_is_filled_in_place(lent: Path) -> None:
    (lent / "old").write_text("old")
    for _ in range(2):
        replace(lent)
        assert contents(lent) == {name: f"new {name}" for name in "abc"}
        assert len(list(lent.iterdir())) == 3
    with pytest.raises(OSError, match="No space"):
        half(lent)
    assert contents(lent) == {name: f"new {name}" for name in "abc"}
    assert len(list(lent.iterdir())) == 3
