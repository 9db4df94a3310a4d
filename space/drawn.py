"""Which options of a space are in its networks: found by drawing some, since what is asked hangs on earlier answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from space.choices import Axes, Choice, Questioner
from space.errors import ArchitectureError
from space.questions import ask
from space.search_space import Space

DRAWS = 300
MOST_REFUSED = 1500  # that answers leave no way on from
FEWEST = 50  # networks, below which nothing is said about options
WITHOUT: Mapping[str, tuple[Choice, str]] = {
    "detail": ("none", "a detail branch stands where there is no decoder, beside blocks that can open at stride 1"),
    "context": ("none", "a context starts a ladder, or is a pyramid where there is no decoder"),
    "fuse": ("none", "a fusion joins what a downsampler gives, and there is none with down block"),
    "factorization": ("none", "none of these blocks is factorized"),
}
"""What networks have of axes that they are not asked, and why they are not. Each is asked of one network in
twelve or more, where it can be at all; image pyramids are too rare to be refused for that."""


class _Heard(Questioner):
    """Remembers which options networks have, by axis."""

    def __init__(self, space: Space, chance: random.Random) -> None:
        super().__init__(space.options, space.size, lambda name, options: chance.choice(options))
        self.found: dict[str, set[Choice]] = {}

    def pick(self, name: str, axis: str, allowed: Callable[[Choice], bool] | None = None) -> Choice:
        answer = super().pick(name, axis, allowed)
        self.found.setdefault(axis, set()).add(answer)
        return answer

    def pick_newer(self, axis: str, allowed: Callable[[Choice], bool] | None = None) -> Choice:
        answer = super().pick_newer(axis, allowed)
        self.found.setdefault(axis, set()).add(answer)
        return answer


def never_drawn(space: Space, axes: Iterable[str]) -> tuple[int, Axes]:
    """How many random networks of a space were drawn, and of each of `axes` the options that none of them has, where
    there are such; all where none is asked. None are told where nearly every draw is refused.

    Raises: ArchitectureError when every draw is refused, and where networks cannot have what an axis holds them to.
    """
    chance, found = random.Random(0), dict[str, set[Choice]]()
    drawn = refused = 0
    while drawn < DRAWS and refused < MOST_REFUSED:
        heard = _Heard(space, chance)
        try:
            ask(heard)
        except ArchitectureError as error:
            refused += 1
            if refused == DRAWS and not drawn:
                words = f"{error} (so ended the last of {DRAWS} draws, and all before it alike)"
                raise ArchitectureError(words) from None
            continue
        drawn += 1
        for axis, answers in heard.found.items():
            found.setdefault(axis, set()).update(answers)
    if drawn < FEWEST:
        return drawn, {}
    for axis, (value, why) in WITHOUT.items():
        options = space.options(axis)
        if axis not in found and value not in options:
            raise ArchitectureError(
                f"space.{axis}: no network of this space can have one of {list(options)}, for {why}; add {value}, or "
                "open the axes that stand in its way"
            )
    missing = {axis: tuple(each for each in space.options(axis) if each not in found.get(axis, ())) for axis in axes}
    return drawn, {axis: options for axis, options in missing.items() if options}
