"""`Space`: the published architectures and all those between them, as a sequence of questions.

`Space.choose(ask)` asks for one value after the other. Each list of options holds only values that can still lead to a
valid architecture, so any sequence of answers can be built. Samplers answer the questions; this module does not know
them. The answers, value by name, are a *genotype*; `Space.genotype` finds the answers that describe a given
architecture.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from space.answers import answers_of
from space.architecture import Architecture
from space.axes import check_text, ranges
from space.choices import NEWER, Ask, Choice, Genotype, Questioner, answer_of, is_list, numbers
from space.errors import ArchitectureError, nearest
from space.questions import ask as ask_questions

ALIKE = ("align_corners", "auxiliary", "bias", "decoder.taps", "stem.bias", "stem.image_average")
"""Prefixes of questions whose answers hardly matter to a search: networks that differ only in these count as alike."""
EXACT = (
    "levels", "stages", "stem.convolutions", "stem.halvings", ".stride", "decoder.finest", "decoder.tap",
    "label_stride", "head.shuffle",
)  # fmt: skip
"""Suffixes of numeric questions for which no other value counts as close."""
CLOSE = 1.0  # octaves, the largest distance between close numbers: 12 blocks are not close to 2
MISSING = 2.0  # octaves that count for a number that only one of two lists has


@dataclass(frozen=True, kw_only=True)
class Space:
    """A set of architectures.

    `ranges` narrows or replaces the options of some axes (names and defaults: `space.axes.ranges`). `size` is the
    (height, width) of the networks' input: dilation rates and pooling grids larger than a feature map are not offered.

    Raises: ArchitectureError for an unknown axis, an empty range, or an option that the axis cannot have.
    """

    ranges: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)
    size: tuple[int, int] = (360, 480)

    def __post_init__(self) -> None:
        known = ranges()
        for name, options in self.ranges.items():
            if name not in known:
                raise ArchitectureError(f"space: no axis is called '{name}'; {nearest(name, known)}")
            if not options:
                raise ArchitectureError(f"space.{name}: expected at least one option, got none")
            for option in options:
                kinds = {type(each) for each in known[name]}
                if type(option) not in kinds:
                    expected = known[name][0]
                    raise ArchitectureError(f"space.{name}: expected values like {expected!r}, got {option!r}")
                check_text(name, option)
        if min(self.size) < 1:
            raise ArchitectureError(f"space.size: expected a height and a width of at least 1, got {self.size}")

    def options(self, axis: str) -> tuple[Choice, ...]:
        """The options of an axis."""
        return tuple(self.ranges[axis] if axis in self.ranges else ranges()[axis])

    def choose(self, ask: Ask) -> Architecture:
        """The architecture described by the answers of `ask(name, options)`.

        Raises: ArchitectureError when no option of an axis is possible after the answers so far.
        """
        return ask_questions(Questioner(self.options, self.size, ask))

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture; the options of each question are equally likely."""
        return self.choose(lambda name, options: rng.choice(options))

    def closest_genotype(self, architecture: Architecture) -> dict[str, Choice] | None:
        """The answers nearest to `architecture`: its own values if this space offers them, else the closest numbers.

        None if the result would not be close enough for measurements of `architecture` to hold roughly for it too, or
        if narrow ranges make some question unanswerable.
        """
        values = answers_of(architecture)
        answers: dict[str, Choice] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            answers[name] = _closest(values.get(name, options[0]), options)
            return answers[name]

        try:
            found = answers_of(self.choose(ask))
        except ArchitectureError:
            return None
        asked = (name for name in values if name in found and not name.startswith(ALIKE))
        return answers if all(_is_close(name, values[name], found[name]) for name in asked) else None

    def carried(self, genotype: Genotype, other: Space) -> dict[str, Choice] | None:
        """The answers in this space for the architecture that a genotype describes in another space; None if there are
        none. The genotype may lack questions with a single option there, and axes that searches got later (`OPENED`).
        """
        try:
            return self.genotype(other.choose(functools.partial(answer_of, genotype)))
        except ArchitectureError:
            return None

    def point(self, genotype: Genotype, architecture: Architecture | None = None) -> dict[str, Choice] | None:
        """The answers in this space for a genotype of an earlier run, when the space may have been different; None if
        its network is no longer part of the space. `architecture`: the network built from the genotype, at any width,
        which supplies the values of axes that were not asked then.
        """
        known = {} if architecture is None else answers_of(architecture)
        answers = {**{axis: known[axis] for axis in NEWER if axis in known}, **genotype}
        asked: dict[str, Choice] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            asked[name] = answer_of(answers, name, options)
            return asked[name]

        try:
            found = answers_of(self.choose(ask))
        except ArchitectureError:
            return None
        return asked if all(found[axis] == answers[axis] for axis in NEWER if axis in answers) else None

    def genotype(self, architecture: Architecture) -> dict[str, Choice]:
        """The answers that describe `architecture`.

        Raises: ArchitectureError naming the first value that this space does not offer.
        """
        values = answers_of(architecture)
        answers: dict[str, Choice] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            value = values.get(name, "nothing")
            if value not in options:
                raise ArchitectureError(f"space: {name} = {value!r} is not among {list(options)} here")
            answers[name] = value
            return value

        if self.choose(ask) != architecture:
            raise ArchitectureError("space: the architecture has values that no axis of this space describes")
        return answers


def _closest(value: Choice, options: Sequence[Choice]) -> Choice:
    if value in options:
        return value
    near = [option for option in options if _distance(value, option) < math.inf]
    return min(near, key=lambda option: _distance(value, option), default=options[0])


def _is_close(name: str, value: Choice, found: Choice) -> bool:
    """Whether one answer is close to another. Fractions, which matter in training only, always are."""
    if value == found or isinstance(value, float):
        return True
    return not name.endswith(EXACT) and _distance(value, found) <= CLOSE


def _distance(value: Choice, other: Choice) -> float:
    """Distance of two answers in octaves; of lists, the mean over their numbers, with `MISSING` for unpaired ones.
    Infinite between different answers that are not positive numbers.
    """
    if value == other:
        return 0.0
    if isinstance(value, str) and isinstance(other, str) and is_list(value) and is_list(other):
        lists = numbers(value), numbers(other)
        longest = max(map(len, lists))
        both = sum(_distance(*pair) for pair in zip(*lists, strict=False))
        return (both + MISSING * (longest - min(map(len, lists)))) / longest
    if isinstance(value, (str, bool)) or isinstance(other, (str, bool)) or min(value, other) <= 0:
        return math.inf
    return abs(math.log2(value / other))
