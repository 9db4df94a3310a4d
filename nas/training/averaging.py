"""The exponential moving average of a network over the steps of its training."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

MOST_RECENT = 10  # steps: the decay at step t of a training is at most (1 + t) / (10 + t)
STEPS = "n_averaged"  # the key of torch's AveragedModel, which earlier versions used
MODULE = "module."


class Average:
    """The exponential moving average of a network's weights and batch-norm statistics. Unlike torch's AveragedModel,
    which counts steps on the GPU, it never waits for the GPU.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network)
        """The averaged network, in the mode that the network was in."""
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Update the average with the network after a step; the first step replaces it."""
        decay = min(self._decay, (1 + self._steps) / (MOST_RECENT + self._steps)) if self._steps else 0.0
        averages, counts = _sorted(self.module)
        latest, latest_counts = _sorted(network)
        torch._foreach_lerp_(averages, latest, 1 - decay)
        if counts:
            torch._foreach_copy_(counts, latest_counts)
        self._steps += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `load_state_dict` needs; the tensors are those of the average, not copies."""
        whole = {MODULE + name: tensor for name, tensor in self.module.state_dict().items()}
        return {STEPS: torch.tensor(self._steps), **whole}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the result of `state_dict`.

        Raises: KeyError or RuntimeError when it is incomplete or of another network.
        """
        self._steps = int(state[STEPS])
        whole = {name.removeprefix(MODULE): tensor for name, tensor in state.items() if name != STEPS}
        self.module.load_state_dict(whole)


def _sorted(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The floating-point tensors of a network, which are averaged, and the others: the batch counters of its norms."""
    every = [*network.parameters(), *network.buffers()]
    numbers = [each for each in every if each.is_floating_point()]
    return numbers, [each for each in every if not each.is_floating_point()]
