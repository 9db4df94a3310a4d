"""The interface of importances, which score channels. Each kind is a file in `pruning/importances/`."""

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
LossFunction = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """Labelled images and a loss on them."""

    batches: Iterable[Batch]
    """Images, float (N, 3, H, W), and labels, int64 (N, H, W), on the network's device; at least one batch."""
    loss: LossFunction
    """Maps logits (N, C, H, W) and labels (N, H, W) to a scalar."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """A way to score channels, from the weights alone or from a loss on labelled data; exactly one of the two is given.

    Scores are float64, finite and non-negative, one per channel of the unpruned architecture; channels that were cut
    have 0. Scores are comparable between groups, and a channel whose weights are all zero has the lowest score of its
    group. Scoring is deterministic and does not change the network's weights, statistics, mode or gradients.
    """

    of_weights: Callable[[Cutter, Network], ChannelScores] | None = None
    of_loss: Callable[[Cutter, Network, LabelledData], ChannelScores] | None = None
    of_batches: bool = False
    """Whether scores depend on how images are grouped into batches, because they are not computed image by image."""

    def __post_init__(self) -> None:
        assert (self.of_weights is None) != (self.of_loss is None), "give of_weights or of_loss"

    @property
    def needs_data(self) -> bool:
        """Whether labelled data are required."""
        return self.of_loss is not None

    def scores(self, cutter: Cutter, network: Network, data: LabelledData | None = None) -> ChannelScores:
        """One score per channel of the unpruned architecture; `network` has the cutter's architecture.

        Raises: UserError when data are required and missing, when the loss is not finite, and for a network in its
        training form.
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
