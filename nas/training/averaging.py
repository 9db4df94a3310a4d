"""The exponential moving average of a network over the steps of its training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain

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
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]  # of the batches that a norm has seen
        averages, latest = (list(each) for each in zip(*numbers, strict=True))
        torch._foreach_lerp_(averages, latest, 1 - share)
        if counts:
            torch._foreach_copy_(*(list(each) for each in zip(*counts, strict=True)))
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


def _tensors(network: nn.Module) -> chain[Tensor]:
    return chain(network.parameters(), network.buffers())
