"""Scores of a network's forms on real images, each computed by the runtime that is timed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from nas.data import Dataset, SplitName, make_loader
from nas.errors import UnmeasuredError
from nas.latency.machine import lane
from nas.quantization.forms import Form
from nas.quantization.runner import Runner
from nas.training.batch_loop import Count, Guard, guarded, uncounted
from nas.training.exact import in_float32
from nas.training.metrics import ConfusionMatrix
from nas.training.scores import Scores
from space.network import labels_of

Giver = Callable[[Tensor], Tensor]
"""Maps an image (1, 3, H, W) to labels (1, H, W). Raises UnmeasuredError where it cannot."""


@dataclass(frozen=True, kw_only=True)
class FormScores:
    """The scores of a form, and how often its labels agree with PyTorch's."""

    scores: Scores
    same_labels: float
    """Share of pixels that get the same label as from PyTorch in float32."""


def score_labels(
    givers: Sequence[Giver],
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> tuple[Scores, list[FormScores | UnmeasuredError]]:
    """Scores of `network` in PyTorch, on its device, and for each of `givers` its scores or the error that stopped it,
    over `batches` of one image (1, 3, H, W) and labels (1, h, w), which may be on another device.

    Labels are resized to the size of the expected ones by nearest neighbour. `guard()` is entered around every batch,
    and `count` is called after it.

    Raises: DataError when the batches contain no labelled pixel, or a label that is no class; TrainingError when a
    logit of PyTorch's is not finite.
    """
    reference = ConfusionMatrix(num_classes)
    matrices = [ConfusionMatrix(num_classes) for _ in givers]
    refused: dict[int, UnmeasuredError] = {}
    same, pixels = [0] * len(givers), 0
    device = next(network.parameters()).device
    with torch.inference_mode(), in_float32(), closing(guarded(batches, guard)) as steps:
        for images, expected in steps:
            labels = labels_of(network, images.to(device), reference.look).to(expected.device)
            reference.update(_sized(labels, expected), expected)
            pixels += labels.numel()
            for index, give in enumerate(givers):
                if index in refused:
                    continue
                try:
                    given = give(images)
                except UnmeasuredError as error:
                    refused[index] = error
                    continue
                same[index] += int((given == labels).sum())
                matrices[index].update(_sized(given, expected), expected)
            count(len(images))
    return reference.scores(), [
        refused.get(index) or FormScores(scores=matrix.scores(), same_labels=same[index] / pixels)
        for index, matrix in enumerate(matrices)
    ]


def score_forms(
    forms: Sequence[Form],
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    runner: Runner,
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> tuple[Scores, list[FormScores | UnmeasuredError]]:
    """`score_labels` for a network's `forms`, run by `runner`.

    Raises: DataError as it does; WorkerError when the runner's process was ended from outside.
    """
    try:
        givers = [partial(_labels_of, runner, form) for form in forms]
        return score_labels(givers, network, batches, num_classes, guard, count)
    finally:
        for form in forms:
            runner.forget(form)


def score_on_validation(
    forms: Sequence[Form], network: nn.Module, dataset: Dataset, runner: Runner, count: Count = uncounted
) -> tuple[Scores, list[FormScores | UnmeasuredError]]:
    """`score_forms` over the validation images of a data set. If the forms run on a GPU, PyTorch runs there too. Do not
    call this inside the lane (`nas.latency.machine.lane`).
    """
    if gpu := next((form.target.device for form in forms if form.target.on_cuda), ""):
        network = copy.deepcopy(network).to(gpu)
    loader = make_loader(dataset, "validation", batch_size=1, augmentation=None)
    return score_forms(forms, network, loader.epoch(0), dataset.num_classes, runner, lane.shared_on("cpu"), count)


def confusion_of_form(
    form: Form, dataset: Dataset, split: SplitName = "validation", count: Count = uncounted
) -> ConfusionMatrix:
    """Confusion matrix of a split's labels and those of a form, which runs in a separate process as in
    `score_on_validation`. `count` is called for every image. Do not call this inside the lane.

    Raises: DataError when a file of the split cannot be read; UnmeasuredError when the runtime refuses the form or
    crashes on it; WorkerError when its process was ended from outside.
    """
    if split == "test":  # loaders know only the splits of a training
        dataset, split = replace(dataset, validation=dataset.test), "validation"
    batches = make_loader(dataset, split, batch_size=1, augmentation=None).epoch(0)
    matrix = ConfusionMatrix(dataset.num_classes)
    with closing(Runner(dataset.size)) as runner, closing(guarded(batches, lane.shared_on("cpu"))) as steps:
        for image, expected in steps:
            matrix.update(_sized(_labels_of(runner, form, image), expected), expected)
            count(1)
    return matrix


def _labels_of(runner: Runner, form: Form, image: Tensor) -> Tensor:
    runner.image[...] = image.numpy()
    return torch.from_numpy(runner.labels(form)).long()


def _sized(labels: Tensor, expected: Tensor) -> Tensor:
    """Labels (1, H, W) resized to the size of the expected ones."""
    if labels.shape == expected.shape:
        return labels
    resized = nn.functional.interpolate(labels[:, None].float(), expected.shape[-2:], mode="nearest-exact")
    return resized[:, 0].long()
