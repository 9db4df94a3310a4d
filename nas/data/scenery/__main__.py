"""Draw the scenes that are requested on standard input, for `nas.data.drawing`.

    python -m nas.data.scenery HEIGHT WIDTH PARENT

Each line of the input holds the numbers that seed a scene's random generator. For each scene, the output holds a line
with two numbers, followed by that many bytes of a JPEG file and of a PNG file with the labels.
"""

from __future__ import annotations

import sys

from nas.data.drawing import files_of
from nas.host.parent import end_with


def main() -> None:
    """Draw until the input ends."""
    height, width, parent = map(int, sys.argv[1:])
    end_with(parent)
    for line in sys.stdin.buffer:
        image, label = files_of([int(word) for word in line.split()], (height, width))
        sys.stdout.buffer.write(b"%d %d\n" % (len(image), len(label)) + image + label)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
