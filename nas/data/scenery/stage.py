"""A street while objects are placed in it: the objects so far, their shadows and lamps, and colours to pick from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.data.scenery.canvas import Colour, Pattern
from nas.data.scenery.ground import DEPTH_METRES
from nas.data.scenery.light import Weather

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(12)

HOUSE_COLOURS: tuple[Colour, ...] = (
    (0.52, 0.27, 0.20), (0.62, 0.42, 0.28), (0.72, 0.66, 0.52), (0.78, 0.76, 0.72), (0.45, 0.44, 0.43),
    (0.58, 0.50, 0.44), (0.34, 0.25, 0.22), (0.66, 0.55, 0.40), (0.50, 0.55, 0.60),
)  # fmt: skip
CAR_COLOURS: tuple[Colour, ...] = (
    (0.75, 0.76, 0.78), (0.12, 0.12, 0.13), (0.42, 0.44, 0.46), (0.50, 0.07, 0.07), (0.10, 0.17, 0.40),
    (0.85, 0.85, 0.83), (0.20, 0.30, 0.22), (0.62, 0.55, 0.40), (0.28, 0.30, 0.33),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (0.12, 0.12, 0.15), (0.16, 0.20, 0.35), (0.45, 0.12, 0.12), (0.62, 0.60, 0.55), (0.30, 0.34, 0.24),
    (0.40, 0.33, 0.27), (0.75, 0.73, 0.70), (0.70, 0.55, 0.12), (0.24, 0.42, 0.48),
)  # fmt: skip
SKIN: tuple[Colour, ...] = ((0.80, 0.62, 0.50), (0.62, 0.44, 0.33), (0.35, 0.23, 0.17))
LEAVES: tuple[Colour, ...] = ((0.22, 0.34, 0.12), (0.30, 0.38, 0.16), (0.16, 0.26, 0.14), (0.45, 0.36, 0.14))
SIGNS: tuple[Colour, ...] = ((0.72, 0.06, 0.06), (0.06, 0.20, 0.60), (0.05, 0.35, 0.20), (0.80, 0.65, 0.10))


@dataclass(frozen=True, kw_only=True)
class Item:
    """An upright rectangle between two points (x before the street's bend, ahead)."""

    ends: tuple[tuple[float, float], tuple[float, float]]
    height: tuple[float, float]
    pattern: Pattern
    label: int
    brightness: float = 1.0
    solid: bool = True
    """Whether it hides everything behind it."""


class Street:
    """Collects the objects in a street, with their shadows and lamps."""

    def __init__(self, rng: np.random.Generator, weather: Weather) -> None:
        self.rng = rng
        self.weather = weather
        self.items: list[Item] = []
        self.spots: list[tuple[float, float, float, float, float]] = []
        self.lamps: list[tuple[float, float, float]] = []
        self.reach = (np.zeros(DEPTH_METRES, dtype=np.float32), np.zeros(DEPTH_METRES, dtype=np.float32))
        self.side_roads: list[tuple[int, float, float]] = []
        lanes = float(rng.uniform(2.8, 3.6))
        self.kerbs = (-lanes * float(rng.uniform(0.45, 0.75)) - 0.4, lanes * float(rng.uniform(1.2, 2.2)))
        widths = rng.uniform(1.6, 4.5, size=2)
        self.walls = (self.kerbs[0] - float(widths[0]), self.kerbs[1] + float(widths[1]))

    def pick(self, colours: tuple[Colour, ...]) -> Colour:
        """One of the colours, varied a little."""
        colour, change = colours[self.rng.integers(len(colours))], self.rng.normal(0, 0.03, 3)
        red, green, blue = (min(max(part + by, 0.0), 1.0) for part, by in zip(colour, change.tolist(), strict=True))
        return red, green, blue

    def add(
        self,
        ends: tuple[tuple[float, float], tuple[float, float]],
        height: tuple[float, float],
        pattern: Pattern,
        label: int,
        brightness: float = 1.0,
        *,
        solid: bool = True,
    ) -> None:
        """Add an upright rectangle; see Item."""
        self.items.append(
            Item(ends=ends, height=height, pattern=pattern, label=label, brightness=brightness, solid=solid)
        )

    def facing(self, x: float, ahead: float, width: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """The ends of a rectangle that faces the camera."""
        return (x - width / 2, ahead), (x + width / 2, ahead)

    def facade_light(self, side: int) -> float:
        """Brightness of the house fronts on one side; those on the sun's side face away from it."""
        if self.weather.sun_side == 0:
            return 0.92
        return 0.58 if side == self.weather.sun_side else 1.12
