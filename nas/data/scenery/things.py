"""Patterns of objects that stand or move in a street. Sizes are in metres; each function returns a Pattern."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.data.scenery.canvas import Colour, Floats, Paint, Pattern, Surface, tint

Mask = NDArray[np.bool_]

RUBBER: Colour = (0.05, 0.05, 0.055)
GLASS: Colour = (0.10, 0.12, 0.14)


def plain(colour: Colour) -> Pattern:
    """A post or board: one colour, slightly uneven, darker towards its right edge so that it looks round."""

    def pattern(surface: Surface) -> Paint:
        uneven = 0.85 + 0.3 * surface.grain.at(surface.along, surface.up, 60.0)
        shade = uneven * (1.1 - 0.4 * surface.along / surface.length)
        return Paint(colour=tint(colour, shade), shape=np.ones(surface.up.shape, dtype=bool))

    return pattern


def lamp_head(colour: Colour, night: bool) -> Pattern:
    """The box of a street lamp, shining at night."""

    def pattern(surface: Surface) -> Paint:
        shape = np.ones(surface.up.shape, dtype=bool)
        light = tint((1.0, 0.85, 0.55), np.full(surface.up.shape, 1.2, dtype=np.float32)) if night else None
        return Paint(colour=tint(colour, np.full(surface.up.shape, 1.0, dtype=np.float32)), shape=shape, glow=light)

    return pattern


def sign(kind: str, colour: Colour, middle: float) -> Pattern:
    """A traffic sign around height `middle`: "disc", "triangle" or "board", with a rim and some lettering."""

    def pattern(surface: Surface) -> Paint:
        radius = surface.length / 2
        x, y = (surface.along - radius) / radius, (surface.up - middle) / radius
        if kind == "disc":
            edge = np.hypot(x, y)
        elif kind == "triangle":
            edge = np.maximum(-y * 1.6 + 0.0 * x, (np.abs(x) * 1.75 + y) * 0.95)
        else:
            edge = np.maximum(np.abs(x), np.abs(y) * 1.02)
        face = np.where(edge[..., None] < 0.68, np.float32(0.85), np.asarray(colour, dtype=np.float32))
        if kind == "board":
            face = np.where(edge[..., None] < 0.9, np.asarray(colour, dtype=np.float32), np.float32(0.85))
        letters = (edge < 0.6) & (surface.grain.at(surface.along, surface.up, 90.0) > 0.58)
        ink = np.float32(0.1) if kind != "board" else np.float32(0.9)
        return Paint(colour=np.where(letters[..., None], ink, face).astype(np.float32), shape=edge < 1.0)

    return pattern


def traffic_light(bottom: float, lit: int) -> Pattern:
    """A black box with three lamps, of which number `lit` shines (0 red, 1 amber, 2 green)."""
    colours: tuple[Colour, ...] = ((1.0, 0.12, 0.08), (1.0, 0.65, 0.1), (0.1, 0.95, 0.5))

    def pattern(surface: Surface) -> Paint:
        x = surface.along - surface.length / 2
        colour = tint((0.07, 0.07, 0.07), np.ones(surface.up.shape, dtype=np.float32))
        glow = np.zeros_like(colour)
        for lamp, hue in enumerate(colours):
            disc = np.hypot(x, surface.up - (bottom + 0.75 - 0.27 * lamp)) < 0.105
            colour[disc] = np.asarray(hue, dtype=np.float32) * (1.0 if lamp == lit else 0.2)
            if lamp == lit:
                glow[disc] = np.asarray(hue, dtype=np.float32)
        return Paint(colour=colour, shape=np.ones(surface.up.shape, dtype=bool), glow=glow)

    return pattern


def crown(colour: Colour, bottom: float, height: float, density: float, seed: float) -> Pattern:
    """The leaves of a tree: a ragged ellipse with light and dark clumps; low `density` lets the background through."""

    def pattern(surface: Surface) -> Paint:
        radius = surface.length / 2
        x, y = (surface.along - radius) / radius, (surface.up - bottom - height / 2) / (height / 2)
        clumps = surface.grain.at(surface.along + seed, surface.up, 13.0)
        leaves = surface.grain.at(surface.along, surface.up + seed, 38.0)
        reach = x * x + y * y + 1.1 * (clumps - 0.5)
        shape = reach < 0.8
        shade = (0.35 + 0.55 * clumps + 0.75 * (leaves - 0.3)) * (0.85 + 0.25 * y)
        return Paint(colour=tint(colour, np.maximum(shade, 0.08)), shape=shape, cover=shape & (leaves < density))

    return pattern


def hedge(colour: Colour, height: float) -> Pattern:
    """Leaves up to a ragged edge around `height`, in metres."""

    def pattern(surface: Surface) -> Paint:
        clumps = surface.grain.at(surface.along, surface.up, 22.0)
        top = height * (0.82 + 0.36 * (surface.grain.at(surface.along, np.zeros_like(surface.along), 7.0) - 0.5))
        leaves = surface.grain.at(surface.along + 3.0, surface.up, 60.0)
        return Paint(colour=tint(colour, 0.3 + 0.6 * clumps + 0.5 * (leaves - 0.4)), shape=surface.up < top)

    return pattern


def person(tall: float, top: Colour, legs: Colour, skin: Colour, stride: float) -> Pattern:
    """A pedestrian, `tall` metres, standing on the ground in the middle of the surface."""

    def pattern(surface: Surface) -> Paint:
        x, y = surface.along - surface.length / 2, surface.up / tall
        leg = (y < 0.5) & (np.abs(np.abs(x) - stride * (0.55 - y)) < 0.085)
        return _body(surface, x, y, tall, top, legs, skin, leg)

    return pattern


def rider(tall: float, top: Colour, legs: Colour, skin: Colour, frame: Colour, *, sideways: bool) -> Pattern:
    """A person on a bicycle, seen end-on or from the side; person and bicycle together are the bicyclist."""

    def pattern(surface: Surface) -> Paint:
        x, y = surface.along - surface.length / 2, (surface.up - 0.2) / tall
        wheels, bars = _bicycle(surface, x, sideways)
        if sideways:
            x = x + 0.35 * (y - 0.55)
            leg = (y > 0.12) & (y < 0.52) & (np.abs(x - 0.12 * np.sin(y * 14.0)) < 0.08)
        else:
            leg = (y > 0.08) & (y < 0.5) & (np.abs(np.abs(x) - 0.12) < 0.075)
        body = _body(surface, x, y, tall, top, legs, skin, leg)
        colour = np.where(body.shape[..., None], body.colour, np.asarray(frame, dtype=np.float32))
        colour = np.where((wheels & ~body.shape)[..., None], np.asarray(RUBBER, dtype=np.float32), colour)
        return Paint(colour=colour, shape=body.shape | wheels | bars)

    return pattern


def _bicycle(surface: Surface, x: Floats, sideways: bool) -> tuple[Mask, Mask]:
    up = surface.up
    if not sideways:
        handlebar = (np.abs(up - 1.02) < 0.035) & (np.abs(x) < 0.28)
        return (np.abs(x) < 0.045) & (up < 0.72), handlebar
    front, back = np.hypot(x - 0.52, up - 0.35), np.hypot(x + 0.52, up - 0.35)
    wheels = (np.abs(front - 0.31) < 0.05) | (np.abs(back - 0.31) < 0.05)
    tubes = [((-0.52, 0.35), (-0.12, 0.8)), ((-0.12, 0.8), (0.4, 0.8)), ((0.4, 0.85), (0.52, 0.35))]
    tubes += [((-0.52, 0.35), (0.0, 0.33)), ((0.0, 0.33), (0.4, 0.8)), ((0.3, 1.02), (0.5, 1.0))]
    frame = np.zeros(up.shape, dtype=bool)
    for start, end in tubes:
        frame |= _near_line(x, up, start, end) < 0.035
    return wheels, frame


def _near_line(x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float]) -> Floats:
    dx, dy = end[0] - start[0], end[1] - start[1]
    part = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    return np.hypot(x - start[0] - part * dx, y - start[1] - part * dy)


def _body(
    surface: Surface, x: Floats, y: Floats, tall: float, top: Colour, legs: Colour, skin: Colour, leg: Mask
) -> Paint:
    """Head, trunk and arms at heights `y` (0 feet, 1 crown of the head), with the legs in the mask `leg`."""
    head = np.hypot(x, (y - 0.93) * tall) < 0.125
    trunk = (y > 0.46) & (y < 0.84) & (np.abs(x) < 0.15 + 0.13 * np.clip((y - 0.46) / 0.3, 0, 1))
    arms = (y > 0.45) & (y < 0.8) & (np.abs(np.abs(x) - 0.27) < 0.055)
    folds = 0.75 + 0.5 * surface.grain.at(surface.along, surface.up, 50.0)
    colour = tint(legs, folds)
    for mask, hue in ((arms, top), (trunk, top), (head, skin)):
        colour = np.where(mask[..., None], tint(hue, folds), colour)
    return Paint(colour=colour, shape=head | trunk | arms | leg)


def car_end(body: Colour, tall: float, night: bool, *, front: bool) -> Pattern:
    """A car from the front or the back: wheels, body with lamps and number plate, window."""

    def pattern(surface: Surface) -> Paint:
        half = surface.length / 2
        x, up = np.abs(surface.along - half) / half, surface.up
        waist = tall * 0.6
        cabin = (up >= waist) & (x < 0.93 - 0.28 * (up - waist) / (tall - waist))
        lower = (up > 0.28) & (up < waist) & (x < 0.99 - 0.05 * np.abs(up - 0.6))
        wheels = (up <= 0.3) & (x > 0.66) & (x < 0.95)
        sheen = (0.75 + 0.35 * up / tall) * (0.93 + 0.14 * surface.grain.at(surface.along, up, 8.0))
        colour = tint(body, sheen)
        window = cabin & (up > waist + 0.04) & (up < tall - 0.09) & (x < 0.84 - 0.28 * (up - waist) / (tall - waist))
        plate = (np.abs(up - 0.52) < 0.06) & (x < 0.28)
        lamps = (np.abs(up - waist * 0.82) < 0.1) & (x > 0.68) & (x < 0.95)
        lamp: Colour = (0.9, 0.9, 0.82) if front else (0.62, 0.04, 0.03)
        parts: list[tuple[Mask, Colour]] = [(window, GLASS), (plate, (0.8, 0.78, 0.5)), (lamps, lamp)]
        for mask, hue in [*parts, (wheels | (up < 0.36), RUBBER)]:
            colour[mask] = np.asarray(hue, dtype=np.float32)
        reflection = window & (surface.grain.at(surface.along, up, 5.0) > 0.6)
        colour[reflection] += np.float32(0.18)
        glow = np.where(lamps[..., None], tint(lamp, np.full(up.shape, 1.3 if front else 0.8, np.float32)), 0.0)
        return Paint(colour=colour, shape=cabin | lower | wheels, glow=glow.astype(np.float32) if night else None)

    return pattern


def car_side(body: Colour, tall: float, *, box: bool) -> Pattern:
    """A car from the side; `box` is a van or bus, whose windows sit high."""

    def pattern(surface: Surface) -> Paint:
        along, up, length = surface.along, surface.up, surface.length
        waist = tall * (0.5 if box else 0.6)
        slope = (up - waist) / (tall - waist)
        inset = (0.02, 0.06) if box else (0.10, 0.32)
        cabin = (up >= waist) & (along > length * (0.03 + inset[0] * slope))
        cabin &= along < length * (0.97 - 0.12 * (not box) - inset[1] * slope)
        lower = (up > 0.28) & (up < waist) & (along > 0.03) & (along < length - 0.03)
        hub = [np.hypot(along - length * place, up - 0.32) for place in (0.19, 0.80)]
        wheels = (hub[0] < 0.32) | (hub[1] < 0.32)
        sheen = (0.7 + 0.35 * up / tall) * (0.93 + 0.14 * surface.grain.at(along, up, 6.0))
        colour = tint(body, sheen)
        pillars = np.abs((along / length * 5.0) % 1.0 - 0.5) > 0.44
        window = cabin & (slope > 0.12) & (slope < 0.82) & ~pillars
        window &= (along > length * (0.1 + inset[0] * slope)) & (along < length * (0.8 - inset[1] * slope))
        colour[window] = np.asarray(GLASS, dtype=np.float32)
        seams = lower & (np.abs((along / length * 3.3) % 1.0 - 0.5) > 0.485)
        colour[seams] *= np.float32(0.6)
        colour[wheels | (lower & (up < 0.36))] = np.asarray(RUBBER, dtype=np.float32)
        colour[(hub[0] < 0.19) | (hub[1] < 0.19)] = np.float32(0.45)
        return Paint(colour=colour, shape=cabin | lower | wheels)

    return pattern
