"""Which convolutions lose most in INT8 for what they give back: seen by quantizing each alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from nas.export.quantized import Calibrated, Image, multiply_adds
from nas.quantization.forms import Form
from nas.training.steps import Count, Guard, uncounted


def most_sensitive_first(
    calibrated: Calibrated,
    floating: Form,
    quantized: Form,
    images: Sequence[Image],
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> list[str]:
    """Names of the convolutions, by the share of labels that change when one of them alone is quantized, per
    multiply-add of it: what it costs to quantize it, for the time that this gives back.

    `floating` and `quantized` are the network's forms that are compared, on `images`; `guard()` is entered for each
    convolution, and `count` told of the images that it was tried on.
    """
    work = multiply_adds(floating.graph)
    names = calibrated.convolutions
    image = np.zeros_like(images[0])
    with guard():
        expected = _labels(floating, image, images)
    count(len(images))
    changed = {}
    for name in names:
        with guard():
            others = [other for other in names if other != name]
            graph = calibrated.quantized(kept=others, on_gpu=quantized.target.on_cuda)
            alone = Form(target=quantized.target, graph=graph)
            changed[name] = float(np.mean(_labels(alone, image, images) != expected))
        count(len(images))
    return sorted(names, key=lambda name: changed[name] / work[name], reverse=True)


def _labels(form: Form, image: Image, images: Sequence[Image]) -> np.ndarray:
    call = form.open(image)
    found = []
    for each in images:
        image[...] = each
        found.append(np.array(call()))
    return np.stack(found)
