"""Finds options that no network of a space has, by drawing networks: what is asked depends on earlier answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from space.choices import Axes, Choice, Questioner
from space.errors import ArchitectureError
from space.questions import ask
from space.search_space import Space

DRAWS = 300
MOST_REFUSED = 1500  # draws whose answers lead to no network
FEWEST = 50  # networks; from fewer, nothing is concluded about options
WITHOUT: Mapping[str, tuple[Choice, str]] = {
    "detail": ("none", "a detail branch needs a network without a decoder, and blocks that can open at stride 1"),
    "context": ("none", "a context needs a ladder decoder or, as a pyramid, a network without a decoder"),
    "fuse": ("none", "a fusion needs a downsampler's output, and down block has no downsampler"),
    "factorization": ("none", "none of these blocks can be factorized"),
}
"""By axis, the value of networks for which the axis is not asked, and the reason that it was never asked. Where an axis
is possible, it is asked for at least one network in twelve, so that its absence means something. `levels` is left out:
image pyramids are too rare for that.
"""


class _Recorder(Questioner):
    """Answers at random and records the answers by axis."""

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
    """Draw random networks of a space: returns their number and, for each of `axes`, the options that none of them has.

    Axes whose options all occurred are left out. The result is empty if too few draws succeed to tell.

    Raises: ArchitectureError when every draw fails, or when no network can have any option that an axis is limited to.
    """
    chance, found = random.Random(0), dict[str, set[Choice]]()
    drawn = refused = 0
    while drawn < DRAWS and refused < MOST_REFUSED:
        recorder = _Recorder(space, chance)
        try:
            ask(recorder)
        except ArchitectureError as error:
            refused += 1
            if refused == DRAWS and not drawn:
                words = f"{error} (all {DRAWS} draws failed; this is the last error)"
                raise ArchitectureError(words) from None
            continue
        drawn += 1
        for axis, answers in recorder.found.items():
            found.setdefault(axis, set()).update(answers)
    if drawn < FEWEST:
        return drawn, {}
    for axis, (value, why) in WITHOUT.items():
        options = space.options(axis)
        if axis not in found and value not in options:
            raise ArchitectureError(
                f"space.{axis}: no network of this space can have one of {list(options)}: {why}; add {value}, or "
                "widen the axes that rule it out"
            )
    missing = {axis: tuple(each for each in space.options(axis) if each not in found.get(axis, ())) for axis in axes}
    return drawn, {axis: options for axis, options in missing.items() if options}
