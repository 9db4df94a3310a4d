"""A table of trained networks that can be searched: rows are networks, columns what was chosen and found."""

from __future__ import annotations

import csv
import fnmatch
import io
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.storage.files import read_text
from nas.surrogate.candidates import step_of
from nas.surrogate.encoding import Point, encode, key
from space import UserError
from space.choices import Ask, Choice
from space.errors import nearest

MOST_OPTIONS = 1024  # of a feature; of more values, so many quantiles
MOST_WORDS = 256  # different ones of a feature
FEW_WORDS = 8  # of a feature, however few rows there are
MOST_CANDIDATES = 500  # that a sampler compares at a time
DELIMITERS = ",;\t"
MISSING = ("", "nan", "na", "n/a", "none", "null", "inf", "-inf")  # as tables write that there is no number

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """Cheap trainings of a table's networks, all of one kind."""

    cost: float
    """In whole trainings, below 1."""
    scores: NDArray[np.float64]
    """The higher the better; NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Networks inside the bounds."""

    points: tuple[Point, ...]
    """What is known of each before it is trained."""
    scores: NDArray[np.float64]
    """Of whole trainings, the higher the better; NaN where one failed."""
    rungs: tuple[Rung, ...]
    """Of cheap trainings, the cheapest first; none where none are done."""
    features: tuple[str, ...]
    facts: tuple[Mapping[str, float], ...]
    """Numbers that are known of each too, beside its features; none where they are empty."""
    sign: float
    """What scores are to be multiplied by for the objective as the table has it."""
    notes: tuple[str, ...] = field(default=())
    """What was odd about it."""

    def __len__(self) -> int:
        return len(self.points)


def load(
    file: Path,
    *,
    objective: str,
    minimize: bool = False,
    bounds: Sequence[str] = (),
    cheap: Sequence[str] = (),
    features: str = "",
    facts: str = "",
) -> Table:
    """A CSV with a header. `bounds`: column=largest value; `cheap`: column:cost of each kind of cheap training;
    `features`: names or patterns, by commas; else all other columns but other scores by their name, and words of which
    most rows have one of their own; `facts`: the same, none if left out.

    Raises: UserError for a file that cannot be read; for a column that is not there, or that holds no numbers where it
    has to; for costs of cheap trainings that are not between 0 and 1, or twice the same.
    """
    rows = _read(file)
    names = list(rows[0])

    def column(name: str) -> NDArray[np.float64]:
        if name not in names:
            raise UserError(f"{file}: no column is called '{name}'; {nearest(name, names)}")
        values = np.array([_number(row[name]) for row in rows])
        if not np.isfinite(values).any():
            raise UserError(f"{file}: expected numbers in the column '{name}', got {rows[0][name]!r}; name another one")
        return values

    inside = np.ones(len(rows), bool)
    limits = dict(_split(each, "=", "a bound as column=number") for each in bounds)
    for name, limit in limits.items():
        inside &= column(name) <= limit  # what is not known to be inside is not
    rungs = _rungs(cheap)
    sign = -1.0 if minimize else 1.0
    scores = sign * column(objective)[inside]
    cheaps = [(cost, sign * column(name)[inside]) for cost, name in rungs]
    scored = {objective, *(name for _, name in rungs)}
    known = [name for name in names if facts and name not in scored and _wanted(name, facts)]
    numbers = {name: column(name)[inside] for name in known}
    rows = [rows[place] for place in np.flatnonzero(inside)]
    left = [name for name in names if name not in {*scored, *limits, *known}]
    chosen, notes = _features(left, features, objective, {name: [row[name] for row in rows] for name in left})
    if not chosen:
        why = "".join(f" ({note})" for note in notes[:1])
        raise UserError(f"{file}: expected columns for --features, got none in {', '.join(left) or 'the rest'}{why}")
    firsts: dict[tuple[Choice, ...], int] = {}
    for place, mark in enumerate(zip(*chosen.values(), strict=True)):
        firsts.setdefault(mark, place)
    places = list(firsts.values())
    if len(places) < 2:
        raise UserError(
            f"{file}: expected some networks that differ in their features inside the bounds, got {len(places)} of "
            f"{len(rows)} rows; raise a bound or name other features"
        )
    if not np.isfinite(scores[places]).any():
        raise UserError(f"{file}: expected numbers in the column '{objective}' inside the bounds, got none")
    repeated, failed = len(rows) - len(places), int((~np.isfinite(scores[places])).sum())
    notes += [f"{repeated} rows repeat the features of another one and are left out"] if repeated else []
    notes += [f"{failed} rows have no {objective}: trainings that fail"] if failed else []
    columns = {name: [answers[place] for place in places] for name, answers in chosen.items()}
    fewer = {name: _quantiles(answers) for name, answers in columns.items()}
    if len({*zip(*fewer.values(), strict=True)}) == len(places):  # they still tell networks apart
        columns = fewer
    return Table(
        points=tuple(dict(zip(columns, answers, strict=True)) for answers in zip(*columns.values(), strict=True)),
        facts=tuple({name: float(numbers[name][place]) for name in known} for place in places),
        scores=scores[places],
        rungs=tuple(Rung(cost=cost, scores=found[places]) for cost, found in cheaps),
        features=tuple(chosen),
        sign=sign,
        notes=tuple(notes),
    )


class TableQuestions:
    """A table's features as questions; answers lead to the nearest row that is not `taken`."""

    def __init__(self, table: Table) -> None:
        self.rungs = (*(rung.cost for rung in table.rungs), 1.0)
        self.taken = np.zeros(len(table), bool)
        self._table = table
        self._places = {key(point): place for place, point in enumerate(table.points)}
        self._options = {name: sorted({point[name] for point in table.points}) for name in table.features}
        self._vectors = encode(table.points)

    def choose(self, ask: Ask) -> int:
        """The place of the row."""
        answers = {name: ask(name, options) for name, options in self._options.items()}
        if (exact := self._places.get(key(answers))) is not None and not self.taken[exact]:
            return exact
        return int(self._nearest(answers, 1)[0])

    def around(self, best: Sequence[Point], rng: random.Random) -> list[Point]:
        """All rows; of large tables some drawn at random, and the ones next to the best."""
        free = np.flatnonzero(~self.taken).tolist()
        if len(free) > MOST_CANDIDATES:
            drawn = rng.sample(free, MOST_CANDIDATES // 2)
            each = MOST_CANDIDATES // 2 // max(1, len(best))
            near = [int(place) for point in best for place in self._nearest(point, each)]
            free = sorted({*drawn, *near})
        return [self._table.points[place] for place in free]

    def kind(self, point: Point) -> None:
        """Rows of a table are all of one kind."""

    def facts(self, point: Point) -> Mapping[str, float]:
        """What the table has of the row with these features."""
        return self._table.facts[self._places[key(point)]]

    def _nearest(self, answers: Point, count: int) -> NDArray[np.int64]:
        place = self._places.get(key(answers))
        if place is None:
            vectors = encode([*self._table.points, answers])
            here, others = vectors[-1], vectors[:-1]
        else:
            here, others = self._vectors[place], self._vectors
        apart = ((others - here) ** 2).sum(axis=1)
        apart[self.taken] = math.inf
        return np.argsort(apart, kind="stable")[:count]


def _split(text: str, mark: str, expected: str) -> tuple[str, float]:
    name, _, number = text.rpartition(mark)
    value = _number(number)
    if not name or not math.isfinite(value):
        raise UserError(f"expected {expected}, got {text!r}; for instance multiply_adds_g=1.51 or miou_cheap:0.06")
    return name, value


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _wanted(name: str, features: str) -> bool:
    patterns = [each.strip() for each in features.split(",") if each.strip()] or ["*"]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _read(file: Path) -> list[Row]:
    """Rows by the names of the header, spaces around cells left out; what separates columns is what the header has."""
    text = read_text(file, "a CSV of trained networks").removeprefix("\ufeff")
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{file}: expected a CSV of trained networks, got one that cannot be read: {error}") from None
    names = [name.strip() for name in lines[0]] if lines else []
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise UserError(f"{file}: expected columns of different names, got {', '.join(twice)} more than once")
    rows: list[Row] = [
        {name: cell.strip() for name, cell in itertools.zip_longest(names, line[: len(names)], fillvalue="") if name}
        for line in lines[1:]
        if any(cell.strip() for cell in line)
    ]
    if not rows or not rows[0]:
        raise UserError(f"{file}: expected a header and at least one row, got none; give a CSV of trained networks")
    return rows


def _rungs(cheap: Sequence[str]) -> list[tuple[float, str]]:
    """Cost and column of each kind of cheap training, the cheapest first."""
    split = (_split(each, ":", "a cheap objective as column:cost") for each in cheap)
    rungs = sorted((cost, name) for name, cost in split)
    steps = {step_of(cost) for cost, _ in rungs}
    if len(steps) < len(rungs) or not all(0 < cost < 1 for cost, _ in rungs):
        raise UserError(
            f"--cheap: expected costs between 0 and 1, each by a thousandth or more other than the rest, got "
            f"{', '.join(cheap)}; a cost is in trainings to the objective"
        )
    return rungs


def _features(
    names: Sequence[str], wanted: str, objective: str, texts: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[Choice]], list[str]]:
    """Answers of each feature, and what is to be said of columns that are none unless they are named."""
    found, notes = {}, []
    words = _words(objective)
    for name in names:
        if not _wanted(name, wanted):
            continue
        answers = _answers(texts[name])
        kinds = len({*answers}) if isinstance(answers[0] if answers else 0, str) else 0
        if not wanted and words and words <= _words(name):
            notes.append(f"{name} is no feature, since it is a score by its name; --cheap or --features name it")
        elif not wanted and kinds > max(FEW_WORDS, len(answers) / 2):
            notes.append(f"{name} is no feature, since most rows have a word of their own there")
        elif kinds > MOST_WORDS:
            raise UserError(
                f"expected at most {MOST_WORDS} different words in a feature, got {kinds} in '{name}'; name others by "
                "--features, or write what the words say into columns"
            )
        else:
            found[name] = answers
    return found, notes


def _words(name: str) -> set[str]:
    """What a column's name says: `miou` and `cheap` of `miou_cheap_16`."""
    return set(re.findall("[a-z]{2,}", name.casefold()))


def _answers(texts: Sequence[str]) -> list[Choice]:
    """Numbers where all that is there are numbers, otherwise words. A number that is missing is the median, a word that
    is missing is a word.
    """
    numbers = np.array([_number(text) for text in texts])
    missing = np.isnan(numbers)
    if missing.all() or any(gone and text.casefold() not in MISSING for text, gone in zip(texts, missing, strict=True)):
        return list(texts)
    numbers[missing] = np.median(numbers[~missing])
    answers: list[Choice] = numbers.tolist()
    return answers


def _quantiles(answers: list[Choice]) -> list[Choice]:
    """Numbers of so many values that each would be a choice of its own, as the nearest quantiles."""
    if len({*answers}) <= MOST_OPTIONS or isinstance(answers[0], str):
        return answers
    numbers = np.array(answers, np.float64)
    kept = np.unique(np.quantile(np.unique(numbers), np.linspace(0, 1, MOST_OPTIONS), method="nearest"))
    nearest_kept: list[Choice] = kept[np.searchsorted((kept[1:] + kept[:-1]) / 2, numbers)].tolist()
    return nearest_kept
