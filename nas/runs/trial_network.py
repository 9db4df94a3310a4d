"""The trained network of a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.runs.folder import RunFolder
from nas.runs.trial import Trial

if TYPE_CHECKING:
    from space.network import Network


def trained_network(run: RunFolder, trial: Trial, num_classes: int) -> Network:
    """The network of a trial with the weights at the end of its longest training, ready to predict.

    Raises: UserError when the weights cannot be read, or do not fit the architecture and the number of classes.
    """
    from nas.training.weights import load_into, load_weights

    network: Network = trial.architecture.build(num_classes)
    load_into(network, load_weights(run.weights_path(trial)), f"weights of {trial.name}")
    return network.eval()
