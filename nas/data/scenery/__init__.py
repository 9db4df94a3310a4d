"""Street scenes drawn from a random generator: the world behind the data set `road_scenes`.

    image, label = draw_scene(numpy.random.default_rng(0), (180, 240))

canvas.py   camera, depth buffer, and the one primitive: an upright surface with a pattern
ground.py   road, pavement, grass, markings and what casts shadows on them
houses.py   patterns of buildings, fences, walls and hedges
things.py   patterns of cars, people, bicycles, trees, poles and signs
stage.py    a street being furnished
layout.py   what stands where
street.py   all of it together
light.py    weather, day and night, and the camera's own faults
"""

from nas.data.scenery.street import draw_scene

__all__ = ["draw_scene"]
