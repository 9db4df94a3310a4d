"""What an importance is: a way to score channels. Each kind is a file in `pruning/importances/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pruning.surgery import Cutter
from space.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from space.network import Network

ChannelScores = NDArray[np.float64]
Batch = tuple["Tensor", "Tensor"]
Loss = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """What a loss is computed on."""

    batches: Iterable[Batch]
    """Images, float (N, 3, H, W), and labels, int64 (N, H, W), on the network's device; at least one batch."""
    loss: Loss
    """A scalar of logits (N, C, H, W) and labels (N, H, W)."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """A way to score channels, by the weights alone or by what a loss on labelled data does: one of the two is given.

    Scores are float64, finite and not negative, one per channel of the unpruned architecture; those that are gone have
    0. They are comparable between groups, and a channel whose weights are all zero is the last of its group. The same
    network has the same scores, and is left as it was: weights, statistics, mode and gradients.
    """

    of_weights: Callable[[Cutter, Network], ChannelScores] | None = None
    of_loss: Callable[[Cutter, Network, LabelledData], ChannelScores] | None = None
    of_batches: bool = False
    """Whether scores depend on which images are in a batch together, as those that are not computed image by image."""

    def __post_init__(self) -> None:
        assert (self.of_weights is None) != (self.of_loss is None), "give of_weights or of_loss"

    @property
    def needs_data(self) -> bool:
        """Whether labelled data have to be there."""
        return self.of_loss is not None

    def scores(self, cutter: Cutter, network: Network, data: LabelledData | None = None) -> ChannelScores:
        """One score per channel of the unpruned architecture; `network` is of the cutter's architecture.

        Raises: UserError when it needs data and gets none, or when the loss is not finite; for a network in the form
        that is trained, not the one that runs.
        """
        from space.paths import require_folded

        require_folded(network)
        if self.of_weights is not None:
            return self.of_weights(cutter, network)
        assert self.of_loss is not None
        if data is None:
            raise UserError(
                "importance: expected labelled data to compute gradients on, got none; give data, or choose an "
                "importance that looks at the weights alone"
            )
        return self.of_loss(cutter, network, data)
