"""Placing objects in a street. Each function adds to the Street; distances are in metres ahead of the camera."""

from __future__ import annotations

from nas.data.scenery import houses, things
from nas.data.scenery.canvas import Colour
from nas.data.scenery.stage import (
    BICYCLIST,
    BUILDING,
    CAR,
    CAR_COLOURS,
    CLOTHES,
    FENCE,
    HOUSE_COLOURS,
    LEAVES,
    PEDESTRIAN,
    POLE,
    SIGN,
    SIGNS,
    SKIN,
    TREE,
    VOID,
    Street,
)

END = 130.0
"""Distance at which the houses end; beyond it there is only the backdrop."""


def line_the_street(street: Street) -> tuple[bool, bool]:
    """Add houses, fences, gardens and side roads; returns whether there is grass behind the left and right pavement."""
    rng = street.rng
    green = []
    for side in (-1, 1):
        kind = str(rng.choice(["town", "suburb", "park"], p=[0.4, 0.4, 0.2]))
        green.append(kind != "town")
        ahead = float(rng.uniform(-12, -2))
        while ahead < END:
            length = float(rng.uniform(7, 18))
            if ahead > 4 and rng.random() < 0.13:
                length = float(rng.uniform(6, 9))
                street.side_roads.append((side, ahead, ahead + length))
            elif kind == "town" and rng.random() < 0.82:
                _house(street, side, 0.0, ahead, ahead + length)
            elif kind == "park":
                _garden(street, side, ahead, ahead + length, trees=3)
            else:
                _garden(street, side, ahead, ahead + length, trees=1)
                if kind == "suburb":
                    _house(street, side, float(rng.uniform(3, 7)), ahead + 1, ahead + length - 1)
            ahead += length
    return green[0], green[1]


def _house(street: Street, side: int, back: float, start: float, end: float) -> None:
    rng = street.rng
    storey = float(rng.uniform(2.7, 3.4))
    tall = storey * int(rng.integers(2, 3 if back else 5)) + float(rng.uniform(0.3, 0.8))
    shop = back == 0 and rng.random() < 0.4
    facade = houses.Facade(
        colour=street.pick(HOUSE_COLOURS),
        brick=bool(rng.random() < 0.55),
        tall=tall,
        storey=storey,
        bay=float(rng.uniform(1.8, 3.2)),
        window=(float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.4, 0.62))),
        shop=street.pick(SIGNS + CLOTHES) if shop else None,
        lit=float(rng.uniform(0.1, 0.5)) if street.weather.night else 0.0,
        seed=float(rng.uniform(0, 50)),
    )
    front = (street.walls[0] if side < 0 else street.walls[1]) + side * back
    pattern, light = houses.building(facade), street.facade_light(side)
    street.add(((front, start), (front, end)), (0.0, tall), pattern, BUILDING, light)
    # The end wall that faces the camera; its far corner is hidden by the neighbour or the garden.
    street.add(((front, start), (front + side * 9.0, start)), (0.0, tall), pattern, BUILDING, 0.85)
    shade = street.reach[0 if side < 0 else 1]
    shade[max(int(start), 0) : max(int(end), 0)] = max(tall * float(rng.uniform(0.7, 0.9)) - back, 0.0)


def _garden(street: Street, side: int, start: float, end: float, trees: int) -> None:
    rng = street.rng
    front = street.walls[0] if side < 0 else street.walls[1]
    kind = str(
        rng.choice(["bricks", "render", "boards", "railings", "hedge", "open"], p=[0.22, 0.1, 0.2, 0.2, 0.18, 0.1])
    )
    tall = float(rng.uniform(0.9, 2.1))
    ends, light = ((front, start), (front, end)), street.facade_light(side)
    if kind == "bricks":
        street.add(ends, (0.0, tall), houses.garden_wall(street.pick(HOUSE_COLOURS)), FENCE, light)
    elif kind == "render":
        street.add(ends, (0.0, tall), houses.rendered_wall(street.pick(HOUSE_COLOURS)), FENCE, light)
    elif kind == "boards":
        pattern = houses.boards(street.pick(((0.45, 0.33, 0.22), (0.35, 0.36, 0.34), (0.30, 0.22, 0.16))), 0.16)
        street.add(ends, (0.0, tall), pattern, FENCE, light)
    elif kind == "railings":
        pattern = houses.railings(street.pick(((0.06, 0.07, 0.07), (0.10, 0.22, 0.14), (0.5, 0.5, 0.5))), tall, 0.16)
        street.add(ends, (0.0, tall), pattern, FENCE, light, solid=False)
    elif kind == "hedge":
        street.add(ends, (0.0, tall), things.hedge(street.pick(LEAVES), tall), TREE, light)
    for _ in range(int(rng.integers(0, trees + 2))):
        _tree(street, front + side * float(rng.uniform(1.5, 9)), float(rng.uniform(start, end)))


def _tree(street: Street, x: float, ahead: float) -> None:
    if ahead < 3:
        return
    rng = street.rng
    trunk, bottom, height, width = (
        rng.uniform(0.2, 0.45),
        rng.uniform(1.2, 2.6),
        rng.uniform(2.8, 7),
        rng.uniform(2.6, 6),
    )
    bark = things.plain(street.pick(((0.24, 0.19, 0.15), (0.33, 0.30, 0.26))))
    leaves = things.crown(street.pick(LEAVES), bottom, height, float(rng.uniform(0.55, 1.0)), float(rng.uniform(0, 20)))
    street.add(street.facing(x, ahead, trunk), (0.0, bottom + height * 0.4), bark, TREE, 0.9)
    street.add(
        street.facing(x, ahead - 0.05, width), (bottom - 0.2 * height, bottom + 1.2 * height), leaves, TREE, solid=False
    )
    if street.weather.sun_side:
        away = -street.weather.sun_side * float(rng.uniform(1.0, 4.0))
        street.spots.append((x + away, ahead, width * 0.55, width * 0.5, 0.5))


def furnish(street: Street) -> None:
    """Add lamp posts, traffic signs and lights, bollards, bins and street trees along both kerbs."""
    rng = street.rng
    lamp_side, lamp_step = int(rng.choice([-1, 1])), float(rng.uniform(18, 32))
    ahead = float(rng.uniform(4, 16))
    while ahead < END:
        _lamp_post(street, lamp_side, ahead)
        ahead += lamp_step
    trees = rng.random(2) < 0.35
    for side, kerb in zip((-1, 1), street.kerbs, strict=True):
        ahead = float(rng.uniform(4, 10))
        while ahead < 70:
            x = kerb + side * float(rng.uniform(0.35, 0.7))
            kind = rng.random()
            if kind < 0.40:
                _sign_post(street, x, ahead)
            elif kind < 0.52:
                _traffic_light(street, x, ahead)
            elif kind < 0.66:
                _post(street, x, ahead, float(rng.uniform(0.09, 0.16)), float(rng.uniform(0.8, 1.1)))
            elif kind < 0.76:
                colour = street.pick(((0.12, 0.2, 0.14), (0.1, 0.1, 0.1), (0.45, 0.1, 0.08)))
                street.add(street.facing(x + side * 0.4, ahead, 0.55), (0.0, 1.05), things.plain(colour), VOID)
            elif trees[0 if side < 0 else 1]:
                _tree(street, x + side * 0.5, ahead)
            ahead += float(rng.uniform(4, 14))


def _post(street: Street, x: float, ahead: float, thick: float, tall: float) -> None:
    colour = street.pick(((0.32, 0.33, 0.34), (0.12, 0.13, 0.13), (0.55, 0.55, 0.52), (0.20, 0.26, 0.22)))
    street.add(street.facing(x, ahead, thick), (0.0, tall), things.plain(colour), POLE)


def _lamp_post(street: Street, side: int, ahead: float) -> None:
    rng = street.rng
    tall, arm = float(rng.uniform(5, 8)), float(rng.uniform(0.8, 1.8))
    x = (street.kerbs[0] if side < 0 else street.kerbs[1]) + side * 0.5
    colour: Colour = street.pick(((0.36, 0.37, 0.38), (0.16, 0.18, 0.17)))
    street.add(street.facing(x, ahead, float(rng.uniform(0.14, 0.22))), (0.0, tall), things.plain(colour), POLE)
    tip = x - side * arm
    street.add(street.facing((x + tip) / 2, ahead, arm), (tall - 0.1, tall), things.plain(colour), POLE)
    head = things.lamp_head(colour, street.weather.night)
    street.add(street.facing(tip, ahead - 0.05, 0.6), (tall - 0.18, tall), head, POLE)
    if street.weather.night and ahead < 90:
        street.lamps.append((tip, ahead, tall - 0.3))


def _sign_post(street: Street, x: float, ahead: float) -> None:
    rng = street.rng
    middle, width = float(rng.uniform(2.0, 2.9)), float(rng.uniform(0.6, 0.95))
    kind = str(rng.choice(["disc", "triangle", "board"]))
    _post(street, x, ahead, float(rng.uniform(0.07, 0.11)), middle + width / 2)
    face = things.sign(kind, street.pick(SIGNS), middle)
    street.add(street.facing(x, ahead - 0.05, width), (middle - width / 2, middle + width / 2), face, SIGN)


def _traffic_light(street: Street, x: float, ahead: float) -> None:
    bottom = float(street.rng.uniform(2.1, 2.6))
    _post(street, x, ahead, 0.13, bottom + 0.2)
    face = things.traffic_light(bottom, int(street.rng.integers(3)))
    street.add(street.facing(x, ahead - 0.05, 0.4), (bottom, bottom + 1.0), face, SIGN)


def populate(street: Street) -> None:
    """Add parked and moving cars, and people on foot and on bicycles."""
    rng = street.rng
    busy = float(rng.uniform(0.2, 1.0))
    for side, kerb in zip((-1, 1), street.kerbs, strict=True):
        if rng.random() < 0.6:
            ahead = float(rng.uniform(5, 14))
            while ahead < 90:
                if rng.random() < 0.65:
                    _car(street, kerb - side * 1.1, ahead, front=bool(rng.random() < 0.3))
                ahead += float(rng.uniform(6, 9))
        inside = street.walls[0] if side < 0 else street.walls[1]
        for _ in range(int(rng.poisson(4.5 * busy))):
            _person(street, kerb + side * float(rng.uniform(0.5, abs(inside - kerb) - 0.4)), _near(street, 5, 45))
    lane = (0.0, (street.kerbs[1] + 1.2) / 2 + 0.6)
    if rng.random() < 0.55:
        _car(street, float(rng.normal(lane[0], 0.25)), _near(street, 9, 60), front=False)
    for _ in range(int(rng.poisson(1.2))):
        _car(street, float(rng.normal(lane[1], 0.2)), _near(street, 9, 80), front=True)
    for _ in range(int(rng.poisson(0.9))):
        _rider(street, float(rng.uniform(street.kerbs[0] + 0.5, street.kerbs[1] - 0.5)), _near(street, 6, 35))
    for _ in range(int(rng.poisson(0.5))):
        _person(street, float(rng.uniform(street.kerbs[0], street.kerbs[1])), _near(street, 8, 35))


def _near(street: Street, first: float, last: float) -> float:
    """A random distance, uniform in its logarithm, so that sizes in the picture vary evenly."""
    return float(first * (last / first) ** street.rng.random())


def _car(street: Street, x: float, ahead: float, *, front: bool) -> None:
    rng = street.rng
    box = bool(rng.random() < 0.14)
    width, tall = (2.05, float(rng.uniform(2.1, 2.9))) if box else (1.76, float(rng.uniform(1.38, 1.62)))
    length = float(rng.uniform(4.8, 9)) if box else float(rng.uniform(3.7, 4.7))
    colour = street.pick(CAR_COLOURS)
    end = things.car_end(colour, tall, street.weather.night, front=front)
    street.add(street.facing(x, ahead, width), (0.0, tall), end, CAR)
    visible = x + width / 2 if x < 0 else x - width / 2
    flank = ((visible, ahead + 0.05), (visible, ahead + length))
    street.add(flank, (0.0, tall), things.car_side(colour, tall, box=box), CAR, street.facade_light(1 if x > 0 else -1))
    street.spots.append((x, ahead + length / 2, width * 0.62, length * 0.56, 0.75))


def _person(street: Street, x: float, ahead: float) -> None:
    rng = street.rng
    tall = float(rng.uniform(1.1, 1.3) if rng.random() < 0.1 else rng.uniform(1.55, 1.92))
    stride = float(rng.uniform(0.15, 0.5))
    body = things.person(tall, street.pick(CLOTHES), street.pick(CLOTHES), street.pick(SKIN), stride)
    street.add(street.facing(x, ahead, 0.75), (0.0, tall), body, PEDESTRIAN)
    street.spots.append((x, ahead, 0.4, 0.35, 0.5))


def _rider(street: Street, x: float, ahead: float) -> None:
    rng = street.rng
    sideways, tall = bool(rng.random() < 0.35), float(rng.uniform(1.6, 1.85))
    clothes = street.pick(CLOTHES), street.pick(CLOTHES), street.pick(SKIN), street.pick(CAR_COLOURS)
    body = things.rider(tall, *clothes, sideways=sideways)
    street.add(street.facing(x, ahead, 1.9 if sideways else 0.75), (0.0, tall + 0.2), body, BICYCLIST)
    street.spots.append((x, ahead, 0.8 if sideways else 0.3, 0.4 if sideways else 0.9, 0.5))
