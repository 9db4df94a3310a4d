"""Pixels near the border of their class weigh more: compared with distances found pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.training.boundary import boundary_weights
from nas.training.loss import segmentation_loss

DISTANCES, WEIGHTS = (2.0, 4.5, 7.0), (8.0, 4.0, 2.0, 1.0)


def blocks(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Labels (2, H, W) in blocks of 8, void among them, and a single pixel of another class."""
    drawn = np.random.default_rng(seed).choice([0, 1, 255], (2, -(-height // 8), -(-width // 8)))
    labels = drawn.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    labels[0, 3 % height, 5 % width] = 2
    return torch.from_numpy(labels.astype(np.int64))


def expected_weight(label: np.ndarray, row: int, column: int) -> float:
    if label[row, column] == 255:
        return 0.0
    rows, columns = np.nonzero(label != label[row, column])
    distance = np.hypot(rows - row, columns - column).min(initial=np.inf)
    return next((weight for end, weight in zip(DISTANCES, WEIGHTS, strict=False) if distance < end), WEIGHTS[-1])


@pytest.mark.parametrize("size", [(24, 30), (1, 40), (17, 1)])
def test_weights_follow_the_distance_from_the_nearest_pixel_of_another_class(size: tuple[int, int]) -> None:
    labels = blocks(*size)
    expected = [
        [[expected_weight(label, row, column) for column in range(size[1])] for row in range(size[0])]
        for label in labels.numpy()
    ]
    assert boundary_weights(labels, DISTANCES, WEIGHTS).tolist() == expected


def test_weights_change_at_the_distances_of_the_paper() -> None:
    labels = torch.zeros(1, 2, 300, dtype=torch.int64)
    labels[..., 0] = 1
    for distances in ((16.0, 64.0, 128.0), (16.0, 64.0, 200.0)):  # the squares of large distances need more bits
        weights = boundary_weights(labels, distances, WEIGHTS)[0, 0, 1:].tolist()
        ends = [0, *(int(distance) - 1 for distance in distances), 299]
        assert weights == [w for w, low, high in zip(WEIGHTS, ends, ends[1:], strict=False) for _ in range(low, high)]


def test_a_picture_of_one_class_has_no_border() -> None:
    labels = torch.full((2, 9, 9), 3)
    labels[1] = 255
    weights = boundary_weights(labels, DISTANCES, WEIGHTS)
    assert torch.equal(weights[0], torch.ones(9, 9))
    assert not weights[1].any()


@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.5, 2.0, 7.0])])
def test_the_loss_with_emphasis_is_that_of_the_paper(class_weights: torch.Tensor | None) -> None:
    """The loss is the mean over pixels of alpha exp(f (1 - p)) (-log p); the factor has no gradient."""
    labels = blocks(12, 12, seed=1)
    logits = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float()
    logits.requires_grad_()
    emphasis = boundary_weights(labels, DISTANCES, WEIGHTS)
    segmentation_loss(logits, labels, class_weights, emphasis=emphasis, focus=0.5).backward()
    p = logits.detach().double().softmax(1).numpy()
    loss, mass, gradient = 0.0, 0.0, np.zeros(p.shape)
    for n, row, column in np.ndindex(*labels.shape):
        true = int(labels[n, row, column])
        if true != 255:
            weight = 1.0 if class_weights is None else float(class_weights[true])
            factor = weight * float(emphasis[n, row, column]) * np.exp(0.5 * (1 - p[n, true, row, column]))
            loss -= factor * np.log(p[n, true, row, column])
            mass += weight
            gradient[n, :, row, column] = factor * (p[n, :, row, column] - (np.arange(3) == true))
    found = segmentation_loss(logits, labels, class_weights, emphasis=emphasis, focus=0.5)
    assert found.item() == pytest.approx(loss / mass, rel=1e-5)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), gradient / mass, atol=1e-6)


def test_the_loss_without_emphasis_is_the_plain_loss() -> None:
    labels = blocks(12, 12)
    logits = torch.randn(2, 3, 12, 12)
    plain = segmentation_loss(logits, labels)
    assert segmentation_loss(logits, labels, emphasis=torch.ones(2, 12, 12)).item() == pytest.approx(plain.item())
