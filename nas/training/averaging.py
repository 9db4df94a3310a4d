"""The exponential moving average of a network over the steps of its training."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

MOST_RECENT = 10  # steps: step t of a training decays by (1 + t) / (10 + t) at most
STEPS = "n_averaged"  # as torch's AveragedModel calls it, which wrote checkpoints of earlier versions
MODULE = "module."


class Average:
    """The average of a network, its weights and its batch-norm statistics. A GPU is not waited for, as torch's
    AveragedModel does, which counts on it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network)
        """The average, which computes in the mode that the network was in."""
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Take in the network as a step has left it; as it is after the first one."""
        share = min(self._decay, (1 + self._steps) / (MOST_RECENT + self._steps)) if self._steps else 0.0
        averages, counts = _sorted(self.module)
        latest, latest_counts = _sorted(network)
        torch._foreach_lerp_(averages, latest, 1 - share)
        if counts:
            torch._foreach_copy_(counts, latest_counts)
        self._steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs; its tensors are those of the average, no copies."""
        whole = {MODULE + name: tensor for name, tensor in self.module.state_dict().items()}
        return {STEPS: torch.tensor(self._steps), **whole}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises: KeyError or RuntimeError when it is another network's, or in part.
        """
        self._steps = int(state[STEPS])
        whole = {name.removeprefix(MODULE): tensor for name, tensor in state.items() if name != STEPS}
        self.module.load_state_dict(whole)


def _sorted(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """What is averaged of a network, and what is not: how many batches each norm has seen."""
    every = [*network.parameters(), *network.buffers()]
    numbers = [each for each in every if each.is_floating_point()]
    return numbers, [each for each in every if not each.is_floating_point()]
