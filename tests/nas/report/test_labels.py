"""Places of labels in charts: no two overlap, and none is outside the picture."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from matplotlib.transforms import Bbox

from nas.report.labels import LINE_PIXELS, place_label, shortened, spread

BOUNDS = Bbox.from_extents(0, 0, 400, 300)


def test_labels_do_not_overlap_and_stay_inside_the_picture() -> None:
    chance = random.Random(0)
    points = [(chance.uniform(0, 400), chance.uniform(0, 300)) for _ in range(40)]
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    placed = 0
    for number, point in enumerate(points):
        box = place_label(f"network {number}", point, taken, BOUNDS)
        if box is not None:
            assert not [other for other in taken if box.overlaps(other)]
            assert Bbox.union([box, BOUNDS]).bounds == BOUNDS.bounds
            taken.append(box)
            placed += 1
    assert placed >= 10


def test_a_label_takes_the_room_of_its_words() -> None:
    short, long = place_label("iiiiiii", (200, 150), [], BOUNDS), place_label("network", (200, 150), [], BOUNDS)
    bold = place_label("network", (200, 150), [], BOUNDS, bold=True)
    assert short is not None
    assert long is not None
    assert bold is not None
    assert short.width < long.width < bold.width


def test_a_label_without_room_is_not_placed() -> None:
    assert place_label("network", (200, 150), [BOUNDS], BOUNDS) is None
    assert place_label("a network whose name is wider than the picture " * 2, (200, 150), [], BOUNDS) is None


@pytest.mark.parametrize("positions", [[10.0, 12.0, 11.0, 90.0], [99.0, 99.0, 98.0], [0.0, 50.0]])
def test_spread_positions_are_apart_in_the_same_order(positions: list[float]) -> None:
    moved = spread(positions, LINE_PIXELS, 0, 100)
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    gaps = [moved[after] - moved[before] for before, after in pairwise(order)]
    assert all(gap >= LINE_PIXELS - 1e-9 for gap in gaps)
    assert all(0 <= position <= 100 for position in moved)


def test_long_names_are_cut() -> None:
    assert shortened("guided 1", 8) == "guided 1"
    assert shortened("guided 12", 8) == "guided …"
