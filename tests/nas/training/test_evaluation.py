"""Scoring shows every image once and compares at the labels' size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.data import read_label
from nas.errors import DataError
from nas.training.evaluation import evaluate, evaluate_batches
from space.count import memory


class Always(nn.Module):
    """A network that predicts one class everywhere, at half the size of the image."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.nn.functional.one_hot(torch.tensor(answer), 3).float())

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2] // 2, images.shape[-1] // 2
        return self.logits.view(1, 3, 1, 1).expand(len(images), 3, height, width)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_constant_prediction_scores_its_share_of_the_labels(dataset, split, batch_size) -> None:
    labels = [read_label(dataset, path, None) for path in dataset.split(split).labels]
    known = sum(int((label != 255).sum()) for label in labels)
    share = sum(int((label == 0).sum()) for label in labels) / known
    network = Always(0).train()
    scores = evaluate(network, dataset, batch_size=batch_size, split=split)
    assert scores.pixel_accuracy == pytest.approx(share)
    assert scores.class_iou == pytest.approx((share, 0.0, 0.0))
    assert network.training


def test_fewer_images_are_scored_at_a_time_if_memory_is_short(architecture, dataset, monkeypatch) -> None:
    network, told = architecture.build(3), []
    free = memory(architecture, dataset.size, 3).inference_bytes(3)
    monkeypatch.setattr("nas.host.memory.free_bytes", lambda device: free)
    scores = evaluate(network, dataset, count=told.append)
    assert told == [3, 1]
    assert scores == evaluate(network, dataset, batch_size=4)


def test_images_without_labelled_pixels_cannot_be_scored() -> None:
    void = [(torch.zeros(1, 3, 8, 8), torch.full((1, 8, 8), 255))]
    with pytest.raises(DataError, match=r"expected labelled pixels"):
        evaluate_batches(Always(1), void, 3)
