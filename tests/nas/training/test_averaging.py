"""The average of a network is that of torch's AveragedModel, bit by bit, and reads its state."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nas.training.averaging import Average
from space import Architecture
from space.network import Network

DECAY = 0.5


def of_torch(network: nn.Module) -> AveragedModel:
    def mean(averages: Sequence[Tensor], latest: Sequence[Tensor], steps: Tensor | int) -> None:
        if averages[0].is_floating_point():
            share = min(DECAY, (1 + int(steps)) / (10 + int(steps)))
            torch._foreach_lerp_(list(averages), list(latest), 1 - share)
        else:
            torch._foreach_copy_(list(averages), list(latest))

    return AveragedModel(network, multi_avg_fn=mean, use_buffers=True)


def steps(network: Network, *averages: AveragedModel | Average, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        with torch.no_grad():
            for each in network.parameters():
                each.add_(torch.randn(each.shape, generator=generator))
            network(torch.randn(2, 3, 32, 48, generator=generator))
        for average in averages:
            average.follow(network) if isinstance(average, Average) else average.update_parameters(network)


def same(one: Average | AveragedModel, other: Average | AveragedModel) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_average_is_that_of_torch_and_resumes_from_the_state_of_torch(architecture: Architecture) -> None:
    network = architecture.build(3).train()
    ours, theirs = Average(network, DECAY), of_torch(network)
    for count in (1, 1, 10):
        steps(network, ours, theirs, count=count)
        assert same(ours, theirs)
    assert not torch.equal(next(ours.module.parameters()), next(network.parameters()))
    restored = Average(network, DECAY)
    restored.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    steps(network, restored, theirs, count=2)
    assert same(restored, theirs)


@pytest.mark.parametrize("gone", ["n_averaged", "module.stem.conv.weight"])
def test_an_incomplete_state_of_an_average_is_refused(architecture: Architecture, gone: str) -> None:
    average = Average(architecture.build(3), DECAY)
    state = average.state_dict()
    del state[gone]
    with pytest.raises((KeyError, RuntimeError), match=gone.removeprefix("module.")):
        average.load_state_dict(state)


@pytest.mark.gpu
def test_averaging_does_not_wait_for_a_gpu(architecture: Architecture) -> None:
    network = architecture.build(3).cuda()
    average = Average(network, DECAY)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            average.follow(network)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(average.state_dict()["n_averaged"]) == 3
