"""Draws the scenes that its input names, for `nas.data.drawing`.

    python -m nas.data.scenery HEIGHT WIDTH PARENT

A line of the input has the numbers that a scene's generator is seeded with. To the output goes for each a line with two
numbers, followed by as many bytes of a JPEG file and of a PNG file with the labels.
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
