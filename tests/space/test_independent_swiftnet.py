"""SwiftNet, its image pyramid and the blocks of its MobileNet variant and of ESPNet, written a second time.

As in `test_independent_networks.py`: plain PyTorch from the papers, weights copied in the order of first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import space
from space.architecture import Architecture
from space.context import SpatialPyramid
from space.decoders.ladder import LadderDecoder
from space.head import Head
from space.stage import Stage
from space.stem import Stem

CLASSES = 5
Compare = Callable[[Architecture, nn.Module, tuple[int, int]], float]


def resize(x: Tensor, like: Tensor, mode: str = "bilinear") -> Tensor:
    return functional.interpolate(x, size=tuple(like.shape[2:]), mode=mode, align_corners=False)


class Unit(nn.Sequential):
    """BN, ReLU, convolution."""

    def __init__(self, read: int, out: int, kernel: int) -> None:
        super().__init__(nn.BatchNorm2d(read), nn.ReLU(), nn.Conv2d(read, out, kernel, padding=kernel // 2, bias=False))


class BasicBlock(nn.Module):
    """ResNet's block with a batch norm per pyramid level; gives the output and the sum before its ReLU."""

    def __init__(self, read: int, out: int, stride: int, levels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(read, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(levels))
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(levels))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or read != out:
            self.shortcut = nn.Sequential(nn.Conv2d(read, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        y = self.bn2[level](self.conv2(functional.relu(self.bn1[level](self.conv1(x)))))
        total = y + self.shortcut(x)
        return functional.relu(total), total


class ResNet(nn.Module):
    """Widths 8, 12, 16, 20 at strides 4, 8, 16, 32, two blocks each."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(levels))
        widths = (8, 8, 12, 16, 20)
        self.blocks = nn.ModuleList()
        for index in range(4):
            self.blocks.append(BasicBlock(widths[index], widths[index + 1], 1 if index == 0 else 2, levels))
            self.blocks.append(BasicBlock(widths[index + 1], widths[index + 1], 1, levels))

    def taps(self, image: Tensor, level: int = 0) -> tuple[list[Tensor], list[Tensor]]:
        """Maps after and before the last ReLU of each layer, finest first."""
        x = functional.relu(self.bn[level](self.stem(image)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        after, before = [], []
        for index, block in enumerate(self.blocks):
            x, total = block(x, level)
            if index % 2:
                after.append(x)
                before.append(total)
        return after, before


class SwiftNet(nn.Module):
    def __init__(self, taps: str, grids: tuple[int, ...]) -> None:
        super().__init__()
        self.which, self.grids = taps, grids
        self.encoder = ResNet(levels=1)
        self.laterals = nn.ModuleList(Unit(read, 10, 1) for read in (8, 12, 16))
        self.bottleneck = Unit(20, 9, 1)
        self.spp = nn.ModuleList(Unit(9, 3, 1) for _ in grids)
        self.fuse = Unit(9 + 3 * len(grids), 10, 1)
        self.blends = nn.ModuleList(Unit(10, 10, 3) for _ in range(3))
        self.head = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, CLASSES, 1))

    def forward(self, image: Tensor) -> Tensor:
        after, before = self.encoder.taps(image)
        *finer, coarsest = after if self.which == "relu" else before
        laterals = [lateral(tap) for lateral, tap in zip(self.laterals, finer, strict=True)]
        x = self.bottleneck(coarsest)
        height, width = x.shape[2:]
        parts = [x]
        for grid, unit in zip(self.grids, self.spp, strict=True):
            cells = (grid, max(1, round(grid * width / height)))
            parts.append(resize(unit(functional.adaptive_avg_pool2d(x, cells)), x))
        y = self.fuse(torch.cat(parts, 1))
        for lateral, blend in zip(reversed(laterals), self.blends, strict=True):
            y = blend(resize(y, lateral) + lateral)
        return resize(self.head(y), image)


class PyramidSwiftNet(nn.Module):
    """Interleaved pyramidal fusion over two levels: strides 4; 8; 16; 32; and 64 from the half-size level alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet(levels=2)
        self.laterals = nn.ModuleList(nn.Conv2d(read, 10, 1, bias=False) for read in (8, 12, 16, 20))
        self.blends = nn.ModuleList(Unit(10, 10, 3) for _ in range(4))
        self.head = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, CLASSES, 1))

    def forward(self, image: Tensor) -> Tensor:
        half = functional.interpolate(image, scale_factor=0.5, mode="bicubic", align_corners=False)
        _, full_taps = self.encoder.taps(image, level=0)
        _, half_taps = self.encoder.taps(half, level=1)
        full = [lateral(tap) for lateral, tap in zip(self.laterals, full_taps, strict=True)]
        halved = [lateral(tap) for lateral, tap in zip(self.laterals, half_taps, strict=True)]
        sums = [full[0], full[1] + halved[0], full[2] + halved[1], full[3] + halved[2], halved[3]]
        x = sums.pop()
        for blend in self.blends:
            skip = sums.pop()
            x = blend(resize(x, skip) + skip)
        return resize(self.head(x), image)


def small_swiftnet(name: str) -> Architecture:
    parent = space.load(name)
    stages = tuple(replace(stage, width=width) for stage, width in zip(parent.stages, (8, 12, 16, 20), strict=True))
    return replace(parent, stem=replace(parent.stem, width=8), stages=stages)


@pytest.mark.parametrize("size", [(96, 160), (45, 61)])
@pytest.mark.parametrize("taps", ["relu", "sum"])
def test_swiftnet_gives_the_outputs_of_an_independent_implementation(
    largest_difference: Compare, taps: Literal["relu", "sum"], size: tuple[int, int]
) -> None:
    small = replace(
        small_swiftnet("swiftnet-rn18"),
        context=SpatialPyramid(bottleneck=9, level_width=3, grids=(3, 2)),
        decoder=LadderDecoder(width=10, taps=taps),
    )
    assert largest_difference(small, SwiftNet(taps, (3, 2)), size) <= 1e-9


def test_a_swiftnet_pyramid_gives_the_outputs_of_an_independent_implementation(largest_difference: Compare) -> None:
    small = replace(small_swiftnet("swiftnet-rn18-pyramid"), levels=2, decoder=LadderDecoder(width=10, taps="sum"))
    assert largest_difference(small, PyramidSwiftNet(), (128, 192)) <= 1e-9


class InvertedResidual(nn.Module):
    def __init__(self, read: int, out: int, stride: int, ratio: int) -> None:
        super().__init__()
        wide = read * ratio
        layers: list[nn.Module] = []
        if ratio != 1:
            layers += [nn.Conv2d(read, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide)]
        layers += [nn.ReLU6(), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.layers = nn.Sequential(*layers)
        self.identity = stride == 1 and read == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.identity else self.layers(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
            InvertedResidual(8, 6, 1, 1),
            *(InvertedResidual(6, 8, 2, 6), InvertedResidual(8, 8, 1, 6)),
            nn.Conv2d(8, CLASSES, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.body(image), image)


def test_mobilenet_blocks_give_the_outputs_of_an_independent_implementation(largest_difference: Compare) -> None:
    parent = space.load("swiftnet-mnv2")
    first, second = parent.stages[:2]
    small = replace(
        parent,
        stem=Stem(kind="convs", width=8),
        stages=(replace(first, width=6), replace(second, width=8)),
        context=None,
        decoder=None,
        head=Head(kind="linear"),
    )
    assert largest_difference(small, MobileNet(), (40, 56)) <= 1e-9


class EspModule(nn.Module):
    def __init__(self, read: int, out: int, down: bool = False) -> None:
        super().__init__()
        n = out // 5
        self.down = down
        self.reduce = nn.Conv2d(read, n, 3 if down else 1, stride=2 if down else 1, padding=int(down), bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(n, out - 4 * n if rate == 1 else n, 3, padding=rate, dilation=rate, bias=False)
            for rate in (1, 2, 4, 8, 16)
        )
        self.out = nn.Sequential(nn.BatchNorm2d(out, eps=1e-3), nn.PReLU(out))

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        d1, a1, d4, d8, d16 = (branch(reduced) for branch in self.branches)
        a2 = a1 + d4
        a3 = a2 + d8
        y = torch.cat([d1, a1, a2, a3, a3 + d16], 1)
        return self.out(y if self.down else y + x)


class EspNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.PReLU(8)),
            *(EspModule(8, 12, down=True), EspModule(12, 12), EspModule(12, 12)),
            nn.Conv2d(12, CLASSES, 1, bias=False),
        )

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.body(image), image)


def test_esp_modules_give_the_outputs_of_an_independent_implementation(largest_difference: Compare) -> None:
    parent = space.load("fplnet-encoder")
    stage = Stage(block="esp", width=12, depth=2, stride=2, rates=(1, 2, 4, 8, 16), down="module")
    small = replace(parent, stem=Stem(kind="convs", width=8), stages=(stage,), align_corners=False)
    assert largest_difference(small, EspNet(), (40, 56)) <= 1e-9
