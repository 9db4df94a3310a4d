"""The loss is that of the papers, also where torch's own would be NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.training.loss import class_weights, distillation_loss, hardest, segmentation_loss, total_loss
from nas.training.metrics import ConfusionMatrix


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (2, 5, 4), generator=generator)
    labels[0, :2] = 255
    return logits, labels


def test_class_weights_follow_the_formula() -> None:
    weights = class_weights([0.9, 0.1, 0.0], 1.02)
    assert weights.tolist() == pytest.approx([1 / math.log(1.92), 1 / math.log(1.12), 1 / math.log(1.02)])


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 7.0])])
def test_the_loss_of_labelled_pixels_is_that_of_torch(batch, weights) -> None:
    logits, labels = batch
    expected = F.cross_entropy(logits, labels, weight=weights, ignore_index=255)
    assert segmentation_loss(logits, labels, weights).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 7.0])])
def test_a_batch_of_void_has_no_loss_and_no_gradients(batch, weights) -> None:
    logits, labels = batch
    loss = total_loss([logits, logits], [0.4], torch.full_like(labels, 255), weights)
    loss = loss + distillation_loss(logits, logits.detach() + 1, torch.full_like(labels, 255), 2.0)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_losses_of_auxiliary_heads_count_with_their_weights(batch) -> None:
    logits, labels = batch
    other = logits.detach() * -1
    expected = segmentation_loss(logits, labels) + 0.4 * segmentation_loss(other, labels)
    assert total_loss([logits, other], [0.4], labels).item() == pytest.approx(expected.item())


def test_half_precision_logits_are_summed_in_float32(batch) -> None:
    logits, labels = batch
    many = logits.detach().repeat(1, 1, 60, 60)  # the sum over pixels exceeds float16's largest number
    loss = segmentation_loss(many.half() * 20, labels.repeat(1, 60, 60))
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_distillation_is_the_divergence_over_labelled_pixels(batch) -> None:
    logits, labels = batch
    teacher = logits.detach().flip(1)
    student = logits.detach()
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    per_pixel = (p * (p / q).log()).sum(1)
    expected = 9 * per_pixel[labels != 255].mean()
    assert distillation_loss(student, teacher, labels, 3.0).item() == pytest.approx(expected.item(), rel=1e-4)
    assert distillation_loss(student, student, labels, 3.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("probability", "share"), [(0.5, 0.0), (0.9, 0.1), (0.05, 0.5), (1e-9, 1.0), (1.0, 0.0)])
def test_the_hardest_pixels_are_those_of_least_probability(batch, probability, share) -> None:
    logits, labels = batch
    values, true = logits.detach().double().numpy(), labels.numpy()
    exponentials = np.exp(values)
    of_true = {
        place: exponentials[place[0], true[place], place[1], place[2]]
        / exponentials[place[0], :, place[1], place[2]].sum()
        for place in zip(*np.nonzero(true != 255), strict=True)
    }
    in_order = sorted(of_true, key=of_true.__getitem__)
    fewest = math.ceil(share * len(in_order))
    expected = {place for rank, place in enumerate(in_order) if of_true[place] < probability or rank < fewest}
    found = hardest(logits, labels, probability, share)
    assert set(zip(*(axis.tolist() for axis in torch.nonzero(found != 255).T), strict=True)) == expected
    assert torch.equal(found[found != 255], labels[found != 255])


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_hardest_pixels_follow_the_plain_definition_also_with_ties(data) -> None:
    pixels = data.draw(st.integers(1, 12))
    values = st.integers(-3, 3).map(float)  # few values, so that probabilities are often equal
    logits = torch.tensor(
        data.draw(st.lists(st.lists(values, min_size=3, max_size=3), min_size=pixels, max_size=pixels))
    )
    labels = torch.tensor(data.draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=pixels, max_size=pixels)))
    probability, share = data.draw(st.floats(0.01, 1)), data.draw(st.floats(0, 1))
    true, by_class = labels.numpy(), logits.softmax(1).numpy()
    known = np.flatnonzero(true != 255)
    of_true = by_class[known, true[known]]
    hard, fewest = of_true < np.float32(probability), math.ceil(share * len(known))
    if hard.sum() < fewest:
        hard = of_true <= np.sort(of_true)[fewest - 1]
    expected = np.full_like(true, 255)
    expected[known[hard]] = true[known[hard]]
    found = hardest(logits.T[None, :, None], labels[None, None], probability, share)
    assert found.flatten().tolist() == expected.tolist()


def test_pixels_that_are_not_hard_have_no_gradients(batch) -> None:
    logits, labels = batch
    taught = hardest(logits, labels, 0.3, 0.0)
    loss = total_loss([logits], [], labels, of_head=lambda logits, labels: hardest(logits, labels, 0.3, 0.0))
    loss.backward()
    assert loss.item() == pytest.approx(F.cross_entropy(logits, taught, ignore_index=255).item())
    moved = logits.grad.abs().sum(1) > 0
    assert torch.equal(moved, taught != 255)
    assert 0 < moved.sum() < (labels != 255).sum()


def test_a_batch_of_void_has_no_hard_pixels(batch) -> None:
    logits, labels = batch
    void = torch.full_like(labels, 255)
    assert torch.equal(hardest(logits, void, 0.9, 0.5), void)


@pytest.mark.gpu
def test_a_gpu_finds_the_same_hard_pixels_without_being_waited_for(batch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    logits, labels = batch[0].detach(), batch[1]
    expected = [hardest(logits, labels, probability, 0.3).tolist() for probability in (0.05, 0.9)]
    on_gpu, gpu_labels, matrix = logits.cuda(), labels.cuda(), ConfusionMatrix(3)
    matrix.look(on_gpu)
    matrix.update(on_gpu.argmax(1), gpu_labels)  # the first counts move the matrix to the GPU
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [hardest(on_gpu, gpu_labels, probability, 0.3) for probability in (0.05, 0.9)]
        matrix.look(on_gpu)
        matrix.update(on_gpu.argmax(1), gpu_labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [each.tolist() for each in found] == expected
    assert int(matrix.counts.sum()) == 2 * int((labels != 255).sum())
