"""What a network sees in one picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from nas.data import MEAN, STD


def predict(network: nn.Module, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Classes, uint8 (H, W), of a picture, uint8 (H, W, 3) of any size.

    The network, put into evaluation mode, sees it resized to height and width `size` (bilinear, antialiased); its
    labels are brought back to the picture's size by nearest.
    """
    height, width = image.shape[:2]
    resized = Image.fromarray(image)
    if (height, width) != size:
        resized = resized.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    # MEAN and STD are float64 here, so that only the last cast rounds.
    pixels = (np.asarray(resized, dtype=np.float32) / 255 - MEAN) / STD
    batch = torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1)).unsqueeze(0)  # (1, 3, h, w)
    with torch.inference_mode():
        logits = network.eval()(batch.to(next(network.parameters()).device))
    label = Image.fromarray(logits[0].argmax(0).to(torch.uint8).cpu().numpy())
    if (height, width) != size:
        label = label.resize((width, height), Image.Resampling.NEAREST)
    return np.array(label)
