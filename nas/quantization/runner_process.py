"""The process that runs forms of networks: `python -m nas.quantization.runner_process DESCRIPTOR HEIGHT WIDTH`, driven
by `nas.quantization.runner.Runner`. DESCRIPTOR is the file descriptor of the shared memory.

Requests and replies are lines of JSON (`nas.latency.worker.replies`): the process opens graphs, runs them on the image
in the shared memory and writes labels there. It ends when its input does.
"""

from __future__ import annotations

import base64
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from nas.latency.target import Target
from nas.latency.worker.pipes import end_with_the_input, sayer
from nas.latency.worker.replies import answer
from nas.quantization.forms import Form
from nas.quantization.runner import shared_arrays


def main(arguments: list[str]) -> int:
    """Serve requests until the input ends."""
    end_with_the_input()
    say = sayer()
    descriptor, height, width = map(int, arguments)
    image, labels = shared_arrays(descriptor, (height, width))
    opened: dict[int, Callable[[], NDArray[Any]]] = {}

    def respond(request: dict[str, Any]) -> dict[str, Any]:
        number = request["form"]
        match request["do"]:
            case "open":
                form = Form(target=Target.parse(request["target"]), graph=base64.b64decode(request["graph"]))
                opened[number] = form.open(image)
            case "run":
                labels[...] = opened[number]()
            case wanted:
                assert wanted == "close"
                del opened[number]
        return {}

    for line in sys.stdin:
        say(answer(functools.partial(respond, json.loads(line))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
