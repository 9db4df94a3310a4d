"""Prediction of one picture: the network sees it as in scoring, and labels have the size of the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nas.data import MEAN, STD, make_loader, read_image
from nas.training.prediction import predict

SIZE = (32, 48)


@pytest.fixture
def network(architecture) -> nn.Module:
    torch.manual_seed(0)
    return architecture.build(3)


def test_predicted_labels_are_enlarged_to_the_image_size_by_nearest_neighbour(network) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (65, 125, 3), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(pixels).resize(SIZE[::-1], Image.Resampling.BILINEAR))
    batch = torch.tensor((resized / 255 - np.array(MEAN)) / np.array(STD), dtype=torch.float32)
    with torch.no_grad():
        expected = network.eval()(batch.permute(2, 0, 1)[None])[0].argmax(0).numpy()  # (32, 48)
    label = predict(network.train(), pixels, SIZE)
    rows = (np.arange(65) + 0.5) * SIZE[0] // 65
    columns = (np.arange(125) + 0.5) * SIZE[1] // 125
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, expected[np.ix_(rows.astype(int), columns.astype(int))])
    assert len(np.unique(label)) > 1


def test_a_network_sees_a_picture_in_prediction_as_in_scoring(network, dataset) -> None:
    loader = make_loader(dataset, "validation", batch_size=1, augmentation=None)
    for path, (images, _) in zip(dataset.validation.images, loader.epoch(0), strict=True):
        with torch.no_grad():
            scored = network.eval()(images)[0].argmax(0).numpy()
        assert (predict(network, read_image(path, None), SIZE) == scored).mean() > 0.998  # other pixels are ties
