"""Errors for kept values that cannot be read, each with one advice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.storage.records import read_record
from space import UserError

ADVICE = "; if it was damaged, bring back the file that was there"


@dataclass(frozen=True, kw_only=True)
class Kept:
    words: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        if self.number < 0:
            raise UserError(f"number: expected 0 or more, got {self.number}{self.words}")


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("number: -1", f"number: expected 0 or more, got -1{ADVICE}"),
        ("{number: -1, words: '; write it again'}", "got -1; write it again"),
        ("[1, 2]", f"expected the keys words, number, got a list{ADVICE}"),
        ("number: 'a; b'", f"expected a whole number, got 'a; b'{ADVICE}"),
        ("""number: "it's; so" """, f"""got "it's; so"{ADVICE}"""),
        ("'a; b': 1", "unknown key 'a; b'; known: number, words"),
        ("nmber: 1", "unknown key 'nmber'; did you mean 'number'?"),
        ("number: {", f"not valid YAML: did not find expected node content{ADVICE}"),
    ],
)
def test_a_fault_in_a_file_is_reported_with_a_single_advice(text: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / "a; b.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(UserError) as told:
        read_record(file, "an example", Kept)
    assert str(told.value).startswith(f"{file}")
    assert str(told.value).endswith(ending)
    assert str(told.value).removeprefix(str(file)).count("; ") - text.count("; ") <= 1
