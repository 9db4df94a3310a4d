"""Runner: runs forms of networks on images in a separate process.

A runtime that crashes on a graph ends only that process: the form is refused, and the next form gets a new process.
Otherwise one process runs all forms. It computes only while a request is pending, so requests made inside the lane
(`nas.latency.machine.lane`) disturb no timing. It ends with its owner, however that ends.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import UnmeasuredError
from nas.host.words import one_line
from nas.latency.worker.arrays import IMAGE, LABELS
from nas.latency.worker.connection import Connection
from nas.latency.worker.replies import LONGEST_REASON, WorkerError, accept, reason_of
from nas.quantization.forms import Form
from space.errors import UserError

LIMIT_SECONDS = 900.0  # for one answer: building a TensorRT engine takes minutes
MODULE = "nas.quantization.runner_process"


class Runner:
    """Runs forms on `image` (1, 3, H, W), float32, which is written to in place. Close it after use.

    Its process starts with the first form and keeps every form until it is forgotten. Not thread-safe.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._memory = os.fdopen(os.memfd_create("image and labels"), "w+b")
        os.ftruncate(self._memory.fileno(), bytes_of(size))
        self.image, self._labels = shared_arrays(self._memory.fileno(), size)
        self._process: Connection | None = None
        self._opened: dict[Form, int] = {}  # forms opened in the process, with their numbers there
        self._numbers = itertools.count()

    def labels(self, form: Form) -> NDArray[Any]:
        """The labels (1, H, W) that a form gives for the image.

        Raises: UnmeasuredError when its runtime refuses the form, crashes on it or does not return labels; WorkerError
        when the process was ended from outside.
        """
        try:
            if self._process is None:
                self._start(form)
            if form not in self._opened:
                number, graph = next(self._numbers), base64.b64encode(form.graph).decode("ascii")
                self._ask({"do": "open", "form": number, "target": str(form.target), "graph": graph})
                self._opened[form] = number
            self._ask({"do": "run", "form": self._opened[form]})
        except UserError as error:
            raise UnmeasuredError(reason_of(error)) from None
        except WorkerError as error:
            if error.ended:
                raise WorkerError(f"the process that runs {form} {error}", ended=True, code=error.code) from None
            words = reason_of(error) if error.code is None else f"its process {one_line(error)}"
            raise UnmeasuredError(words[:LONGEST_REASON]) from None
        return self._labels.copy()

    def forget(self, form: Form) -> None:
        """Let the process close a form."""
        if form in self._opened:
            with contextlib.suppress(WorkerError):  # the process has died; the next form gets a new one
                self._ask({"do": "close", "form": self._opened.pop(form)})

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._memory.close()

    def _start(self, form: Form) -> None:
        descriptor = self._memory.fileno()
        words = ["-P", "-m", MODULE, str(descriptor), *map(str, self._size)]
        self._process = Connection(form.target, words, descriptors=(descriptor,))

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process is not None
        try:
            self._process.say(request)
            reply = self._process.hear(LIMIT_SECONDS)
        except BaseException:  # it died, or this was interrupted and a late answer could be taken for the next one
            self._stop()
            raise
        accept(reply)

    def _stop(self) -> None:
        process, self._process = self._process, None
        self._opened.clear()
        if process is not None:
            process.stop()


def bytes_of(size: tuple[int, int]) -> int:
    """Number of bytes of an image followed by its labels."""
    height, width = size
    return height * width * (3 * IMAGE.itemsize + LABELS.itemsize)


def shared_arrays(descriptor: int, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The image (1, 3, H, W) and the labels (1, H, W) in memory shared by two processes."""
    height, width = size
    memory = mmap.mmap(descriptor, bytes_of(size))
    values = 3 * height * width
    image = np.frombuffer(memory, IMAGE, values).reshape(1, 3, height, width)
    labels = np.frombuffer(memory, LABELS, height * width, values * IMAGE.itemsize).reshape(1, height, width)
    return image, labels
