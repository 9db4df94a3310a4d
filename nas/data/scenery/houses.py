"""Patterns of buildings, fences and garden walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.data.scenery.canvas import Colour, Floats, Paint, Pattern, Surface, tint


@dataclass(frozen=True, kw_only=True)
class Facade:
    """How a building looks; lengths in metres."""

    colour: Colour
    brick: bool
    tall: float
    storey: float
    bay: float
    """Distance from window to window."""
    window: tuple[float, float]
    """Width and height as shares of bay and storey."""
    shop: Colour | None
    """Colour of a shop sign above a glazed ground floor."""
    lit: float
    """Share of windows that are lit (at night)."""
    seed: float


def brickwork(surface: Surface, colour: Colour) -> Floats:
    """Courses of bricks with joints where these are visible, (h, w, 3); used for houses and garden walls."""
    course = np.floor(surface.up / 0.16)
    joint = ((surface.up / 0.16) % 1.0 < 0.16) | ((surface.along / 0.4 + 0.5 * (course % 2)) % 1.0 < 0.09)
    uneven = 0.72 + 0.5 * surface.grain.at(surface.along, surface.up, 24.0)
    return tint(colour, uneven * (1.0 + 0.22 * surface.fine(0.16) * joint))


def plaster(surface: Surface, colour: Colour) -> Floats:
    """A smooth wall with stains, (h, w, 3)."""
    stains = surface.grain.at(surface.along, surface.up * 0.3, 5.0)
    return tint(colour, 0.8 + 0.22 * stains + 0.1 * surface.grain.at(surface.along, surface.up, 45.0))


def building(facade: Facade) -> Pattern:
    """A front with windows, shop and roof edge; a share `facade.lit` of the windows shines."""

    def pattern(surface: Surface) -> Paint:
        along, up = surface.along + facade.seed, surface.up
        colour = (brickwork if facade.brick else plaster)(surface, facade.colour)
        storey, bay = np.floor(up / facade.storey), np.floor(along / facade.bay)
        x, y = (along / facade.bay) % 1.0, (up / facade.storey) % 1.0
        width, height = facade.window
        frame = (np.abs(x - 0.5) < width / 2 + 0.03) & (np.abs(y - 0.55) < height / 2 + 0.03)
        pane = (np.abs(x - 0.5) < width / 2) & (np.abs(y - 0.55) < height / 2) & (np.abs(x - 0.5) > 0.015)
        if facade.shop is not None:
            frame &= storey > 0
            pane = np.where(storey > 0, pane, (np.abs(x - 0.5) < 0.44) & (y > 0.12) & (y < 0.72))
        inside = up < facade.tall - 0.5
        frame, pane = frame & inside, pane & inside
        colour[frame] = np.float32(0.62)
        mirrored = 0.10 + 0.28 * surface.grain.at(along, up, 3.0) + 0.05 * y
        colour = np.where(pane[..., None], tint((0.85, 0.95, 1.05), mirrored), colour)
        if facade.shop is not None:
            board = (storey == 0) & (y > 0.76) & (y < 0.97)
            letters = board & (surface.grain.at(along, up, 26.0) > 0.62)
            colour = np.where(board[..., None], np.asarray(facade.shop, dtype=np.float32), colour)
            colour[letters] = np.float32(0.85)
        edge = (up > facade.tall - 0.35) | (np.abs(up - facade.storey) < 0.08)
        colour = np.where(edge[..., None], colour * np.float32(0.7), colour)
        chance = np.modf(np.abs(np.sin(bay * 12.9898 + storey * 78.233 + facade.seed) * 43758.5453))[0]
        shining = pane & (chance < facade.lit)
        glow = np.where(shining[..., None], tint((0.95, 0.75, 0.42), 0.35 + 0.5 * chance), 0.0).astype(np.float32)
        shape = np.ones(up.shape, dtype=bool)
        return Paint(colour=colour.astype(np.float32), shape=shape, glow=glow if facade.lit else None)

    return pattern


def garden_wall(colour: Colour) -> Pattern:
    """A low wall of the same bricks as houses: only height and background show that it is a fence."""

    def pattern(surface: Surface) -> Paint:
        return Paint(colour=brickwork(surface, colour), shape=np.ones(surface.up.shape, dtype=bool))

    return pattern


def rendered_wall(colour: Colour) -> Pattern:
    """A low wall, plastered like some houses."""

    def pattern(surface: Surface) -> Paint:
        return Paint(colour=plaster(surface, colour), shape=np.ones(surface.up.shape, dtype=bool))

    return pattern


def boards(colour: Colour, width: float) -> Pattern:
    """Upright planks."""

    def pattern(surface: Surface) -> Paint:
        plank = np.floor(surface.along / width)
        tone = 0.8 + 0.35 * np.modf(np.abs(np.sin(plank * 91.7) * 1000.0))[0]
        gap = 1.0 - 0.6 * surface.fine(width) * ((surface.along / width) % 1.0 < 0.1)
        wear = 0.8 + 0.35 * surface.grain.at(surface.along * 3.0, surface.up * 0.4, 20.0)
        return Paint(colour=tint(colour, tone * gap * wear), shape=np.ones(surface.up.shape, dtype=bool))

    return pattern


def railings(colour: Colour, tall: float, spacing: float) -> Pattern:
    """Bars with see-through gaps; the gaps are labelled as fence too."""

    def pattern(surface: Surface) -> Paint:
        bar = (surface.along / spacing) % 1.0 < 0.28
        rail = (np.abs(surface.up - tall + 0.06) < 0.05) | (np.abs(surface.up - 0.18) < 0.04)
        whole = np.ones(surface.up.shape, dtype=bool)
        return Paint(colour=tint(colour, np.ones(surface.up.shape, dtype=np.float32)), shape=whole, cover=bar | rail)

    return pattern


def skyline(height: Floats, colour: Colour) -> Pattern:
    """A distant silhouette; `height` in metres, one entry per metre along."""

    def pattern(surface: Surface) -> Paint:
        top = height[np.clip(surface.along.astype(np.int32), 0, len(height) - 1)]
        shade = 0.85 + 0.3 * surface.grain.at(surface.along, surface.up, 1.5)
        return Paint(colour=tint(colour, shade), shape=surface.up < top)

    return pattern
