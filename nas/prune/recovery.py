"""What brings a network that was cut back to its accuracy: fresh statistics, and fine-tuning with a teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nas.latency.machine import lane
from nas.prune.tuning import FineTuning
from nas.training.normalisation import reestimate_batch_norm
from nas.training.trainer import Trainer
from space.network import Network

STATISTICS_BATCHES = 32  # that give batch norms fresh statistics when nothing is trained


def recover(network: Network, teacher: Network, epochs: int, tuning: FineTuning, said: Callable[[str], None]) -> None:
    """Give `network` fresh batch-norm statistics, then train it for some epochs with the whole network as its teacher.

    `said` hears of each epoch.
    """
    loader = tuning.loader(tuning.recipe.batch_size)
    reestimate_batch_norm(network, loader, STATISTICS_BATCHES, guard=lane.training_step)
    if not epochs:
        return
    trainer = Trainer(
        network.architecture,
        tuning.dataset,
        replace(tuning.recipe, epochs=epochs),
        device=tuning.device,
        weights=network.state_dict(),
        teacher=teacher,
        guard=lane.training_step,
    )
    while not trainer.finished:
        said(str(trainer.run_epoch()))
    network.load_state_dict(trainer.weights())
