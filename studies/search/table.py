"""A table of trained networks that can be searched: rows are networks, columns what was chosen and found."""

from __future__ import annotations

import csv
import fnmatch
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.surrogate.encoding import Point, encode, key
from space import UserError
from space.choices import Ask, Choice
from space.errors import nearest

MOST_OPTIONS = 1024  # of a feature; of more values, so many quantiles
MOST_CANDIDATES = 500  # that a sampler compares at a time


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
    `features`: names or patterns, by commas; else all other columns; `facts`: the same, none if left out.

    Raises: UserError for a column that is not there, or that holds no numbers where it has to; for costs of cheap
    trainings that are not between 0 and 1, or twice the same.
    """
    with file.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    if not rows:
        raise UserError(f"{file}: expected a header and at least one row, got none; give a CSV of trained networks")
    names = [name for name in rows[0] if name]

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
    split = (_split(each, ":", "a cheap objective as column:cost") for each in cheap)
    rungs = sorted(((cost, name) for name, cost in split))
    if len({cost for cost, _ in rungs}) < len(rungs) or not all(0 < cost < 1 for cost, _ in rungs):
        raise UserError(
            f"--cheap: expected costs between 0 and 1, each other than the rest, got {', '.join(cheap)}; a cost is in "
            "trainings to the objective"
        )
    scored = {objective, *(name for _, name in rungs)}
    known = [name for name in names if facts and name not in scored and _wanted(name, facts)]
    left = [name for name in names if name not in {*scored, *limits, *known}]
    chosen = [name for name in left if _wanted(name, features)]
    if not chosen:
        raise UserError(f"{file}: expected a column for --features {features}, got none of {', '.join(left)}")
    sign = -1.0 if minimize else 1.0
    scores = sign * column(objective)
    cheaps = [(cost, sign * column(name)) for cost, name in rungs]
    columns = {name: _feature([row[name] for row in rows]) for name in chosen}
    numbers = {name: column(name) for name in known}
    places, seen, repeated = [], set(), 0
    for place in np.flatnonzero(inside):
        mark = tuple(columns[name][place] for name in chosen)
        repeated += mark in seen
        if mark not in seen:
            places.append(int(place))
        seen.add(mark)
    if len(places) < 2:
        raise UserError(
            f"{file}: expected some networks inside {', '.join(bounds)}, got {len(places)}; raise the bound"
        )
    if not np.isfinite(scores[places]).any():
        raise UserError(f"{file}: expected numbers in the column '{objective}' inside the bounds, got none")
    notes = [f"{repeated} rows repeat the features of another one and are left out"] if repeated else []
    failed = int((~np.isfinite(scores[places])).sum())
    notes += [f"{failed} rows have no {objective}: trainings that fail"] if failed else []
    return Table(
        points=tuple({name: columns[name][place] for name in chosen} for place in places),
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


def _feature(texts: Sequence[str | None]) -> list[Choice]:
    """Numbers where all that is there are numbers, at most as many as there are quantiles; otherwise words. A number
    that is missing is the median, a word that is missing is a word.
    """
    cleaned = [(text or "").strip() for text in texts]
    numbers = np.array([_number(text) for text in cleaned])
    missing = np.isnan(numbers)
    if missing.all() or any(text and gone for text, gone in zip(cleaned, missing, strict=True)):
        return list(cleaned)
    numbers[missing] = np.median(numbers[~missing])
    known = np.unique(numbers)
    if len(known) > MOST_OPTIONS:
        known = np.unique(np.quantile(known, np.linspace(0, 1, MOST_OPTIONS), method="nearest"))
    nearest_known: list[Choice] = known[np.searchsorted((known[1:] + known[:-1]) / 2, numbers)].tolist()
    return nearest_known
