"""Files that are replaced whole: what is said of one that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.storage.files import write_text


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="Is a directory") as raised:
        write_text(tmp_path / "taken", "words")
    assert raised.value.filename == str(tmp_path / "taken")
    assert ".tmp" not in str(raised.value)
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]
