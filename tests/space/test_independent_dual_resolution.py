"""DDRNet-23-slim, written a second time.

As in `test_independent_networks.py`: plain PyTorch from the paper's layers, weights copied in the order of first use.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import space
from space.architecture import Architecture

CLASSES = 5
Compare = Callable[[Architecture, nn.Module, tuple[int, int]], float]


def cb(read: int, out: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """Convolution, batch normalisation."""
    convolution = nn.Conv2d(read, out, kernel, stride=stride, padding=kernel // 2, bias=bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(out))


def pre(read: int, out: int, kernel: int, bias: bool = False) -> nn.Sequential:
    """Batch normalisation, ReLU, convolution."""
    return nn.Sequential(nn.BatchNorm2d(read), nn.ReLU(), nn.Conv2d(read, out, kernel, padding=kernel // 2, bias=bias))


def resize(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=tuple(like.shape[2:]), mode="bilinear", align_corners=False)


class Basic(nn.Module):
    """Two 3x3 convolutions; the sum."""

    def __init__(self, read: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(cb(read, width, 3, stride), nn.ReLU(), cb(width, width, 3))
        self.shortcut = cb(read, width, 1, stride) if stride > 1 or read != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Bottle(nn.Module):
    """1x1, 3x3, 1x1 to twice the width; the sum."""

    def __init__(self, read: int, width: int, stride: int) -> None:
        super().__init__()
        inner = [cb(read, width, 1), nn.ReLU(), cb(width, width, 3, stride), nn.ReLU()]
        self.body = nn.Sequential(*inner, cb(width, 2 * width, 1))
        self.shortcut = cb(read, 2 * width, 1, stride) if stride > 1 or read != 2 * width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def basics(read: int, width: int, stride: int = 1, count: int = 2) -> nn.Sequential:
    """Basic blocks with a ReLU between, and none behind the last."""
    layers: list[nn.Module] = [Basic(read, width, stride)]
    for _ in range(count - 1):
        layers += [nn.ReLU(), Basic(width, width, 1)]
    return nn.Sequential(*layers)


class Pyramid(nn.Module):
    """DAPPM: the map, three windows and the global mean, one processed after the other."""

    def __init__(self, read: int, width: int, out: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(pre(read, width, 1) for _ in range(5))
        self.process = nn.ModuleList(pre(width, width, 3) for _ in range(4))
        self.squeeze = pre(5 * width, out, 1)
        self.shortcut = pre(read, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        own = self.scales[0](x)
        pooled = [functional.avg_pool2d(x, 2 * s + 1, stride=s, padding=s, count_include_pad=True) for s in (2, 4, 8)]
        pooled.append(x.mean(dim=(2, 3), keepdim=True))
        means = [resize(scale(each), x) for scale, each in zip(list(self.scales)[1:], pooled, strict=True)]
        found = [own]
        for process, mean in zip(self.process, means, strict=True):
            found.append(process(mean + found[-1]))
        return self.squeeze(torch.cat(found, dim=1)) + self.shortcut(x)


class DdrNet(nn.Module):
    """The slim one; logits, and those of the auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(cb(3, 32, 3, 2, bias=True), nn.ReLU(), cb(32, 32, 3, 2, bias=True), nn.ReLU())
        rows = [(32, 32, 1), (32, 64, 2), (64, 128, 2), (128, 256, 2)]
        self.trunk = nn.ModuleList([*(basics(*row) for row in rows), Bottle(256, 256, 2)])
        self.detail = nn.ModuleList([basics(64, 64), basics(64, 64), Bottle(64, 64, 1)])
        self.down = nn.ModuleList([cb(64, 128, 3, 2), nn.Sequential(cb(64, 128, 3, 2), nn.ReLU(), cb(128, 256, 3, 2))])
        self.lateral = nn.ModuleList([cb(128, 64, 1), cb(256, 64, 1)])
        self.context = Pyramid(512, 128, 128)
        self.head = nn.Sequential(pre(128, 64, 3), pre(64, CLASSES, 1, bias=True))
        self.auxiliary = nn.Sequential(pre(64, 64, 3), pre(64, CLASSES, 1, bias=True))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = functional.relu(self.trunk[0](self.stem(image)))
        coarse = fine = self.trunk[1](x)
        taps = []
        for index in range(2):
            coarse, fine = self.trunk[2 + index](functional.relu(coarse)), self.detail[index](functional.relu(fine))
            down, up = self.down[index](functional.relu(fine)), self.lateral[index](functional.relu(coarse))
            coarse, fine = coarse + down, fine + resize(up, fine)
            taps.append(fine)
        coarse, fine = self.trunk[4](functional.relu(coarse)), self.detail[2](functional.relu(fine))
        logits = self.head(fine + resize(self.context(coarse), fine))
        return [resize(logits, image), resize(self.auxiliary(taps[0]), image)]


@pytest.mark.parametrize("size", [(128, 192), (100, 132)])
def test_ddrnet(largest_difference: Compare, size: tuple[int, int]) -> None:
    assert largest_difference(space.load("ddrnet23-slim"), DdrNet(), size) < 1e-9
