"""Predictions for one picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from nas.data import MEAN, STD
from nas.training.exact import in_float32
from nas.training.metrics import require_finite_logits
from space.network import labels_of


def predict(network: nn.Module, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Classes, uint8 (H, W), of a picture, uint8 (H, W, 3) of any size.

    The network, put into evaluation mode, sees the picture resized to height and width `size` (bilinear, antialiased);
    its labels are resized to the picture's own size by nearest.

    Raises: TrainingError when a logit is not finite.
    """
    return fitted(predicted_labels(network, network_input(image, size))[0], image.shape[:2])


def network_input(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """A picture, uint8 (H, W, 3) of any size, as networks see it at height and width `size`: float32 (1, 3, h, w)."""
    resized = Image.fromarray(image)
    if image.shape[:2] != size:
        resized = resized.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    # MEAN and STD are float64 here, so that only the last cast rounds. Tables are quicker than computing every pixel.
    tables = ((np.arange(256, dtype=np.float32)[:, None] / 255 - MEAN) / STD).astype(np.float32)  # (256, 3)
    values = np.asarray(resized)
    pixels = np.empty(values.shape, dtype=np.float32)
    for channel in range(3):
        pixels[..., channel] = tables[:, channel].copy().take(values[..., channel])
    return pixels.transpose(2, 0, 1)[None]


def predicted_labels(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Classes, uint8 (1, h, w), that a network, put into evaluation mode, gives for `image` (1, 3, h, w).

    Raises: TrainingError when a logit is not finite.
    """
    batch = torch.from_numpy(image)
    with torch.inference_mode(), in_float32():
        device = next(network.parameters()).device
        labels = labels_of(network.eval(), batch.to(device), require_finite_logits)
        return labels.to(torch.uint8).cpu().numpy()


def fitted(label: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """A label (h, w) resized to height and width `size` by nearest."""
    if label.shape == size:
        return label
    return np.array(Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST))
