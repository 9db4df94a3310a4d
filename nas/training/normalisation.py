"""Re-estimation of batch-norm statistics."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext

import torch
from torch import nn

from nas.data import Loader
from nas.data.share import WHOLE, Share
from nas.training.batch_loop import Count, Guard, guarded_on, uncounted
from nas.training.exact import in_float32
from nas.training.together import SharedNorm
from space.network import lone_values_kept


def reestimate_batch_norm(
    network: nn.Module,
    loader: Loader,
    batches: int,
    *,
    epoch: int = 0,
    guard: Guard = nullcontext,
    share: Share = WHOLE,
    count: Count = uncounted,
) -> int:
    """Replace the running mean and variance of every batch norm by their plain average over up to `batches` batches.

    Running averages mix in the statistics of past weights, in a short training even those of the first steps. Here
    images of `loader.epoch(epoch)` pass through the current weights, with dropout off ("precise BN", arXiv 2105.07576).
    Weights are not changed and the network's mode is kept. `guard()` is entered around every batch, and `count`
    receives its number of images. `share`: with a share of the batches, all processes that share norms must take part.

    Returns the number of batches used: fewer than `batches` if the loader has no more; with 0 nothing changes.
    """
    every = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, SharedNorm))]
    norms = [norm for norm in every if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    device = next(network.parameters()).device
    used = 0
    network.eval()
    try:
        images_of = closing(guarded_on(device, loader.epoch(epoch, batches), guard, share=share))
        with torch.no_grad(), in_float32(), lone_values_kept(network), images_of as steps:
            for images, _ in steps:
                if used == 0:
                    _start(norms)
                network(images.to(device))
                used += 1
                count(len(images))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(training)
    return used


def _start(norms: Sequence[nn.BatchNorm2d | SharedNorm]) -> None:
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's name for a plain average over all batches
        norm.training = True
