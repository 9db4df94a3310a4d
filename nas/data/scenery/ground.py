"""The ground of a street: which points are road, pavement or grass, how they look, and where shadows fall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.scenery.canvas import Camera, Canvas, Colour, Floats

ROAD, PAVEMENT, GREEN = 3, 4, 5
"""Labels of the ground; grass counts as vegetation, like trees."""

GRASS: Colour = (0.24, 0.33, 0.13)

DEPTH_METRES = 400
"""How far ahead the ground is drawn."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A road along the viewing direction. x is metres to the right of the camera, before the street's bend."""

    kerbs: tuple[float, float]
    walls: tuple[float, float]
    """x where the left and the right pavement end."""
    side_roads: tuple[tuple[int, float, float], ...]
    """Side (-1 left, 1 right), first and last metre ahead."""
    grass: tuple[bool, bool]
    """Whether there is grass behind the left and the right pavement; otherwise the ground is paved."""
    road: Colour
    pavement: Colour
    slab: float
    """Metres between the joints of the pavement; 0: asphalt."""
    yellow_lines: bool
    centre_line: tuple[float, float] | None
    """Lengths of dash and gap in metres; None: no line."""
    crossing: float | None
    """Metres ahead at which a zebra crossing begins; None: no crossing."""


@dataclass(frozen=True, kw_only=True)
class Shadows:
    """Where the sun does not reach the ground."""

    side: int
    """Side that the sun shines from: -1 left, 1 right, 0 no sun."""
    reach: tuple[Floats, Floats]
    """How far, in metres, the shadows of the left and right houses reach into the street; one entry per metre ahead."""
    spots: tuple[tuple[float, float, float, float, float], ...]
    """x, ahead, half width, half length, depth (0..1) of soft shadows under cars, people and trees."""
    strength: float

    def covers(self, ground: Ground, x: Floats, ahead: Floats) -> NDArray[np.bool_]:
        """Whether points lie in the shadow of a house."""
        if self.side == 0:
            return np.zeros(np.broadcast(x, ahead).shape, dtype=bool)
        metre = np.clip(ahead, 0, DEPTH_METRES - 1).astype(np.int32)
        reach = self.reach[0 if self.side < 0 else 1][metre]
        edge = ground.walls[0] + reach if self.side < 0 else ground.walls[1] - reach
        return np.asarray(x < edge if self.side < 0 else x > edge)


def paint_ground(canvas: Canvas, ground: Ground, shadows: Shadows) -> None:
    """Paint road, pavements and the ground beyond them, shadows included."""
    camera = canvas.camera
    first = max(int(np.ceil(camera.horizon_pixels + camera.focal_pixels * camera.eye / DEPTH_METRES)), 0)
    if first >= camera.height_pixels:
        return
    ys = np.arange(first, camera.height_pixels, dtype=np.float32)[:, None]
    xs = np.arange(camera.width_pixels, dtype=np.float32)[None]
    ahead = (camera.focal_pixels * camera.eye / (ys - camera.horizon_pixels)).astype(np.float32)  # (h, 1)
    x = ((xs - camera.centre_pixels) * ahead / camera.focal_pixels - camera.bend * ahead**2).astype(np.float32)
    road, pavement = _regions(ground, x, ahead)
    coarse, detail = canvas.grain.at(x, ahead, 2.3), canvas.grain.at(x, ahead, 31.0)
    tone = 0.78 + 0.22 * coarse + 0.22 * detail
    tone = np.where(pavement, tone * _joints(ground, x, ahead), tone)
    for side, kerb in zip((-1, 1), ground.kerbs, strict=True):
        outside = (x - kerb) * side
        tone[pavement & (outside < 0.16)] *= np.float32(1.22)
        tone[road & (outside > -0.14) & (outside <= 0.0)] *= np.float32(0.72)
    green = ~road & ~pavement
    tone[green] = (0.35 + 0.7 * coarse + 0.5 * detail)[green]
    colours = np.asarray((ground.road, ground.pavement, GRASS), dtype=np.float32)
    colour = colours[pavement + 2 * green.astype(np.int8)] * tone[..., None]
    _mark(colour, road, ground, x, ahead, coarse)
    colour *= _shade(canvas.camera, ground, shadows, x, ahead)[..., None]
    canvas.colour[first:] = colour
    canvas.depth[first:] = ahead
    canvas.label[first:] = np.where(road, ROAD, np.where(pavement, PAVEMENT, GREEN))


def _regions(ground: Ground, x: Floats, ahead: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    road = (x > ground.kerbs[0]) & (x < ground.kerbs[1])
    behind = (x < ground.walls[0]) & ground.grass[0] | (x > ground.walls[1]) & ground.grass[1]
    for side, start, end in ground.side_roads:
        kerb = ground.kerbs[0] if side < 0 else ground.kerbs[1]
        beyond = (x <= kerb) if side < 0 else (x >= kerb)
        # Corners are rounded: the mouth of a side road is wider at the kerb.
        rounding = 2.5 * np.exp(-np.abs(x - kerb) / 1.2)
        road |= beyond & (ahead > start - rounding) & (ahead < end + rounding)
        behind &= ~(beyond & (ahead > start - 2.5) & (ahead < end + 2.5))
    return road, ~road & ~behind


def _joints(ground: Ground, x: Floats, ahead: Floats) -> Floats:
    if not ground.slab:
        return np.ones_like(x)
    fade = np.clip(1.6 - ahead / (ground.slab * 22.0), 0.0, 1.0)
    row = np.floor(ahead / ground.slab)
    joint = (ahead / ground.slab % 1.0 < 0.08) | ((x / ground.slab + 0.5 * (row % 2)) % 1.0 < 0.06)
    slabs = np.modf(np.abs(np.sin(row * 12.99 + np.floor(x / ground.slab + 0.5 * (row % 2)) * 78.2) * 4375.85))[0]
    return np.asarray(1.0 + fade * (0.14 * (slabs - 0.5) - 0.25 * joint), dtype=np.float32)


def _mark(colour: Floats, road: NDArray[np.bool_], ground: Ground, x: Floats, ahead: Floats, coarse: Floats) -> None:
    worn = coarse < 0.78
    main = road & (x > ground.kerbs[0]) & (x < ground.kerbs[1])
    middle = (ground.kerbs[0] + ground.kerbs[1]) / 2
    if ground.centre_line is not None:
        dash, gap = ground.centre_line
        line = main & worn & (np.abs(x - middle) < 0.07) & (ahead % (dash + gap) < dash)
        colour[line] = np.float32(0.82)
    if ground.yellow_lines:
        inside = np.minimum(x - ground.kerbs[0], ground.kerbs[1] - x)
        lines = main & worn & ((np.abs(inside - 0.3) < 0.05) | (np.abs(inside - 0.5) < 0.05))
        colour[lines] = np.asarray((0.75, 0.62, 0.2), dtype=np.float32)
    if ground.crossing is not None:
        stripes = main & (ahead > ground.crossing) & (ahead < ground.crossing + 3.2) & (x % 1.2 < 0.6)
        colour[stripes & worn] = np.float32(0.8)


def _shade(camera: Camera, ground: Ground, shadows: Shadows, x: Floats, ahead: Floats) -> Floats:
    light = np.ones(x.shape, dtype=np.float32)
    for spot_x, spot_z, half_width, half_length, depth in shadows.spots:
        rows = np.flatnonzero(np.abs(ahead[:, 0] - spot_z) < half_length * 1.5)
        if not len(rows):
            continue
        part = ahead[rows[0] : rows[-1] + 1]
        edges = np.concatenate([(spot_x + side * half_width + camera.bend * part**2) / part for side in (-1.5, 1.5)])
        columns = np.clip(camera.centre_pixels + camera.focal_pixels * edges, 0, camera.width_pixels).astype(int)
        view = (slice(rows[0], rows[-1] + 1), slice(columns.min(), columns.max() + 1))
        off = ((x[view] - spot_x) / half_width) ** 4 + ((part - spot_z) / half_length) ** 4
        light[view] *= 1.0 - depth / (1.0 + off**2)
    light *= np.where(shadows.covers(ground, x, ahead), np.float32(1.0 - shadows.strength), np.float32(1.0))
    return light
