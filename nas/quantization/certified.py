"""The form that a certificate is about, run on this machine: the graph in a folder, by the runtime that was timed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from nas.errors import TargetError
from nas.latency import runtimes
from nas.latency.target import Target
from nas.quantization.forms import Form
from nas.quantization.runner import Runner
from nas.runs.trained import certificate_of, certified_graph
from space.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Look = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    """Maps a picture, uint8 (H, W, 3), to its classes, uint8 (H, W)."""


def certified_form(name_or_path: str, size: tuple[int, int], *, as_timed: bool = False) -> Form:
    """The form that the certificate in a winner's or a run's folder is about, to run here at height and width `size`:
    on all cores, whose number does not change labels, or with `as_timed` on as many as were timed.

    Raises: TargetError that says why it cannot run here; UserError for a certificate or a graph that cannot be read, or
    that differs from the certified one.
    """
    certificate = certificate_of(name_or_path)
    if certificate is None:
        raise TargetError(f"{name_or_path} has no certificate")
    latency = certificate.latency
    target = Target.parse(latency.target)
    if target.host:
        raise TargetError(f"it is certified on another host, {target}")
    if not _reads_graphs(target):
        raise TargetError(f"it is certified on {target}, which reads no ONNX graphs")
    if size != (latency.height, latency.width):
        raise TargetError(f"it is certified at {latency.height}x{latency.width}, not at {size[0]}x{size[1]}")
    target = target if as_timed else replace(target, threads=None)
    runtimes.require(target)
    return Form(target=target, graph=certified_graph(name_or_path))


def _reads_graphs(target: Target) -> bool:
    try:
        return runtimes.reads_graphs(target)
    except TargetError:
        raise
    except UserError as error:  # a runtime of another package that cannot be imported
        raise TargetError(str(error)) from None


@contextlib.contextmanager
def labels_of_pictures(form: Form, size: tuple[int, int]) -> Iterator[Look]:
    """A function that gives the classes of a picture of any size, like `nas.training.prediction.predict`, by a form
    with input height and width `size` in a process of its own.

    The function raises UnmeasuredError when the runtime refuses the form or crashes on it, and WorkerError when its
    process was ended from outside.
    """
    import numpy as np

    from nas.training.prediction import fitted, network_input

    with closing(Runner(size)) as runner:

        def labels(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
            runner.image[...] = network_input(picture, size)
            return fitted(runner.labels(form)[0].astype(np.uint8), picture.shape[:2])

        yield labels
