"""Scoring a network on a split of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.data import Dataset, SplitName, make_loader
from nas.data.share import WHOLE, Share
from nas.host.memory import images_at_once
from nas.training.batch_loop import Count, Guard, guarded_on, uncounted
from nas.training.exact import in_float32
from nas.training.metrics import ConfusionMatrix
from nas.training.scores import Scores
from nas.training.together import summed
from space.network import Network

BATCH_SIZE = 4
"""Number of images scored at a time, if memory allows."""


def evaluate(
    network: nn.Module,
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    split: SplitName = "validation",
    threads: int | None = None,
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> Scores:
    """Scores of `network` on every image of a split, in float32. The network is moved to `device`; its mode is kept.

    Images and labels are resized to `dataset.size`, as in a training and a search; `nas.training.own_size` scores at
    the labels' own size. `guard()` is entered around every batch, and `count` receives its number of images.
    `batch_size`: None: the usual one, or as many images as memory allows. `threads`: those of the loader, as in
    `nas.data.make_loader`.

    Raises: DataError when the split holds no labelled pixel, or a file of it cannot be read; TrainingError when a logit
    is not finite.
    """
    return confusion(
        network, dataset, device=device, batch_size=batch_size, split=split, threads=threads, guard=guard, count=count
    ).scores()


def confusion(
    network: nn.Module,
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    split: SplitName = "validation",
    threads: int | None = None,
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> ConfusionMatrix:
    """The confusion matrix of a split's labels and the predictions of `network`, from which `evaluate` takes scores.
    The arguments are those of `evaluate`.

    Raises: DataError when a file of the split cannot be read.
    """
    if split == "test":  # loaders know only the splits of a training
        dataset, split = replace(dataset, validation=dataset.test), "validation"
    batch = _images_at_once(network, dataset, str(device)) if batch_size is None else batch_size
    loader = make_loader(dataset, split, batch_size=batch, augmentation=None, device=str(device), threads=threads)
    return confusion_of_batches(network.to(device), loader.epoch(0), dataset.num_classes, guard, count)


def _images_at_once(network: nn.Module, dataset: Dataset, device: str) -> int:
    if not isinstance(network, Network):  # how much memory it needs is unknown
        return BATCH_SIZE
    return images_at_once(network.architecture, dataset.size, dataset.num_classes, most=BATCH_SIZE, device=device)


def evaluate_batches(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    guard: Guard = nullcontext,
    count: Count = uncounted,
    share: Share = WHOLE,
) -> Scores:
    """Scores of `network` on batches of images (N, 3, H, W) and labels (N, h, w); its mode is kept.

    Logits are resized (bilinear) to the size of the labels if that differs. `count` receives the number of images of
    every batch. With several processes, each passes its `share` of the batches; the scores are those of all together.

    Raises: DataError when the batches hold no labelled pixel, or a label that is no class; TrainingError when a logit
    is not finite.
    """
    matrix = confusion_of_batches(network, batches, num_classes, guard, count)
    return ConfusionMatrix(num_classes, summed(matrix.counts.cpu(), share)).scores()


def confusion_of_batches(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> ConfusionMatrix:
    """The confusion matrix of the batches' labels and the predictions of `network`, as for `evaluate_batches`."""
    device = next(network.parameters()).device
    matrix = ConfusionMatrix(num_classes)
    training = network.training
    network.eval()
    try:
        with torch.inference_mode(), in_float32(), closing(guarded_on(device, batches, guard)) as steps:
            for images, labels in steps:
                logits, expected = network(images.to(device)), labels.to(device)
                if logits.shape[-2:] != expected.shape[-2:]:
                    logits = F.interpolate(logits, expected.shape[-2:], mode="bilinear", align_corners=False)
                matrix.look(logits)
                matrix.update(logits.max(1).indices, expected)  # `argmax` takes 1.3 to 7 times as long on CPUs
                count(len(images))
    finally:
        network.train(training)
    return matrix
