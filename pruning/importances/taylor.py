"""First-order Taylor expansion of the loss (Molchanov 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pruning.importance import ChannelScores, Importance, LabelledData
from pruning.scores import gate_derivatives, mean
from pruning.surgery import Cutter

if TYPE_CHECKING:
    from space.network import Network


def taylor(cutter: Cutter, network: Network, data: LabelledData) -> ChannelScores:
    """First-order estimate of the change in loss without a channel: the absolute derivative with respect to its gate,
    averaged over batches of equal weight (Molchanov 2017, eq. 2; the gate is on everything that reads the channel).

    Returns one score per channel of the unpruned architecture.

    Raises: UserError when the loss is not finite.
    """
    derivatives = gate_derivatives(cutter, network, data.batches, data.loss)
    return mean(np.abs(derivative) for derivative in derivatives)


IMPORTANCE = Importance(of_loss=taylor, of_batches=True)
