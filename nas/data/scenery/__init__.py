"""Street scenes drawn from a random generator: the world behind the data set `road_scenes`.

    image, label = draw_scene(numpy.random.default_rng(0), (180, 240))

canvas.py   camera, depth buffer, and the only primitive: an upright surface with a pattern
ground.py   road, pavement, grass, markings and the shadows on them
houses.py   patterns of buildings, fences and walls
things.py   patterns of cars, people, bicycles, trees, hedges, poles and signs
stage.py    the street while objects are placed in it
layout.py   where objects are placed
street.py   a complete scene
light.py    weather, day and night, and the camera's imperfections
"""

from nas.data.scenery.street import draw_scene

__all__ = ["draw_scene"]
