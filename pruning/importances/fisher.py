"""Fisher information (Theis 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruning.importance import ChannelScores, Importance, LabelledData
from pruning.scores import gate_derivatives, mean
from pruning.surgery import Cutter

if TYPE_CHECKING:
    from space.network import Network


def fisher(cutter: Cutter, network: Network, data: LabelledData) -> ChannelScores:
    """Second-order estimate of the increase in loss without a channel, with the Fisher information as the Hessian: half
    the squared derivative with respect to its gate, averaged over images (Theis 2018, eq. 8; the gate is on everything
    that reads the channel).

    In a network trained to convergence, first derivatives are noise around zero, but their squares still show which
    channels matter. Returns one score per channel of the unpruned architecture.

    Raises: UserError when the loss is not finite.
    """
    images = ((image[None], label[None]) for batch in data.batches for image, label in zip(*batch, strict=True))
    return mean(derivative**2 / 2 for derivative in gate_derivatives(cutter, network, images, data.loss))


IMPORTANCE = Importance(of_loss=fisher)
