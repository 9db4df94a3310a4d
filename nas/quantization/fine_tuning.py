"""Quantization-aware fine-tuning: a short training of a network that rounds as its INT8 form does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from nas.data import Dataset
from nas.export.grid import Grid
from nas.latency.machine import lane
from nas.terminal import Progress
from nas.training import Recipe
from nas.training.room import require_room
from nas.training.trainer import Trainer
from space.architecture import Architecture
from space.network import Network

RATE_SHARE = 0.05  # of a recipe's rate: the network is trained already, and must only learn to be rounded


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How long, and how."""

    epochs: int
    recipe: Recipe
    """Of a whole training."""
    device: str = "cpu"

    @property
    def own_recipe(self) -> Recipe:
        """What is trained by: the recipe at a small share of its rate, in full precision, which a grid is too fine for
        half of, and by the statistics that are deployed.
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
        """Raises: ArchitectureError when training the network needs more memory than there is, BusyError where others
        hold it.
        """
        recipe = self.own_recipe
        stages = recipe.stages(architecture, recipe.epochs)
        require_room(architecture, recipe, dataset.size, dataset.num_classes, stages, device=self.device)


def fine_tuned(
    network: Network,
    dataset: Dataset,
    grid: Grid,
    tuning: FineTuning,
    said: Callable[[str], None],
    progress: Progress | None = None,
) -> Network:
    """A copy of `network` that was trained while it is rounded to `grid`, to give the labels and what `network` gives
    in floating point (arXiv 1712.05877). `said` hears of each epoch, whose scores are of the rounded network, and
    `progress` of every batch.

    Do not call it inside a training step. Raises: TrainingError when the loss is no longer a finite number;
    ArchitectureError when training needs more memory than there is.
    """
    progress = progress or Progress(silent=True)
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
    images = len(dataset.train) + len(dataset.validation)
    while not trainer.finished:
        with progress.over(f"epoch {trainer.epoch + 1}/{tuning.epochs}", images, waits=trainer.waits):
            report = trainer.run_epoch()
        said(str(report))
    tuned: Network = network.architecture.build(network.num_classes)
    tuned.load_state_dict(trainer.weights())
    return tuned.eval()
