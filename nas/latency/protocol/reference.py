"""The two frozen networks that run beside every candidate: the reference it is timed against, and the canary.

FROZEN: a ratio to the reference is comparable only with ratios to the same network. Never change what this file builds;
a better reference is a second file with another NAME and its own anchors. For the same reason this file depends on
nothing else of the toolkit.

The reference has about 5.4 k multiply-adds per pixel (0.23 G at 180x240, 2.8 G at 512x1024): it is small beside a
candidate, takes long beside the resolution of the clock, and does the same kind of work as a candidate (3x3
convolutions at 1/4 and 1/8, upsampling, arg-max).

The canary is sensitive to what the reference hardly notices: the cost of passing activations from one core to another.
A hypervisor moves virtual cores about; two of them may share a cache, lie on dies that share none, or be the two
hardware threads of one core. Such a placement lasts for seconds to minutes and changes the latency of candidates by up
to half, while the reference takes the same time. The canary does little arithmetic on 64 channels, and the threads that
read these channels are not those that wrote them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

NAME = "reference-1"
CANARY_SIZE = (180, 240)  # whatever the input size: its activations must exceed the first caches of one core
CLASSES = 11


class Reference(nn.Module):
    """Eleven 3x3 convolutions and a 1x1 convolution; float (N, 3, H, W) -> logits (N, 11, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        # (in, out, stride): 1/2, 1/4 with four more, 1/8 with four more
        shapes = [(3, 16, 2), (16, 32, 2), *[(32, 32, 1)] * 4, (32, 64, 2), *[(64, 64, 1)] * 4]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in shapes)
        self.classifier = nn.Conv2d(64, CLASSES, 1)
        _draw_weights(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        x = self.classifier(x)  # (N, 11, H / 8, W / 8)
        return functional.interpolate(x, size=image.shape[-2:], mode="bilinear", align_corners=False)


class Canary(nn.Module):
    """A 4x4 convolution of stride 4 and a 1x1 convolution; float (N, 3, H, W) -> logits (N, 64, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 4, stride=4)
        self.mix = nn.Conv2d(64, 64, 1)
        _draw_weights(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.mix(self.stem(image))
        return mixed


@torch.no_grad()
def _draw_weights(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.zero_()
        else:  # keeps the variance of activations, away from denormal numbers, which slow a CPU down
            scale = (2 / parameter[0].numel()) ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
