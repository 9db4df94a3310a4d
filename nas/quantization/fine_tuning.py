"""Quantization-aware fine-tuning: a short training in which the network rounds as its INT8 form does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from nas.data import Dataset
from nas.export.grid import Grid
from nas.latency.machine import lane
from nas.runs.events import Tell, tell_nobody
from nas.terminal import ProgressLine
from nas.training import Recipe
from nas.training.room import require_room
from nas.training.trainer import Trainer
from space.architecture import Architecture
from space.network import Network

RATE_SHARE = 0.05  # share of the recipe's learning rate: a trained network only has to adapt to rounding


@dataclass(frozen=True, kw_only=True)
class QuantizationAwareTuning:
    """Settings of quantization-aware fine-tuning."""

    epochs: int
    recipe: Recipe
    """Recipe of a whole training, from which `own_recipe` is derived."""
    device: str = "cpu"

    @property
    def own_recipe(self) -> Recipe:
        """The recipe of the fine-tuning: a small share of the learning rate, full precision, since half precision is
        too coarse for the grid, and the batch-norm statistics that are deployed.
        """
        return replace(
            self.recipe,
            epochs=self.epochs,
            learning_rate=RATE_SHARE * self.recipe.learning_rate,
            final_learning_rate=RATE_SHARE * self.recipe.final_learning_rate,
            mixed_precision=False,
            batch_norm_batches=0,
            encoder=None,
            init=None,
            probe=False,
        )

    def require_memory(self, architecture: Architecture, dataset: Dataset) -> None:
        """Raises: ArchitectureError when training the network needs more memory than there is, BusyError when other
        processes use it.
        """
        recipe = self.own_recipe
        stages = recipe.stages(architecture, recipe.epochs)
        require_room(architecture, recipe, dataset.size, dataset.num_classes, stages, device=self.device)


def fine_tuned(
    network: Network,
    dataset: Dataset,
    grid: Grid,
    tuning: QuantizationAwareTuning,
    said: Callable[[str], None],
    progress: ProgressLine | None = None,
    tell: Tell = tell_nobody,
) -> Network:
    """A copy of `network` that was trained while rounded to `grid`, towards the labels and the floating-point outputs
    of `network` (arXiv 1712.05877). `said` receives a line for each epoch, with scores of the rounded network, and
    `tell` its report; `progress` is updated after every batch.

    Do not call this inside the lane (`nas.latency.machine.lane`).

    Raises: TrainingError when the loss is no longer finite; ArchitectureError when training needs more memory than
    there is.
    """
    progress = progress or ProgressLine(silent=True)
    trainer = Trainer(
        network.architecture,
        dataset,
        tuning.own_recipe,
        device=tuning.device,
        weights=network.state_dict(),
        teacher=copy.deepcopy(network),
        grid=grid,
        guard=lane.shared_on(tuning.device),
        count=progress.count,
    )
    while not trainer.finished:
        with progress.over(f"epoch {trainer.epoch + 1}/{tuning.epochs}", trainer.images_to_come, waits=trainer.waits):
            report = trainer.run_epoch()
        said(str(report))
        tell(report, trainer.learning_rate)
    tuned: Network = network.architecture.build(network.num_classes)
    tuned.load_state_dict(trainer.weights())
    return tuned.eval()
