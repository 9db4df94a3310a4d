"""Turning colours into a photograph: sky, haze, night and its lamps, exposure and the camera's imperfections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.scenery.canvas import FAR, Camera, Canvas, Colour, Floats


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Sky, light and air of a picture."""

    night: bool
    sun_side: int
    """Side that the sun shines from: -1 left, 1 right, 0 behind clouds."""
    sky_top: Colour
    sky_bottom: Colour
    clouds: float
    """0 clear to 1 covered."""
    haze_metres: float
    """Distance at which two thirds of the contrast is gone."""
    exposure: float
    cast: Colour
    """Colour of the light."""
    noise: float
    """Standard deviation of the sensor's noise, as a share of full scale."""


def draw_weather(rng: np.random.Generator) -> Weather:
    """Random weather: clear, cloudy, dusk or night."""
    kind = rng.choice(["clear", "cloudy", "dusk", "night"], p=[0.38, 0.32, 0.14, 0.16])
    grey = float(rng.uniform(0.55, 0.9))
    top, bottom = {
        "clear": ((0.28, 0.47, 0.80), (0.72, 0.82, 0.92)),
        "cloudy": ((grey, grey, grey * 1.03), (grey * 1.08, grey * 1.08, grey * 1.08)),
        "dusk": ((0.30, 0.33, 0.50), (0.90, 0.62, 0.42)),
        "night": ((0.03, 0.035, 0.07), (0.16, 0.12, 0.10)),
    }[str(kind)]
    warmth = float(rng.normal(0, 0.05)) + (0.10 if kind == "dusk" else 0.0)
    return Weather(
        night=kind == "night",
        sun_side=int(rng.choice([-1, 1])) if kind in ("clear", "dusk") else 0,
        sky_top=top,
        sky_bottom=bottom,
        clouds=float(rng.uniform(0, 0.7)) if kind != "cloudy" else float(rng.uniform(0.3, 1.0)),
        haze_metres=float(rng.choice([90.0, 200.0, 500.0], p=[0.15, 0.35, 0.5])),
        exposure=float(rng.uniform(0.75, 1.3)) * (0.8 if kind == "dusk" else 1.0),
        cast=(1.0 + warmth, 1.0, 1.0 - warmth),
        noise=float(rng.uniform(0.006, 0.02)) * (1.8 if kind == "night" else 1.0),
    )


def paint_sky(canvas: Canvas, weather: Weather, rng: np.random.Generator) -> None:
    """Paint the sky and its clouds, down to a little below the horizon."""
    camera = canvas.camera
    rows = min(int(camera.horizon_pixels) + 8, camera.height_pixels)
    ys = np.arange(rows, dtype=np.float32)[:, None]
    xs = np.arange(camera.width_pixels, dtype=np.float32)[None]
    part = np.clip(ys / max(camera.horizon_pixels, 1.0), 0.0, 1.0)[..., None]
    sky = (1 - part) * np.asarray(weather.sky_top, np.float32) + part * np.asarray(weather.sky_bottom, np.float32)
    height = np.maximum(camera.horizon_pixels - ys, 4.0) / camera.focal_pixels
    shift = float(rng.uniform(0, 50))
    over = 1.0 / (height + 0.22)  # a flat layer of clouds, lifted so that it does not crowd at the horizon
    cloud = canvas.grain.at(shift + (xs - camera.centre_pixels) / camera.focal_pixels * over, over, 26.0)
    cover = np.clip((cloud - 1.0 + weather.clouds) * 2.5, 0.0, 1.0)[..., None] * (0.15 if weather.night else 0.85)
    bright = np.asarray(weather.sky_bottom, np.float32) * (0.82 + 0.3 * cloud[..., None])
    canvas.colour[:rows] = sky * (1 - cover) + bright * cover


def photograph(
    canvas: Canvas, weather: Weather, lamps: list[tuple[float, float, float]], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The finished picture at half the canvas's size, uint8 (H, W, 3)."""
    # The canvas has twice the size to smooth edges; light varies slowly, so it is computed at the final size.
    lit, glow, depth = _half(canvas.colour), _half(canvas.glow), canvas.depth[::2, ::2]
    solid = depth < FAR
    haze = np.where(solid, 1.0 - np.exp(-depth / weather.haze_metres), 0.0)
    if weather.night:
        lit = np.where(solid[..., None], lit * _lamplight(canvas.camera, depth, lamps), lit) + glow
        haze *= 0.4
    else:
        lit = lit + np.float32(0.3) * glow
    part = haze[..., None].astype(np.float32)
    return _expose(lit * (1 - part) + part * np.asarray(weather.sky_bottom, np.float32), weather, rng)


def _half(pixels: Floats) -> Floats:
    """Means of 2x2 pixels."""
    total = pixels[::2, ::2] + pixels[1::2, ::2]
    total += pixels[::2, 1::2]
    total += pixels[1::2, 1::2]
    return np.asarray(total * np.float32(0.25), dtype=np.float32)


def _lamplight(camera: Camera, depth: Floats, lamps: list[tuple[float, float, float]]) -> Floats:
    """Light per pixel (H, W, 3): a dim sky, street lamps at (x, ahead, height) and the car's own headlights."""
    rows, columns = depth.shape
    depth = np.minimum(depth, 300.0)
    ray = depth / camera.focal_pixels
    x = (2 * np.arange(columns, dtype=np.float32)[None] - camera.centre_pixels) * ray
    up = camera.eye - (2 * np.arange(rows, dtype=np.float32)[:, None] - camera.horizon_pixels) * ray
    warm = np.zeros_like(depth)
    for lamp_x, lamp_z, lamp_up in lamps:
        warm += 14.0 / (8.0 + (x - lamp_x) ** 2 + (depth - lamp_z) ** 2 + (up - lamp_up) ** 2)
    beam = np.exp(-((x / (1.2 + 0.12 * depth)) ** 2)) * np.clip(1.6 - 0.5 * up, 0.1, 1.0)
    beam *= 0.9 / (1 + (depth / 16) ** 2)
    light = np.asarray((0.16, 0.17, 0.21), np.float32) + warm[..., None] * np.asarray((0.8, 0.6, 0.35), np.float32)
    return np.asarray(light + beam[..., None] * np.asarray((0.9, 0.92, 1.0), np.float32), dtype=np.float32)


def _expose(picture: Floats, weather: Weather, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    ys, xs = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    corners = 1.0 - float(rng.uniform(0.0, 0.22)) * (xs**2 + ys**2) / 2
    exposed = picture * np.asarray(weather.cast, np.float32) * (weather.exposure * corners)[..., None]
    exposed = np.where(exposed > 0.8, 0.8 + 0.2 * np.tanh((exposed - 0.8) / 0.25), exposed)  # highlights roll off
    exposed = np.maximum(exposed, 0.0) ** (float(rng.uniform(0.8, 1.05)) * (0.75 if weather.night else 1.0))
    exposed += rng.standard_normal(exposed.shape, dtype=np.float32) * weather.noise
    return np.clip(exposed * 255 + 0.5, 0, 255).astype(np.uint8)


def camera_for(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """A camera on a car's windscreen for pictures of this height and width; the canvas has twice as many pixels."""
    height, width = 2 * size[0], 2 * size[1]
    return Camera(
        height_pixels=height,
        width_pixels=width,
        focal_pixels=float(rng.uniform(0.8, 1.15)) * width,
        horizon_pixels=float(rng.uniform(0.36, 0.52)) * height,
        centre_pixels=float(rng.uniform(0.38, 0.62)) * width,
        eye=float(rng.uniform(1.25, 1.75)),
        bend=float(rng.normal(0, 0.0012)),
    )
