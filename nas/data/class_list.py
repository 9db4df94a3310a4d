"""The class list of a data set: classes.yaml, or classes.txt in the formats that labelling tools write.

classes.txt holds one name per line, in the order of the label values 0, 1, 2, ... Anything that would shift the names
against the values (a blank line or a comment between two names, numbers that do not count from 0) is refused.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.data.dataset import IGNORE, ILLEGAL
from nas.data.pictures import distinct_colours
from nas.errors import DataError
from space import strict
from space.errors import nearest

LABELME_IGNORE = "__ignore__"
"""First line of labelme's own lists. It stands for the value -1, which labelme's label files store as 255."""

Colour = tuple[int, int, int]

_HEADER = re.compile(
    r"(class(_?name)?|name|label)\s*[,;\t]\s*(r(ed)?)\s*[,;\t]\s*(g(reen)?)\s*[,;\t]\s*(b(lue)?)", re.I
)
_COLOURED = (
    re.compile(r"(?P<name>.*\S)\s*[,;\t]\s*(?P<r>\d{1,3})\s*[,;\t]\s*(?P<g>\d{1,3})\s*[,;\t]\s*(?P<b>\d{1,3})"),
    re.compile(r"(?P<name>.*[^:\s])\s*:\s*(?P<r>\d{1,3}),(?P<g>\d{1,3}),(?P<b>\d{1,3})(:[^:]*){0,2}"),  # CVAT
    re.compile(r"(?P<r>\d{1,3})\s+(?P<g>\d{1,3})\s+(?P<b>\d{1,3})\s+(?P<name>\D.*)"),  # CamVid's label_colors.txt
)
_NUMBERED = re.compile(r"(\d{1,3})\s*[\s:,;.)]\s*(\D.*)")


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The contents of classes.yaml.

    Raises: DataError when its parts contradict each other or are out of range.
    """

    classes: tuple[str, ...]
    """Names by ascending label value, including those that `void` names; the first value is 0, or 1 if 0 is void."""
    void: int | str | tuple[int | str, ...] = IGNORE
    """Label values, and names of classes, that count neither in the loss nor in scores; 255 is always void."""
    colours: tuple[str, ...] | None = None
    """One "#rrggbb" per name: the class's colour in pictures of labels, and in labels that are colour masks."""

    def __post_init__(self) -> None:
        count = len(self.classes)
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise DataError(f"classes: expected different names, got '{repeated[0]}' more than once")
        most = IGNORE - self._first
        if count > most:
            where = " where label value 0 is void" if self._first else ""
            raise DataError(f"classes: expected at most {most} names{where}, got {count}")
        beyond = count + self._first
        for void in self._voids:
            if isinstance(void, str) and void not in self.classes:
                raise DataError(f"void: expected a label value or one of the classes; {nearest(void, self.classes)}")
            if isinstance(void, int) and (void != 0 and not beyond <= void <= IGNORE):
                raise DataError(
                    f"void: expected 0, a value from {beyond} to {IGNORE} (others are classes) or the name of a class, "
                    f"got {void}"
                )
        if len(self.names) < 2:
            raise DataError(f"classes: expected 2 to {most} names that are not void, got {len(self.names)} of {count}")
        if self.colours is not None and len(self.colours) != count:
            raise DataError(f"colours: expected one colour for each of the {count} classes, got {len(self.colours)}")
        for colour in self.colours or ():
            if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
                raise DataError(f'colours: expected "#rrggbb", got "{colour}"')
        if self.colours is not None and len({*self.palette}) != len(self.names):
            raise DataError("colours: expected a different colour for each class, got the same one twice")

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that a network learns to tell apart: all but void."""
        return tuple(name for name in self.classes if name not in self._voids)

    @property
    def palette(self) -> tuple[Colour, ...]:
        """One RGB colour (0..255) for each of `names`."""
        if self.colours is None:
            return distinct_colours(len(self.names))
        listed = zip(self.classes, self._rgb, strict=True)
        return tuple(colour for name, colour in listed if name not in self._voids)

    @property
    def label_map(self) -> tuple[int, ...]:
        """See `nas.data.dataset.Dataset.label_map`."""
        entries = [ILLEGAL] * 256
        for place, name in enumerate(self.classes):
            entries[self._first + place] = IGNORE if name in self._voids else self.names.index(name)
        for void in self._voids:
            if isinstance(void, int):
                entries[void] = IGNORE
        entries[IGNORE] = IGNORE
        return tuple(entries)

    @property
    def label_colours(self) -> tuple[Colour, ...]:
        """See `nas.data.dataset.Dataset.label_colours`."""
        if self.colours is None:
            return ()
        if not self._first:
            return self._rgb
        return (next(each for each in ((0, 0, 0), (255, 255, 255), (1, 2, 3)) if each not in self._rgb), *self._rgb)

    @property
    def _voids(self) -> tuple[int | str, ...]:
        return self.void if isinstance(self.void, tuple) else (self.void,)

    @property
    def _first(self) -> int:
        """The label value of the first name."""
        return int(any(isinstance(void, int) and void == 0 for void in self._voids))

    @property
    def _rgb(self) -> tuple[Colour, ...]:
        channels = [bytes.fromhex(colour[1:]) for colour in self.colours or ()]
        return tuple((red, green, blue) for red, green, blue in channels)


def read_classes(root: Path) -> tuple[ClassList, tuple[str, ...]]:
    """The class list in a folder, and notes for the user on how it was read, one sentence each.

    Raises: DataError when there is no list, or two, or an ambiguous one; UserError for bad keys in classes.yaml.
    """
    as_yaml, as_text = root / "classes.yaml", root / "classes.txt"
    if as_yaml.is_file() and as_text.is_file():
        raise DataError(f"{as_yaml} and {as_text.name} both list the classes; remove one of them")
    if as_yaml.is_file():
        return strict.parse(_text(as_yaml), ClassList, str(as_yaml)), ()
    if not as_text.is_file():
        near = [
            each.name for each in root.iterdir() if each.name.lower() in ("classes.txt", "classes.yaml", "classes.yml")
        ]
        hint = f" ({near[0]} is there: rename it)" if near else ""
        raise DataError(
            f"{as_text} is missing; list the class names in it, one per line, in the order of label values{hint}"
        )
    text = _text(as_text)
    try:
        return _from_lines(text)
    except DataError as error:
        raise DataError(f"{as_text}: {error}") from None


def _from_lines(text: str) -> tuple[ClassList, tuple[str, ...]]:
    lines = [(number, _trimmed(line)) for number, line in enumerate(text.splitlines(), 1)]
    if lines and _HEADER.fullmatch(lines[0][1]):
        lines = lines[1:]
    named = [place for place, (_, line) in enumerate(lines) if line and not line.startswith("#")]
    lines = lines[named[0] : named[-1] + 1] if named else []
    for number, line in lines:
        if not line or line.startswith("#"):
            what = "a blank line" if not line else "a comment"
            raise DataError(
                f"line {number}: expected the name of the next label value, got {what}, which would shift the names "
                "after it; remove the line, or write a name into it"
            )
        if any(unicodedata.category(letter) == "Cc" and letter != "\t" for letter in line):
            raise DataError(f"line {number}: expected a name, got control characters in {line!r}; type it again")
    notes: tuple[str, ...] = ()
    if lines and lines[0][1] == LABELME_IGNORE:
        lines = lines[1:]
        notes = (
            f"classes.txt: {LABELME_IGNORE} is labelme's marker, not a class: label value 0 is '{_first_name(lines)}'",
        )
    coloured = [_coloured(line) for _, line in lines]
    if lines and all(coloured):
        pairs = [pair for pair in coloured if pair]
        colours = tuple(f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in pairs)
        return ClassList(classes=tuple(name for name, _ in pairs), colours=colours), notes
    names = _without_numbers([line for _, line in lines])
    for (number, _), name in zip(lines, names, strict=True):
        if "," in name or ";" in name or "\t" in name:
            raise DataError(
                f"line {number}: expected one class name, or name,red,green,blue in every line, got {name!r}; "
                "write one name per line"
            )
    return ClassList(classes=tuple(names)), notes


def _first_name(lines: Sequence[tuple[int, str]]) -> str:
    return lines[0][1] if lines else ""


def _trimmed(line: str) -> str:
    """The line without spaces and invisible characters around it."""
    invisible = "".join(letter for letter in set(line) if unicodedata.category(letter) == "Cf")
    before = None
    while before != line:
        before, line = line, line.strip().strip(invisible)
    return line


def _coloured(line: str) -> tuple[str, Colour] | None:
    """The name and the colour in a line that has both; None for other lines."""
    for pattern in _COLOURED:
        found = pattern.fullmatch(line)
        if found:
            colour = int(found["r"]), int(found["g"]), int(found["b"])
            if max(colour) > 255:
                raise DataError(f"expected red, green and blue values from 0 to 255, got {line!r}; correct it")
            return found["name"].strip(), colour
    return None


def _without_numbers(lines: list[str]) -> list[str]:
    """The names, if all lines begin with their label value; otherwise the lines as they are.

    Raises: DataError when the values do not count from 0.
    """
    found = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = [each for each in found if each]
    if len(numbered) < 2 or len(numbered) != len(lines):
        return lines
    numbers = [int(each[1]) for each in numbered]
    if numbers != list(range(len(lines))):
        raise DataError(
            f"expected numbers that count from 0, as label values do, got {', '.join(map(str, numbers[:4]))}, ...; "
            "if 0 is void, write void: 0 in classes.yaml"
        )
    return [each[2] for each in numbered]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return data.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; fix it and try again") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected UTF-8 text, got other bytes ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
