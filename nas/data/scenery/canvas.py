"""A pinhole camera above a flat ground, a depth buffer, and upright surfaces with patterns.

World coordinates are metres: x to the right of the camera, up from the ground, ahead along the viewing direction.
Every standing object consists of upright rectangles. A rectangle's pattern gives colour and shape at points in metres
along the rectangle and above the ground, so perspective and occlusion are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

NEAR = 0.7
"""Metres ahead of the camera where surfaces are clipped."""
FAR = 900.0
"""Depth of the sky in metres."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera. Lengths are in pixels of the (supersampled) canvas, heights above the ground in metres."""

    height_pixels: int
    width_pixels: int
    focal_pixels: float
    horizon_pixels: float
    centre_pixels: float
    eye: float
    """Height above the ground in metres."""
    bend: float
    """Curvature of the street, which is shifted sideways by bend * ahead^2 metres."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The visible points of an upright rectangle."""

    along: Floats
    """(1, w) metres from its first end."""
    up: Floats
    """(h, w) metres above the ground."""
    distance: Floats
    """(1, w) metres ahead of the camera."""
    length: float
    grain: Grain

    def fine(self, metres: float) -> Floats:
        """1 where details of this size are visible, fading to 0 where they would only flicker."""
        fading: Floats = np.clip(2.0 - self.distance / (metres * 180.0), 0.0, 1.0)  # (1, w)
        return fading


@dataclass(frozen=True, kw_only=True)
class Paint:
    """What a pattern returns."""

    colour: Floats
    """(h, w, 3), 0..1."""
    shape: NDArray[np.bool_]
    """(h, w), where the object is, and thus its label."""
    cover: NDArray[np.bool_] | None = None
    """(h, w), where its colour hides what is behind it; None: everywhere in `shape`."""
    glow: Floats | None = None
    """(h, w, 3), light that it emits; None: none."""


Pattern = Callable[[Surface], Paint]


class Grain:
    """Tileable random texture of several octaves, values 0..1 around 0.5."""

    SIDE = 256

    def __init__(self, rng: np.random.Generator) -> None:
        total = np.zeros((self.SIDE, self.SIDE), dtype=np.float32)
        for cells, weight in ((8, 0.30), (32, 0.30), (128, 0.25), (256, 0.15)):
            coarse = rng.random((cells, cells), dtype=np.float32)
            wrapped = np.pad(coarse, 2, mode="wrap")
            step = self.SIDE // cells
            smooth = np.asarray(Image.fromarray(wrapped).resize(((cells + 4) * step,) * 2, Image.Resampling.BILINEAR))
            total += weight * smooth[2 * step : 2 * step + self.SIDE, 2 * step : 2 * step + self.SIDE]
        spread = np.float32(0.22) / total.std()
        self.tile: Floats = np.clip(0.5 + (total - total.mean()) * spread, 0.0, 1.0).astype(np.float32)

    def at(self, first: Floats, second: Floats, per_metre: float) -> Floats:
        """The texture at points in metres, `per_metre` texels to the metre."""
        rows = (second * per_metre).astype(np.int32) & (self.SIDE - 1)
        columns = (first * per_metre).astype(np.int32) & (self.SIDE - 1)
        texels: Floats = self.tile[rows, columns]
        return texels


class Canvas:
    """Colour, emitted light, depth and label of every pixel."""

    def __init__(self, camera: Camera, grain: Grain) -> None:
        shape = (camera.height_pixels, camera.width_pixels)
        self.camera = camera
        self.grain = grain
        self.colour: Floats = np.zeros((*shape, 3), dtype=np.float32)
        self.glow: Floats = np.zeros((*shape, 3), dtype=np.float32)
        self.depth: Floats = np.full(shape, FAR, dtype=np.float32)
        self.label: NDArray[np.uint8] = np.zeros(shape, dtype=np.uint8)
        rows, columns = (np.arange(length, dtype=np.float32) for length in shape)
        self._below = (rows - camera.horizon_pixels)[:, None]  # rows below the horizon, (h, 1)
        self._slope = ((columns - camera.centre_pixels) / camera.focal_pixels)[None]  # of each column's ray, (1, w)

    def stand(
        self,
        ends: tuple[tuple[float, float], tuple[float, float]],
        height: tuple[float, float],
        pattern: Pattern,
        label: int,
        brightness: float = 1.0,
    ) -> None:
        """Paint an upright rectangle between two points (x, ahead) on the ground, from one height to another.

        Rectangles that let the background through must be painted after what is behind them. Otherwise the order does
        not matter, and near to far is fastest.
        """
        camera = self.camera
        visible = _clip(ends)
        if visible is None:
            return
        (x0, z0), (x1, z1) = ends
        columns = _range([camera.centre_pixels + camera.focal_pixels * x / z for x, z in visible], camera.width_pixels)
        rows = _range(
            [camera.horizon_pixels + camera.focal_pixels * (camera.eye - y) / z for y in height for _, z in visible],
            camera.height_pixels,
        )
        if columns.start >= columns.stop or rows.start >= rows.stop:
            return
        slope = self._slope[:, columns]
        across = (x1 - x0) - slope * (z1 - z0)
        part = (slope * z0 - x0) / np.where(np.abs(across) < 1e-6, 1e-6, across)
        distance = (z0 + part * (z1 - z0)).astype(np.float32)
        nearer = (part >= 0) & (part <= 1) & (distance > NEAR) & (distance < self.depth[rows, columns])
        # Most of a street is hidden: heights and patterns are computed only where they may be visible.
        near = _extent(np.any(nearer, axis=0))
        if near is None:
            return
        part, distance = part[:, near], distance[:, near]
        up = (camera.eye - self._below[rows] * distance / camera.focal_pixels).astype(np.float32)
        seen = nearer[:, near] & (up >= height[0]) & (up <= height[1])
        high, wide = _extent(np.any(seen, axis=1)), _extent(np.any(seen, axis=0))
        if high is None or wide is None:
            return
        up, distance, seen = up[high, wide], distance[:, wide], seen[high, wide]
        length = float(np.hypot(x1 - x0, z1 - z0))
        along = (part[:, wide] * length).astype(np.float32)
        paint = pattern(Surface(along=along, up=up, distance=distance, length=length, grain=self.grain))
        view = (
            slice(rows.start + high.start, rows.start + high.stop),
            slice(columns.start + near.start + wide.start, columns.start + near.start + wide.stop),
        )
        self._apply(view, paint, seen, distance, label, brightness)

    def _apply(
        self,
        view: tuple[slice, slice],
        paint: Paint,
        seen: NDArray[np.bool_],
        distance: Floats,
        label: int,
        brightness: float,
    ) -> None:
        shape = seen & paint.shape
        cover = shape if paint.cover is None else seen & paint.cover
        np.copyto(self.label[view], np.uint8(label), where=shape)
        np.copyto(self.depth[view], distance, where=shape)
        np.copyto(self.colour[view], paint.colour * np.float32(brightness), where=cover[..., None])
        if paint.glow is not None:
            np.copyto(self.glow[view], paint.glow, where=cover[..., None])
        elif paint.cover is not None:
            np.copyto(self.glow[view], np.float32(0), where=cover[..., None])


def tint(colour: Colour, amount: Floats) -> Floats:
    """A colour times a brightness (h, w), (h, w, 3)."""
    return amount[..., None] * np.asarray(colour, dtype=np.float32)


def _clip(ends: tuple[tuple[float, float], tuple[float, float]]) -> list[tuple[float, float]] | None:
    """The ends of the part that lies ahead of NEAR; None if there is none."""
    (x0, z0), (x1, z1) = ends
    if max(z0, z1) <= NEAR:
        return None
    clipped = []
    for x, z, other_x, other_z in ((x0, z0, x1, z1), (x1, z1, x0, z0)):
        if z < NEAR:
            part = (NEAR - z) / (other_z - z)
            x, z = x + part * (other_x - x), NEAR
        clipped.append((x, z))
    return clipped


def _range(values: list[float], limit: int) -> slice:
    low, high = math.floor(min(values)), math.ceil(max(values)) + 1
    return slice(min(max(low, 0), limit), min(max(high, 0), limit))


def _extent(present: NDArray[np.bool_]) -> slice | None:
    """From the first to the last true entry; None if there is none."""
    (places,) = present.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else None
