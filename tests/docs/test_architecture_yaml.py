"""The page on the YAML of architectures names every key, with its default and every name that it may be."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml

from space import Architecture, blocks, decoders, strict
from space.axes import ranges
from space.context import PoolingPyramid, SpatialPyramid
from space.decoders.steps import JoinStep
from space.detail import Detail
from space.head import HEADS, Auxiliary, Head
from space.stage import DecoderStep, Stage
from space.stem import Stem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture_yaml.md").read_text("utf-8")
DECODERS = {name: kind for name, kind in decoders.kinds().items() if kind.__module__.startswith("space.")}
IN_ORDER: list[type[Any]] = [
    Architecture, Stem, Stage, Detail, SpatialPyramid, PoolingPyramid, DECODERS["deconv"], DecoderStep, DECODERS["cat"],
    DECODERS["ladder"], DECODERS["steps"], JoinStep, Head, Auxiliary,
]  # fmt: skip
"""Whose keys the page's tables have, in their order there."""


OF_OTHERS = set(blocks.names()) - {path.stem for path in (ROOT / "space" / "blocks").glob("*.py")}
"""Blocks of packages that are installed beside this one."""


def tables(first: str) -> list[list[list[str]]]:
    """Cells of the page's tables whose first column is called so, row by row without the header."""
    found = re.findall(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()] for text in found]


def names_of(kind: Any) -> set[str]:
    """The names that a value may be."""
    if typing.get_origin(kind) is Literal:
        return set(typing.get_args(kind))
    if typing.get_origin(kind) is Annotated and isinstance(typing.get_args(kind)[1], strict.OneOf):
        return set(typing.get_args(kind)[1].names()) - OF_OTHERS
    return set()


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The value of a key that is left out; "required" for a key that must be given."""
    says_which = field.name == "kind" and not field.metadata
    if field.default_factory is not dataclasses.MISSING:
        return strict.plain(field.default_factory())
    return "required" if field.default is dataclasses.MISSING or says_which else strict.plain(field.default)


def test_the_page_has_a_table_for_every_part() -> None:
    assert len(tables("key")) == len(IN_ORDER)
    assert {each for each in IN_ORDER if hasattr(each, "position")} == set(DECODERS.values())


@pytest.mark.parametrize("place", range(len(IN_ORDER)), ids=[each.__name__ for each in IN_ORDER])
def test_the_page_lists_the_keys_defaults_and_names_of_each_part(place: int) -> None:
    part, rows = IN_ORDER[place], tables("key")[place]
    kinds = typing.get_type_hints(part, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(part)}
    assert [row[0].strip("`") for row in rows] == list(fields)
    for key, may_be, default, _ in rows:
        field = fields[key.strip("`")]
        assert yaml.safe_load(default.strip("`")) == default_of(field), key
        if names := names_of(kinds[field.name]):
            assert set(re.findall(r"`(\w+)`", may_be)) == names, key


def test_the_page_lists_the_openings_and_numbers_of_each_block() -> None:
    (rows,) = tables("block")
    assert {row[0].partition("`:")[0].strip("`") for row in rows} == set(blocks.names()) - OF_OTHERS
    for name, opens, _, own in rows:
        block = blocks.kind(name.partition("`:")[0].strip("`"))
        assert set(re.findall(r"`(\w+)`", opens)) == set(block.openings)
        listed = {option: yaml.safe_load(value) for option, value in re.findall(r"`(\w+)`: (\w+)", own)}
        assert listed == {option: about.default for option, about in block.options.items()}


def test_the_page_lists_every_head() -> None:
    (rows,) = tables("head")
    assert [row[0].strip("`") for row in rows] == list(HEADS)
    assert [name for name, kind in HEADS.items() if kind.has_width] == [
        row[0].strip("`") for row in rows if "to `width`" in row[1]
    ]


def test_the_example_can_be_built() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M)
    architecture = Architecture.from_yaml(example, "the example")
    assert architecture.output_stride == 16
    assert architecture.build(3)


def test_the_page_shows_the_axes_as_the_program_prints_them() -> None:
    (line,) = re.findall(r"^python (-c .*)$", PAGE, re.M)
    done = subprocess.run([sys.executable, *shlex.split(line)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    printed = dict(each.split(": ", 1) for each in done.stdout.splitlines())
    assert printed == {axis: str(list(options)) for axis, options in ranges().items()}, done.stderr
