"""Restoring the accuracy of a network that was cut: fresh batch-norm statistics, and fine-tuning with a teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nas.prune.tuning import FineTuning
from nas.runs.events import Tell, tell_nobody
from nas.terminal import ProgressLine
from nas.training.loaders import statistics_of
from nas.training.normalisation import reestimate_batch_norm
from nas.training.trainer import Trainer
from space.network import Network

Recover = Callable[[Network, Network, int, FineTuning, Callable[[str], None], ProgressLine], None]
"""`recover`, or a function that has it done on another machine."""
STATISTICS_BATCHES = 32  # batches for fresh batch-norm statistics after a cut


def recover(
    network: Network,
    teacher: Network,
    epochs: int,
    tuning: FineTuning,
    said: Callable[[str], None],
    progress: ProgressLine,
    tell: Tell = tell_nobody,
) -> None:
    """Give `network` fresh batch-norm statistics, then train it for some epochs with the whole network as its teacher.

    `said` receives a line for each epoch, `tell` its report; `progress` is updated after every batch.
    """
    statistics = statistics_of(
        network.architecture,
        tuning.dataset,
        tuning.recipe,
        STATISTICS_BATCHES,
        device=tuning.device,
        threads=tuning.threads,
    )
    images = min(STATISTICS_BATCHES * tuning.recipe.batch_size, len(tuning.dataset.train))
    with progress.over("statistics of batch norms", images):
        reestimate_batch_norm(network, statistics.loader, statistics.batches, guard=tuning.guard, count=progress.count)
    if not epochs:
        return
    trainer = Trainer(
        network.architecture,
        tuning.dataset,
        replace(tuning.recipe, epochs=epochs),
        device=tuning.device,
        threads=tuning.threads,
        weights=network.state_dict(),
        teacher=teacher,
        guard=tuning.guard,
        count=progress.count,
    )
    while not trainer.finished:
        with progress.over(f"epoch {trainer.epoch + 1}/{epochs}", trainer.images_to_come, waits=trainer.waits):
            report = trainer.run_epoch()
        said(str(report))
        tell(report, trainer.learning_rate)
    network.load_state_dict(trainer.weights())
