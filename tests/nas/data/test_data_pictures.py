"""Overlays and rows of pictures."""

from __future__ import annotations

import numpy as np

from nas.data.pictures import overlay

PALETTE = ((255, 0, 0), (0, 0, 200))
IMAGE = np.full((2, 2, 3), 100, dtype=np.uint8)
LABEL = np.array([[0, 1], [1, 255]], dtype=np.uint8)


def test_an_overlay_mixes_colours_and_leaves_void_unchanged() -> None:
    mixed = overlay(IMAGE, LABEL, PALETTE, opacity=0.25)
    assert mixed.dtype == np.uint8
    assert mixed[0, 0].tolist() == [139, 75, 75]
    assert mixed[1, 1].tolist() == [100, 100, 100]


def test_opacity_goes_from_the_image_to_the_colours() -> None:
    assert (overlay(IMAGE, LABEL, PALETTE, opacity=0.0) == IMAGE).all()
    painted = overlay(IMAGE, LABEL, PALETTE, opacity=1.0)
    assert painted.tolist() == [[[255, 0, 0], [0, 0, 200]], [[0, 0, 200], [100, 100, 100]]]
