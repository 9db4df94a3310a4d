"""Street scenes as files, drawn by several processes where starting them pays.

A scene depends only on its seed, so any process may draw it. Threads would not help: half of the drawing is done by
Python. The processes are started afresh, not forked from one that may hold a GPU, threads and locks. They write no
files, so that nothing is left behind however they end.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import signal
import subprocess
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

from nas.data.long_work import Guard
from nas.errors import HaltedError
from nas.host.cores import usable_cores
from nas.host.python import command_of, environment_variables
from nas.host.room import free_bytes

Seed = Sequence[int]
Files = tuple[bytes, bytes]
"""A JPEG file of a scene and a PNG file of its labels."""

SECONDS_OF_PIXEL = 1.2e-6  # drawing time per pixel on one core, for scenes large enough to take long
SECONDS_EACH = 2.0  # of drawing make it pay to start a process, which takes a core a quarter of a second
BYTES_OF_PIXEL = 260  # peak memory per pixel while drawing


def files_of(seed: Seed, size: tuple[int, int]) -> Files:
    """The scene of a seed at height and width `size`."""
    import numpy as np
    from PIL import Image

    from nas.data.scenery import draw_scene

    image, label = draw_scene(np.random.default_rng(seed), size)
    jpeg, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG", quality=95, subsampling=0)
    Image.fromarray(label).save(png, "PNG")
    return jpeg.getvalue(), png.getvalue()


def drawn(
    seeds: Sequence[Seed], size: tuple[int, int], guard: Guard, processes: int | None = None
) -> Generator[Files, None, None]:
    """The scenes of `seeds`, in order, each drawn inside a `guard()` by `processes` processes; None: as many as pay.

    Close the generator to end the processes that draw ahead. Raises: HaltedError when a process cannot be started, or
    is killed.
    """
    count = worth_it(len(seeds), size) if processes is None else processes
    if count == 1:
        for seed in seeds:
            with guard():
                files = files_of(seed, size)
            yield files
        return
    with ThreadPoolExecutor(count) as pool, contextlib.ExitStack() as started:
        free: queue.SimpleQueue[_Painter] = queue.SimpleQueue()
        for _ in range(count):
            free.put(started.enter_context(contextlib.closing(_Painter(size))))

        def draw(seed: Seed) -> Files:
            painter = free.get()
            try:
                with guard():
                    return painter.files_of(seed)
            finally:
                free.put(painter)

        yield from pool.map(draw, seeds)


def worth_it(scenes: int, size: tuple[int, int]) -> int:
    """Number of processes to draw `scenes` scenes with, so that each has enough work, a core and memory."""
    pixels = size[0] * size[1]
    enough_to_do = int(scenes * pixels * SECONDS_OF_PIXEL / SECONDS_EACH)
    return max(1, min(enough_to_do, usable_cores(), free_bytes() // (pixels * BYTES_OF_PIXEL)))


class _Painter:
    """A process that draws scenes. Not for use by several threads at once."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._words = os.fdopen(os.memfd_create("words"), "w+b")  # a pipe that nobody reads would block the process
        try:
            self._process = subprocess.Popen(
                command_of("nas.data.scenery", [*size, os.getpid()]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                # Otherwise each process starts a NumPy thread per core.
                env=environment_variables() | {"OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends the other one
            )
        except OSError as error:
            raise HaltedError(
                f"expected to start a process that draws road scenes, got {error.strerror}; end other processes, or "
                "give this one a single core, then try again"
            ) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked, self._answers = self._process.stdin, self._process.stdout

    def files_of(self, seed: Seed) -> Files:
        """The scene of a seed."""
        try:
            self._asked.write(b"%b\n" % " ".join(map(str, seed)).encode("ascii"))
            self._asked.flush()
        except BrokenPipeError:
            raise self._died() from None
        sizes = [int(word) for word in self._answers.readline().split()]
        files = [self._answers.read(size) for size in sizes]
        if not sizes or [len(file) for file in files] != sizes:
            raise self._died()
        image, label = files
        return image, label

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # input that it has not read
            self._asked.close()
        self._answers.close()
        self._words.close()

    def _died(self) -> Exception:
        code = self._process.wait()
        if code < 0:
            return HaltedError(
                f"a process that draws road scenes was ended by {signal.Signals(-code).name}, perhaps for lack of "
                "memory; end other programs that hold memory, or ask for a smaller size, then try again"
            )
        self._words.seek(0)
        words = self._words.read()[-2000:].decode(errors="replace").strip()
        return RuntimeError(f"a process that draws road scenes ended with code {code}; its last output: {words}")
