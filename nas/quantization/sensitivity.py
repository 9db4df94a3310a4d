"""Which convolutions lose most in INT8 for what they give back: seen by quantizing each alone."""

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
    """Names of the convolutions, by the share of labels that change when one of them alone is quantized, per
    multiply-add of it: what it costs to quantize it, for the time that this gives back.

    `floating` and `quantized` are the network's forms that are compared, on `images`, run by `runner`; `guard()` is
    entered for each convolution, and `count` told of the images that it was tried on. A convolution that the runtime
    refuses to run quantized alone, or crashes at, counts as one that changes every label, and is `said`.

    Raises: UnmeasuredError when that is so of the `floating` form; WorkerError when the runner's process was ended from
    outside.
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
