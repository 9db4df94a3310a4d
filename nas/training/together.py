"""What the processes that train one network together tell each other: sums, and when all of them are ready.

Numbers on the CPU go by gloo, those on a GPU by NCCL (`nas.runs.processes` has them meet). A process that is alone
tells nobody anything, and computes to the last bit as if nothing of this were there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nas.data.long_work import Guard
from nas.data.share import Share


def summed(value: Tensor, share: Share) -> Tensor:
    """The sum over the processes; nothing is differentiated through it."""
    if share.is_whole:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def mean_of(value: Tensor, share: Share) -> Tensor:
    """The mean over the processes, float32; `value` itself where there is one."""
    return value if share.is_whole else summed(value.float(), share) / share.count


def told_by_first(value: int, share: Share) -> int:
    """The value that the first process has; what the others give does not matter."""
    return int(summed(torch.tensor(0 if share.rank else value), share)) if not share.is_whole else value


def all_have(one: bool, share: Share) -> bool:
    """Whether this is so in every process."""
    return one if share.is_whole else int(summed(torch.tensor(int(one)), share)) == share.count


def all_bring(number: int, share: Share) -> bool:
    """Whether this number is the same in every process."""
    if share.is_whole:
        return True
    bounds = torch.tensor([number, -number])
    dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
    return int(bounds[0]) == -int(bounds[1])


def meet(share: Share) -> None:
    """Wait until every process is here."""
    all_have(True, share)


@contextmanager
def entered_by_first(guard: Guard, share: Share) -> Iterator[None]:
    """Inside a `guard()` that the first process of each machine enters for all there, and leaves when all are ready.

    Were each to enter it, one would wait in it for another, which waits outside for whoever waits for the first. So
    that this does not happen between machines either, they are entered one after the other, in their order.
    """
    with ExitStack() as entered:
        for machine in range(share.machine_count):
            if share.stands_for(machine):
                entered.enter_context(guard())
            meet(share)
        yield
        meet(share)


class SharedNorm(nn.SyncBatchNorm):
    """A batch norm whose statistics in training are of the images of all processes, on any device.

    Torch's is for GPUs alone, and cannot do with a process that has no image: in half precision what that one tells is
    of another type, and what it reads has no gradient, so that the others wait for ever.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W), normalised; N may be 0 in some processes. Computed in float32."""
        if not self.training:
            return super().forward(x)
        over = (0, 2, 3)
        values = x.float()
        count = values.new_full((1,), values.numel() / values.shape[1])  # on the GPU: to send it one is to wait
        sums = torch.cat([values.sum(over), count])
        sums = _summed_with_gradient(sums)
        total = sums[-1]
        mean = (sums[:-1] / total)[:, None, None]
        centred = values - mean
        variance = _summed_with_gradient(centred.square().sum(over)) / total
        self._follow(mean.detach().flatten(), variance.detach() * total / (total - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow those of a batch: as a plain average where there is no momentum."""
        assert self.running_mean is not None, "its statistics are kept"
        assert self.running_var is not None, "its statistics are kept"
        assert self.num_batches_tracked is not None, "its statistics are kept"
        self.num_batches_tracked += 1
        # A tensor either way: to ask a GPU for the number is to wait for it.
        share = 1 / self.num_batches_tracked if self.momentum is None else mean.new_full((), self.momentum)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def share_norms(network: nn.Module, share: Share) -> None:
    """Let the batch norms of a network take their statistics over all processes; names and values stay as they are."""
    if share.is_whole:
        return
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                shared = SharedNorm(norm.num_features, norm.eps, norm.momentum)
                shared.load_state_dict(norm.state_dict())
                setattr(parent, name, shared)


def average_gradients(parameters: Iterable[nn.Parameter], loss: Tensor, share: Share) -> Tensor:
    """Let the gradients be their mean over the processes; that of the loss, which goes with them.

    They go all at once after the backward pass: networks for real time are small, and a step is long beside it.
    """
    if share.is_whole:
        return loss
    gradients = [each.grad for each in parameters if each.grad is not None]
    together = torch.cat([each.flatten() for each in (*gradients, loss)])
    # A GPU would wait for ever for numbers that another one does not bring.
    assert all_bring(together.numel(), share), f"other processes bring other gradients than these {together.numel():,}"
    dist.all_reduce(together)
    together /= share.count
    *means, of_loss = torch.split(together, [each.numel() for each in (*gradients, loss)])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return of_loss.view_as(loss)


class _SumWithGradient(torch.autograd.Function):
    """The sum over the processes, which the loss of each depends on."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        """The sum of every process's `value`."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """The sum of every process's gradient."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _summed_with_gradient(value: Tensor) -> Tensor:
    total: Tensor = _SumWithGradient.apply(value)  # type: ignore[no-untyped-call]
    return total
