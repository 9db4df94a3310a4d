"""Scores of a network's forms on real images, each by the runtime that is timed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nas.data import Dataset, make_loader
from nas.latency.machine import lane
from nas.quantization.forms import Form
from nas.training.metrics import ConfusionMatrix
from nas.training.scores import Scores
from nas.training.steps import Count, Guard, guarded, uncounted


@dataclass(frozen=True, kw_only=True)
class FormScores:
    """How well a form segments, and how often it gives PyTorch's labels."""

    scores: Scores
    same_labels: float
    """Share of pixels with the label that PyTorch gives in float32."""


def score_forms(
    forms: Sequence[Form],
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    size: tuple[int, int],
    num_classes: int,
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> tuple[Scores, list[FormScores]]:
    """Scores of `network` in PyTorch and of its `forms`, over `batches` of one image (1, 3, H, W) and labels (1, h, w).

    Labels that a form gives are brought to the size of the expected ones by the nearest. `guard()` is entered around
    every batch, and `count` is told of it.

    Raises: DataError when the batches hold no labelled pixel, or a label that is no class.
    """
    image = np.zeros((1, 3, *size), dtype=np.float32)
    calls = [form.open(image) for form in forms]
    reference = ConfusionMatrix(num_classes)
    matrices = [ConfusionMatrix(num_classes) for _ in forms]
    same, pixels = [0] * len(forms), 0
    with torch.inference_mode(), closing(guarded(batches, guard)) as steps:
        for images, expected in steps:
            image[...] = images.numpy()
            labels = network(images).argmax(1)
            reference.update(_sized(labels, expected), expected)
            pixels += labels.numel()
            for index, call in enumerate(calls):
                given = torch.from_numpy(np.array(call(), dtype=np.int64))
                same[index] += int((given == labels).sum())
                matrices[index].update(_sized(given, expected), expected)
            count(len(images))
    return reference.scores(), [
        FormScores(scores=matrix.scores(), same_labels=count / pixels)
        for matrix, count in zip(matrices, same, strict=True)
    ]


def score_on_validation(
    forms: Sequence[Form], network: nn.Module, dataset: Dataset, count: Count = uncounted
) -> tuple[Scores, list[FormScores]]:
    """`score_forms` over the validation images of a data set. Do not call it inside a training step."""
    loader = make_loader(dataset, "validation", batch_size=1, augmentation=None)
    return score_forms(forms, network, loader.epoch(0), dataset.size, dataset.num_classes, lane.training_step, count)


def _sized(labels: Tensor, expected: Tensor) -> Tensor:
    """Labels (1, H, W) at the size of the expected ones."""
    if labels.shape == expected.shape:
        return labels
    resized = nn.functional.interpolate(labels[:, None].float(), expected.shape[-2:], mode="nearest-exact")
    return resized[:, 0].long()
