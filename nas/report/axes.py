"""Scales, ticks and labels of the charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nas.report.markup import Html, element, joined

Scale = Callable[[float], float]

CHARACTER_PIXELS = 6.5  # mean width of a character at 12 pixels
LINE_PIXELS = 14.0
LEADER_PIXELS = 11.0


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Values from `low` to `high` as pixels from `start` to `end`."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """The same by ratio; values are positive."""
    scale = linear(math.log(low), math.log(high), start, end)
    return lambda value: scale(math.log(value))


def even_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round values within a range at a step of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= most)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def ratio_ticks(low: float, high: float, scale: Scale, apart_pixels: float = 44) -> list[float]:
    """Round values within a range for a logarithmic scale, not closer than `apart_pixels`; rounder ones first."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kept: list[float] = []
    for mantissas in ((1.0,), (5.0, 2.0), (3.0, 7.0), (1.5, 4.0), (6.0, 8.0), (2.5, 9.0), (1.2,)):
        for value in (mantissa * 10.0**power for power in powers for mantissa in mantissas):
            if low <= value <= high and all(abs(scale(value) - scale(other)) >= apart_pixels for other in kept):
                kept.append(value)
    return sorted(kept)


def text(x: float, y: float, words: object, kind: str = "", anchor: str = "start") -> Html:
    """Words whose base line is at (x, y)."""
    return element("text", {"x": x, "y": y, "class": kind, "text-anchor": anchor}, words)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    """A line."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def percent_axis(frame: Box, scale: Scale, low: float, high: float, *, written: bool = True) -> Html:
    """Horizontal lines, with values in per cent at the left of `frame` if they are `written`."""
    ticks = even_ticks(low, high)
    decimals = 0 if all(abs(tick * 100 - round(tick * 100)) < 1e-6 for tick in ticks) else 1
    parts = [line(frame.left, scale(tick), frame.right, scale(tick), "grid") for tick in ticks]
    if written:
        parts += [text(frame.left - 8, scale(tick) + 4, f"{tick * 100:.{decimals}f}", "tick", "end") for tick in ticks]
    return joined(parts)


def place_label(words: str, point: tuple[float, float], taken: Sequence[Box], bounds: Box) -> Box | None:
    """Room for words beside a point that overlaps nothing taken; None where there is none.

    Nearest places first: right, left, above, below and between them, then the same farther away.
    """
    width = len(words) * CHARACTER_PIXELS
    x, y = point
    for distance in (10.0, 16.0, 24.0, 34.0, 46.0):
        for across, down in _directions(distance):
            left = x + across if across > 0 else x + across - width
            if across == 0:
                left = min(max(x - width / 2, bounds.left), bounds.right - width)
            middle = y + down
            box = Box(left=left, top=middle - LINE_PIXELS / 2, right=left + width, bottom=middle + LINE_PIXELS / 2)
            if bounds.holds(box) and not any(box.overlaps(other) for other in taken):
                return box
    return None


def label(words: str, box: Box, point: tuple[float, float], kind: str) -> Html:
    """Words in a box, with a thin line to the point that they name when that is not next to them."""
    x = min(max(point[0], box.left), box.right)
    y = min(max(point[1], box.top), box.bottom)
    leader = line(*point, x, y, "leader") if math.hypot(point[0] - x, point[1] - y) > LEADER_PIXELS else Html()
    return joined((leader, text((box.left + box.right) / 2, box.bottom - 3, words, kind, "middle")))


def _directions(distance: float) -> Iterable[tuple[float, float]]:
    slant = distance * 0.75
    if distance < 12:
        yield from ((distance, 0), (-distance, 0))
    yield from ((0, -distance), (0, distance))
    yield from ((slant, -slant), (slant, slant), (-slant, -slant), (-slant, slant))


def spread(positions: Sequence[float], apart_pixels: float, low: float, high: float) -> list[float]:
    """Positions moved as little as a sweep can so that neighbours are apart; the order is kept."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = list(positions)
    floor = low
    for index in order:
        moved[index] = max(moved[index], floor)
        floor = moved[index] + apart_pixels
    ceiling = high
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - apart_pixels
    return moved
