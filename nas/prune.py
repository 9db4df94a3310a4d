"""Pruning a trained network into a measured budget: score, cut, fine-tune.

`pruning` decides which channels go; here it meets data, the target and the trainer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.data import Dataset, make_loader
from nas.latency import Meter
from nas.training import EpochReport, Recipe
from space import Architecture
from space.latency import Budget, Latency

if TYPE_CHECKING:
    from torch import Tensor

    from space.network import Network

SCORING_BATCHES = 32
AIM = 0.985  # of the budget: repeated measurements differ by one to two per cent


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """A network inside its budget, before any fine-tuning: weights by name, and what it and its origin measured."""

    architecture: Architecture
    weights: Mapping[str, Tensor]
    before: Latency
    after: Latency


def cut_to_budget(
    network: Network, num_classes: int, budget: Budget, meter: Meter, dataset: Dataset | None, recipe: Recipe
) -> Cut:
    """Remove the least important channels until the measured latency is inside the budget.

    With a data set, importance is first-order Taylor over real batches; without, the weights' magnitude.

    Raises: BudgetError with the lowest latency reached when no cut is enough.
    """
    from pruning.allocation import allocate
    from pruning.importance import magnitude, taylor
    from pruning.surgery import Cutter

    cutter = Cutter(network.architecture, num_classes)
    if dataset is None:
        scores = magnitude(cutter, network)
    else:
        from nas.training.loss import segmentation_loss

        loader = make_loader(dataset, "train", batch_size=recipe.batch_size, augmentation=None, seed=recipe.seed)
        epochs = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
        scores = taylor(cutter, network, itertools.islice(epochs, SCORING_BATCHES), segmentation_loss)
    latencies: dict[str, Latency] = {}

    def milliseconds(architecture: Architecture) -> float:
        latencies[architecture.key] = meter.measure(architecture)
        return latencies[architecture.key].milliseconds(budget.statistic)

    allocation = allocate(
        cutter, scores, measure=milliseconds, budget_milliseconds=budget.milliseconds * AIM, size=meter.size
    )
    cut = cutter.cut(network, allocation.keep)
    assert cut.architecture == allocation.architecture, "what was cut is what was measured"
    return Cut(
        architecture=cut.architecture,
        weights=cut.state_dict(),
        before=latencies[network.architecture.key],
        after=latencies[cut.architecture.key],
    )


def fine_tune(
    cut: Cut,
    teacher: Network,
    dataset: Dataset,
    recipe: Recipe,
    *,
    device: str,
    said: Callable[[EpochReport], None],
) -> Mapping[str, Tensor]:
    """Train a cut network for `recipe.epochs`, with the whole one as its teacher; its weights at the end."""
    from nas.latency import lane
    from nas.training.trainer import Trainer

    trainer = Trainer(
        cut.architecture,
        dataset,
        recipe,
        device=device,
        weights=cut.weights,
        teacher=teacher,
        guard=lane.training_step,
    )
    while not trainer.finished:
        said(trainer.run_epoch())
    return trainer.weights()
