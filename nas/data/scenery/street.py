"""A complete street scene: its picture and its label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.data.scenery import houses, layout
from nas.data.scenery.canvas import Canvas, Grain
from nas.data.scenery.ground import Ground, Shadows, paint_ground
from nas.data.scenery.light import camera_for, draw_weather, paint_sky, photograph
from nas.data.scenery.stage import BUILDING, TREE, VOID, Item, Street


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture, uint8 (H, W, 3), and its label, uint8 (H, W): CamVid's 11 classes, 11 for void.

    The same state of `rng` gives the same scene; `size` is height and width in pixels.
    """
    weather = draw_weather(rng)
    street = Street(rng, weather)
    camera = camera_for(rng, size)
    canvas = Canvas(camera, Grain(rng))
    grass = layout.line_the_street(street)
    layout.furnish(street)
    layout.populate(street)
    ground = _ground(street, grass)
    side = weather.sun_side
    shadows = Shadows(side=side, reach=street.reach, spots=tuple(street.spots), strength=float(rng.uniform(0.4, 0.6)))
    paint_sky(canvas, weather, rng)
    _backdrop(canvas, street)
    paint_ground(canvas, ground, shadows)
    for item in _painting_order(street.items):
        (x0, z0), (x1, z1) = item.ends
        x, ahead = (np.array(middle, dtype=np.float32) for middle in ((x0 + x1) / 2, (z0 + z1) / 2))
        shaded = item.height[0] < 2.0 and bool(shadows.covers(ground, x, ahead))
        light = item.brightness * (1.0 - 0.8 * shadows.strength if shaded else 1.0)
        bent = ((x0 + camera.bend * z0 * abs(z0), z0), (x1 + camera.bend * z1 * abs(z1), z1))
        canvas.stand(bent, item.height, item.pattern, item.label, light)
    lamps = [(x + camera.bend * z * z, z, up) for x, z, up in street.lamps]
    picture = photograph(canvas, weather, lamps, rng)
    label = _with_bonnet(picture, _vote(canvas.label), rng)
    return picture, label


def _painting_order(items: list[Item]) -> list[Item]:
    """Solid objects from near to far, so that hidden ones cost nothing; then see-through ones from far to near."""
    by_distance = sorted(items, key=lambda item: item.ends[0][1] + item.ends[1][1])
    return [item for item in by_distance if item.solid] + [item for item in reversed(by_distance) if not item.solid]


def _ground(street: Street, grass: tuple[bool, bool]) -> Ground:
    """The ground of a street. Road and pavement are greys from the same range: only their position tells them apart."""
    rng = street.rng
    road, pavement = rng.uniform(0.26, 0.46), rng.uniform(0.28, 0.52)
    warm = float(rng.normal(0.0, 0.012))
    return Ground(
        kerbs=street.kerbs,
        walls=street.walls,
        side_roads=tuple(street.side_roads),
        grass=grass,
        road=(float(road), float(road), float(road) * 1.02),
        pavement=(float(pavement) + warm, float(pavement), float(pavement) - warm),
        slab=float(rng.choice([0.0, 0.6, 0.9], p=[0.4, 0.3, 0.3])),
        yellow_lines=bool(rng.random() < 0.35),
        centre_line=(float(rng.uniform(2, 4)), float(rng.uniform(2, 6))) if rng.random() < 0.75 else None,
        crossing=float(rng.uniform(7, 35)) if rng.random() < 0.15 else None,
    )


def _backdrop(canvas: Canvas, street: Street) -> None:
    """Paint distant trees and roofs wherever the street leaves the horizon open."""
    rng = street.rng
    for distance, label, colour, tall in (
        (330.0, BUILDING, (0.42, 0.42, 0.45), 22.0),
        (240.0, TREE, (0.20, 0.28, 0.15), 14.0),
    ):
        steps = rng.uniform(0.1, 1.0, size=30) * (rng.random(30) < 0.75)
        metres = np.linspace(0, 29, int(3 * distance))
        height = steps[metres.astype(int)] if label == BUILDING else np.interp(metres, np.arange(30), steps)
        ends = ((-1.5 * distance, distance), (1.5 * distance, distance))
        canvas.stand(ends, (-1.0, tall), houses.skyline((tall * height).astype(np.float32), colour), label)


def _vote(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label at half the size: the most frequent value of each 2x2 pixels; in a tie, that of the first pixel."""
    first, second, third, fourth = label[::2, ::2], label[::2, 1::2], label[1::2, ::2], label[1::2, 1::2]
    others = np.where((second == third) | (second == fourth), second, np.where(third == fourth, third, first))
    return np.where((first == second) | (first == third) | (first == fourth), first, others).astype(np.uint8)


def _with_bonnet(picture: NDArray[np.uint8], label: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """In some scenes, draw the bonnet of the camera's car into the picture; returns the label, where it is void."""
    if rng.random() > 0.15:
        return label
    height, width = label.shape
    arc = 1.0 - rng.uniform(0.05, 0.1) * (1.0 - 0.5 * np.linspace(-1, 1, width) ** 2)
    own = np.arange(height)[:, None] >= arc[None] * height
    sheen = np.linspace(1.6, 0.7, int(own.any(axis=1).sum()))[:, None, None]
    rows = slice(height - len(sheen), height)
    bonnet = np.clip(sheen * rng.uniform(15, 60) + rng.normal(0, 3, (*picture[rows].shape[:2], 1)), 0, 255)
    picture[rows] = np.where(own[rows, :, None], bonnet, picture[rows])
    return np.where(own, VOID, label).astype(np.uint8)
