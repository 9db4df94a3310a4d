"""Communication of the processes that train one network together: sums, and waiting for each other.

Tensors on the CPU are exchanged by gloo, those on a GPU by NCCL (`nas.runs.processes` sets up the group). A single
process exchanges nothing, and computes bit for bit as it would without this module.
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
    """The sum of `value` over the processes; no gradient flows through it."""
    if share.is_whole:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor, share: Share) -> Tensor:
    """The mean of `value` over the processes, float32; `value` itself if there is only one process."""
    return value if share.is_whole else summed(value.float(), share) / share.count


def told_by_first(value: int, share: Share) -> int:
    """The `value` of the first process; those of the others are ignored."""
    return int(summed(torch.tensor(0 if share.rank else value), share)) if not share.is_whole else value


def all_have(one: bool, share: Share) -> bool:
    """Whether `one` is true in every process."""
    return one if share.is_whole else int(summed(torch.tensor(int(one)), share)) == share.count


def all_bring(number: int, share: Share) -> bool:
    """Whether `number` is equal in every process."""
    if share.is_whole:
        return True
    bounds = torch.tensor([number, -number])
    dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
    return int(bounds[0]) == -int(bounds[1])


def meet(share: Share) -> None:
    """Wait until every process has come here."""
    all_have(True, share)


@contextmanager
def entered_by_first(guard: Guard, share: Share) -> Iterator[None]:
    """Context of a `guard()` that the first process of each machine enters for all on that machine, and leaves when all
    are ready.

    If every process entered the guard, there could be a deadlock: one waits inside for a second one, which waits
    outside for a timing, which waits for the first one to leave. To prevent this between machines too, their guards are
    entered one after another, in the order of the machines.
    """
    with ExitStack() as entered:
        for machine in range(share.machine_count):
            if share.stands_for(machine):
                entered.enter_context(guard())
            meet(share)
        yield
        meet(share)


class SharedNorm(nn.SyncBatchNorm):
    """A batch norm whose statistics in training cover the images of all processes, on any device.

    Torch's own is only for GPUs and cannot handle a process without images: in half precision such a process sends
    another type, and its input has no gradient, so that the others wait for ever.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W), normalised; N may be 0 in some processes. Computed in float32."""
        if not self.training:
            return super().forward(x)
        over = (0, 2, 3)
        values = x.float()
        count = values.new_full((1,), values.numel() / values.shape[1])  # made on the GPU: sending it would wait
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
        """Update the running statistics with those of a batch; without momentum, as a plain average."""
        assert self.running_mean is not None, "its statistics are kept"
        assert self.running_var is not None, "its statistics are kept"
        assert self.num_batches_tracked is not None, "its statistics are kept"
        self.num_batches_tracked += 1
        # A tensor in both cases: reading the number from a GPU would wait for it.
        share = 1 / self.num_batches_tracked if self.momentum is None else mean.new_full((), self.momentum)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def share_norms(network: nn.Module, share: Share) -> None:
    """Make the batch norms of a network take their statistics over all processes; names and values stay as they are."""
    if share.is_whole:
        return
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                shared = SharedNorm(norm.num_features, norm.eps, norm.momentum)
                shared.load_state_dict(norm.state_dict())
                setattr(parent, name, shared)


def average_gradients(parameters: Iterable[nn.Parameter], loss: Tensor, share: Share) -> Tensor:
    """Replace the gradients by their mean over the processes; returns that of the loss, which is sent along.

    All gradients are sent at once after the backward pass: real-time networks are small, so that this takes little time
    compared with the step.
    """
    if share.is_whole:
        return loss
    gradients = [each.grad for each in parameters if each.grad is not None]
    together = torch.cat([each.flatten() for each in (*gradients, loss)])
    # A GPU would wait for ever for numbers that another one does not send.
    assert all_bring(together.numel(), share), f"expected {together.numel():,} gradients from each process, got others"
    dist.all_reduce(together)
    together /= share.count
    *means, of_loss = torch.split(together, [each.numel() for each in (*gradients, loss)])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return of_loss.view_as(loss)


class _SumWithGradient(torch.autograd.Function):
    """The sum over the processes, with a gradient, since the loss of each process depends on it."""

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
