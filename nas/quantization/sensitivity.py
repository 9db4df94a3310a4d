"""The convolutions that lose most in INT8 for the time they save, found by quantizing each alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np

from nas.errors import UnmeasuredError
from nas.export.quantized import Calibrated, Image, multiply_adds
from nas.quantization.forms import Form
from nas.quantization.runner import Runner
from nas.training.batch_loop import Count, Guard, uncounted


def most_sensitive_first(
    calibrated: Calibrated,
    floating: Form,
    quantized: Form,
    images: Sequence[Image],
    runner: Runner,
    said: Callable[[str], None],
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> list[str]:
    """Names of the convolutions in descending order of sensitivity: the share of labels that change when only this one
    is quantized, per multiply-add, that is, the loss for the time saved.

    The network's forms `floating` and `quantized` are compared on `images`, run by `runner`. `guard()` is entered for
    each convolution, and `count` is called with the number of images. A convolution that the runtime refuses to run
    quantized alone, or crashes on, counts as changing every label and is reported to `said`.

    Raises: UnmeasuredError when the runtime refuses the `floating` form; WorkerError when the runner's process was
    ended from outside.
    """
    work = multiply_adds(floating.graph)
    names = calibrated.convolutions
    with guard():
        expected = _labels(runner, floating, images)
    count(len(images))
    changed = {}
    for name in names:
        with guard():
            others = [other for other in names if other != name]
            graph = calibrated.quantized(kept=others, on_gpu=quantized.target.on_cuda)
            alone = Form(target=quantized.target, graph=graph, words=f"{name} alone")
            try:
                changed[name] = float(np.mean(_labels(runner, alone, images) != expected))
            except UnmeasuredError as error:
                said(f"{alone}: left out: {error}")
                changed[name] = 1.0
        count(len(images))
    return sorted(names, key=lambda name: changed[name] / work[name], reverse=True)


def _labels(runner: Runner, form: Form, images: Sequence[Image]) -> np.ndarray:
    found = []
    try:
        for each in images:
            runner.image[...] = each
            found.append(runner.labels(form))
    finally:
        runner.forget(form)
    return np.stack(found)
