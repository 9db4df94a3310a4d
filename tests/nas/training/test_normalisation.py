"""Fresh batch-norm statistics are those of the images; no other number changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nas.training.normalisation import reestimate_batch_norm


class Batches:
    """Three batches of known statistics."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = [torch.randn(2, 3, 8, 8, generator=generator) * k + k for k in (1.0, 2.0, 3.0)]

    @property
    def backend(self) -> str:
        return "torch"

    def __len__(self) -> int:
        return len(self.images)

    def epoch(self, number: int, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        return ((images, torch.zeros(2, 8, 8, dtype=torch.int64)) for images in self.images[:most])


@pytest.mark.parametrize(("asked", "used"), [(2, 2), (9, 3)])
def test_statistics_are_the_average_over_the_batches(asked: int, used: int) -> None:
    batches = Batches()
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout2d(0.5), nn.Conv2d(3, 2, 1)).train()
    network(torch.randn(4, 3, 8, 8) + 100)
    weights = [parameter.clone() for parameter in network.parameters()]
    assert reestimate_batch_norm(network, batches, asked) == used
    norm = network[0]
    means = torch.stack([images.mean((0, 2, 3)) for images in batches.images[:used]])
    variances = torch.stack([images.var((0, 2, 3)) for images in batches.images[:used]])
    assert torch.allclose(norm.running_mean, means.mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, variances.mean(0), atol=1e-4)
    assert norm.momentum == 0.1
    assert all(module.training for module in network.modules())
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))


def test_statistics_stay_the_same_without_batches() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3)).eval()
    network[0].running_mean.fill_(7)
    assert reestimate_batch_norm(network, Batches(), 0) == 0
    assert network[0].running_mean.tolist() == [7, 7, 7]
    assert not network.training
