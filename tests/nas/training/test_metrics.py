"""Scores equal those counted with sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.errors import DataError, TrainingError
from nas.training.metrics import ConfusionMatrix


def by_sets(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[list[float | None], float]:
    """IoU and pixel accuracy from the definition: sets of labelled pixels."""
    known = {index for index, label in np.ndenumerate(labels) if label != 255}
    iou: list[float | None] = []
    for c in range(num_classes):
        said = {index for index in known if predicted[index] == c}
        true = {index for index in known if labels[index] == c}
        iou.append(len(said & true) / len(said | true) if said | true else None)
    return iou, sum(predicted[index] == labels[index] for index in known) / len(known)


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted = random.integers(0, 4, (6, 9, 7))
    labels = random.choice([0, 1, 2, 4, 255], (6, 9, 7))  # 3 is only predicted, 4 only labelled, 5 neither
    matrix = ConfusionMatrix(6)
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        matrix.update(torch.from_numpy(predicted[part]), torch.from_numpy(labels[part]))
    scores = matrix.scores()
    iou, accuracy = by_sets(predicted, labels, 6)
    assert scores.class_iou[3] == scores.class_iou[4] == 0.0
    assert scores.class_iou[5] is None
    assert scores.class_iou[:5] == pytest.approx(iou[:5])
    assert scores.miou == pytest.approx(np.mean([value for value in iou if value is not None]))
    assert scores.pixel_accuracy == pytest.approx(accuracy)


def test_a_perfect_prediction_scores_one() -> None:
    labels = torch.tensor([[[0, 1], [2, 255]]])
    matrix = ConfusionMatrix(5)
    matrix.update(torch.tensor([[[0, 1], [2, 4]]]), labels)
    assert matrix.scores().miou == matrix.scores().pixel_accuracy == 1.0
    assert matrix.scores().class_iou == (1.0, 1.0, 1.0, None, None)


def test_counts_stay_exact_beyond_float32() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts[0, 0] = 2**40
    matrix.update(torch.tensor([[0]]), torch.tensor([[0]]))
    assert int(matrix.counts[0, 0]) == 2**40 + 1


def test_void_alone_cannot_be_scored() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), 255))
    with pytest.raises(DataError, match=r"only void"):
        matrix.scores()


def test_a_label_that_is_no_class_is_refused_when_counts_are_read() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[1, 7]]))
    matrix.update(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[1, 255]]))
    for read in (matrix.scores, lambda: matrix.grouped([0, 0, 1]), lambda: matrix.counts):
        with pytest.raises(DataError, match=r"expected labels 0..2 or 255.*got 7"):
            read()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_logits_with_nan_are_refused_when_counts_are_read(number: float) -> None:
    logits = torch.zeros(2, 3, 4, 4)
    matrix = ConfusionMatrix(3)
    matrix.look(logits)
    assert not matrix.counts.any()
    logits[1, 2, 3, 0] = number
    matrix.look(logits)
    matrix.look(torch.zeros(2, 3, 4, 4))  # later batches do not hide it
    for read in (matrix.scores, lambda: matrix.grouped([0, 0, 1]), lambda: matrix.counts):
        with pytest.raises(TrainingError, match=r"expected finite logits, got NaN or infinite numbers"):
            read()
