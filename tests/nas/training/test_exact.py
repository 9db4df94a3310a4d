"""Scores, labels and statistics are computed in float32, not in TF32, the default of convolutions on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.backends import cudnn

from nas.data import Dataset, make_loader
from nas.quantization.scoring import score_labels
from nas.training.evaluation import evaluate
from nas.training.exact import in_float32
from nas.training.normalisation import reestimate_batch_norm
from nas.training.own_size import View, confusion_at_own_size, label_at_own_size
from nas.training.prediction import predicted_labels

PICTURE = np.zeros((32, 48, 3), dtype=np.uint8)


class Looking(nn.Module):
    """A network that records the settings of cuDNN during its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.seen: list[tuple[bool, bool, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(settings())
        return self.layer(images)


def settings() -> tuple[bool, bool, bool, bool]:
    return cudnn.allow_tf32, cudnn.enabled, cudnn.benchmark, cudnn.deterministic


def batches(dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    return make_loader(dataset, "validation", batch_size=1, augmentation=None).epoch(0)


@pytest.mark.parametrize(
    "look",
    [
        lambda network, dataset: evaluate(network, dataset),
        lambda network, dataset: confusion_at_own_size(network, dataset, "validation", View(size=dataset.size)),
        lambda network, dataset: label_at_own_size(network, PICTURE, View(size=(32, 48))),
        lambda network, dataset: predicted_labels(network, np.zeros((1, 3, 32, 48), dtype=np.float32)),
        lambda network, dataset: score_labels([], network, batches(dataset), 3),
        lambda network, dataset: reestimate_batch_norm(
            network, make_loader(dataset, "train", batch_size=4, augmentation=None), 1
        ),
    ],
    ids=["scores", "scores at their own size", "a label at its own size", "labels", "forms", "statistics"],
)
@pytest.mark.parametrize("benchmark", [False, True])
def test_predictions_scores_and_statistics_are_computed_in_float32(
    look: Callable[[nn.Module, Dataset], object], dataset, benchmark, monkeypatch
) -> None:
    monkeypatch.setattr(cudnn, "allow_tf32", True)  # torch's default
    monkeypatch.setattr(cudnn, "benchmark", benchmark)
    network = Looking()
    look(network, dataset)
    assert set(network.seen) == {(False, True, benchmark, False)}
    assert settings() == (True, True, benchmark, False)


@pytest.mark.gpu
def test_convolutions_of_predictions_on_a_gpu_use_all_bits() -> None:
    layer = nn.Conv2d(64, 64, 3).cuda()
    images = torch.randn(2, 64, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    with torch.no_grad(), in_float32():
        apart = (layer(images) - layer.double()(images.double())).abs().max()
    assert float(apart) < 1e-5
