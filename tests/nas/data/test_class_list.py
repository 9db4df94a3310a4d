"""Class lists as people and tools write them: each is understood or refused, and no name shifts to another class."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.data import IGNORE
from nas.data.class_list import read_classes
from nas.data.dataset import ILLEGAL
from space.errors import UserError

NAMES = ("road", "car", "sky")


@pytest.mark.parametrize(
    "text",
    [
        b"road\ncar\nsky\n",
        b"road\r\ncar\r\nsky\r\n",
        b"road\rcar\rsky",
        b"\xef\xbb\xbfroad\ncar\nsky\n",
        b"\xef\xbb\xbf\r\nroad\r\ncar\r\nsky\r\n",
        "road\ncar\nsky\n".encode("utf-16"),
        "  road \n\ufeffcar\u00a0\nsky\u200b\n\n \n".encode(),
        b"# my classes\n# of 2024\n\nroad\ncar\nsky\n\n# end\n",
        b"0 road\n1 car\n2 sky\n",
        b"0: road\n1: car\n2: sky\n",
        b"name,r,g,b\nroad,1,2,3\ncar,4,5,6\nsky,7,8,9\n",
        b"road;1;2;3\ncar;4;5;6\nsky;7;8;9\n",
        b"# label:color_rgb:parts:actions\nroad:1,2,3::\ncar:4,5,6::\nsky:7,8,9::\n",
        b"1 2 3\t\troad\n4 5 6\t\tcar\n7 8 9\t\tsky\n",
        b"__ignore__\nroad\ncar\nsky\n",
    ],
)
def test_class_names_are_understood(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(text)
    listed, notes = read_classes(tmp_path)
    assert listed.names == NAMES
    assert listed.label_map[:4] == (0, 1, 2, ILLEGAL)
    assert len(notes) == (b"__ignore__" in text)
    if b"4" in text and b"of" not in text:
        assert listed.label_colours == listed.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    else:
        assert listed.label_colours == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"road\n\nsky\n", "line 2: .* a blank line, which would shift"),
        (b"road\n# car\nsky\n", "line 2: .* a comment, which would shift"),
        (b"road, car, sky\n", "line 1: .*one name per line"),
        (b"name,r,g,b\nroad,1,2,3\ncar\n", "line 2: .*name,red,green,blue in every line"),
        (b"road,1,2,300\ncar,4,5,6\n", "red, green and blue values from 0 to 255"),
        (b"1 road\n2 car\n3 sky\n", r"count from 0, .* got 1, 2, 3.*void: 0"),
        (b"0 road\n2 car\n3 sky\n", "count from 0"),
        (b"road\nc\0ar\n", "line 2: .*control characters"),
        (b"stra\xdfe\nauto\n", "UTF-8"),
        (b"road\nroad\n", "'road' more than once"),
        (b"", "2 to 255 names"),
        (b"# nothing\n", "2 to 255 names"),
    ],
)
def test_class_lists_that_would_shift_names_are_refused(text: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_classes(tmp_path)
    assert str(tmp_path / "classes.txt") in str(caught.value)


def test_a_class_list_under_another_file_name_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "Classes.txt").write_text("road\ncar\n")
    with pytest.raises(UserError, match=r"Classes\.txt is there: rename it"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    ("text", "names", "values"),
    [
        ("classes: [a, b, c]\nvoid: 3", ("a", "b", "c"), (0, 1, 2, IGNORE, ILLEGAL)),
        ("classes: [a, b, c]\nvoid: 0", ("a", "b", "c"), (IGNORE, 0, 1, 2, ILLEGAL)),
        ("classes: [a, b, c]\nvoid: [0, 9]", ("a", "b", "c"), (IGNORE, 0, 1, 2, ILLEGAL)),
        ("classes: [nothing, b, c]\nvoid: nothing", ("b", "c"), (IGNORE, 0, 1, ILLEGAL)),
        ("classes: [a, other, c, rest]\nvoid: [other, rest]", ("a", "c"), (0, IGNORE, 1, IGNORE, ILLEGAL)),
        ("\ufeffclasses: [a, b]", ("a", "b"), (0, 1, ILLEGAL)),
    ],
)
def test_void_is_a_value_a_class_or_several(
    text: str, names: tuple[str, ...], values: tuple[int, ...], tmp_path: Path
) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    listed, _ = read_classes(tmp_path)
    assert listed.names == names
    assert listed.label_map[: len(values)] == values
    assert listed.label_map[IGNORE] == IGNORE
    assert len(listed.palette) == len(names)


def test_colours_of_masks_go_with_void(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text('classes: [nothing, b, c]\nvoid: nothing\ncolours: ["#000000", "#010203", "#ff0000"]\n')
    listed, _ = read_classes(tmp_path)
    assert listed.palette == ((1, 2, 3), (255, 0, 0))
    assert listed.label_colours == ((0, 0, 0), (1, 2, 3), (255, 0, 0))
    file.write_text('classes: [b, c]\nvoid: 0\ncolours: ["#010203", "#ff0000"]\n')
    listed, _ = read_classes(tmp_path)
    assert listed.label_colours == ((0, 0, 0), (1, 2, 3), (255, 0, 0))
