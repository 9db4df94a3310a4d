"""ERFNet, FPLNet and NDNet written a second time, in plain PyTorch from their papers, give the same numbers.

Weights are copied in the order in which layers first compute, so these tests do not depend on names or assembly of
layers in `space` (`largest_difference`). Networks are narrow and shallow but have all parts of the published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import space
from space.architecture import Architecture
from space.block import PairwiseFusion
from space.decoders.cat import CatDecoder
from space.decoders.deconv import DeconvDecoder
from space.head import Auxiliary, Head
from space.stage import DecoderStep

CLASSES = 5
Compare = Callable[[Architecture, nn.Module, tuple[int, int]], float]


def resize(x: Tensor, size: tuple[int, int] | torch.Size, align_corners: bool = False) -> Tensor:
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


# --- ERFNet --------------------------------------------------------------------------------------------------------


class ErfDown(nn.Module):
    def __init__(self, read: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(read, out - read, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(torch.cat([self.conv(x), functional.max_pool2d(x, 2, stride=2)], 1)))


class NonBottleneck1D(nn.Module):
    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.b = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self.c = nn.Conv2d(width, width, (3, 1), padding=(rate, 0), dilation=(rate, 1))
        self.d = nn.Conv2d(width, width, (1, 3), padding=(0, rate), dilation=(1, rate))
        self.bn2 = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.b(functional.relu(self.a(x)))))
        return functional.relu(self.bn2(self.d(functional.relu(self.c(y)))) + x)


class ErfUp(nn.Module):
    def __init__(self, read: int, out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(read, out, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class ErfNet(nn.Module):
    def __init__(self, decoder: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            ErfDown(3, 6),
            ErfDown(6, 10),
            NonBottleneck1D(10, 1),
            NonBottleneck1D(10, 1),
            ErfDown(10, 16),
            *(NonBottleneck1D(16, rate) for rate in (2, 4, 8, 16, 2)),
        )
        self.head = nn.Conv2d(16, CLASSES, 1)
        self.decoder = None
        if decoder:
            self.decoder = nn.Sequential(
                ErfUp(16, 10),
                NonBottleneck1D(10, 1),
                NonBottleneck1D(10, 1),
                ErfUp(10, 6),
                NonBottleneck1D(6, 1),
                nn.ConvTranspose2d(6, CLASSES, 2, stride=2),
            )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        features = self.encoder(x)
        if self.decoder is None:
            return resize(self.head(features), x.shape[2:])
        return [self.decoder(features), resize(self.head(features), x.shape[2:])]


def small_erfnet(decoder: bool) -> Architecture:
    parent = space.load("erfnet")
    first, second = parent.stages
    small = replace(
        parent,
        stem=replace(parent.stem, width=6),
        stages=(replace(first, width=10, depth=2, dropout=0.0), replace(second, width=16, depth=5, dropout=0.0)),
        decoder=None,
        head=Head(kind="linear"),
        auxiliary=(),
    )
    if not decoder:
        return small
    steps = tuple(
        DecoderStep(width=width, depth=depth, block="nonbt", factorization="all") for width, depth in ((10, 2), (6, 1))
    )
    return replace(
        small,
        decoder=DeconvDecoder(projection=0, steps=steps),
        head=Head(kind="deconv2"),
        auxiliary=(Auxiliary(stage=1, width=0, weight=0.4),),
    )


@pytest.mark.parametrize("decoder", [False, True])
def test_erfnet_gives_the_outputs_of_an_independent_implementation(largest_difference: Compare, decoder: bool) -> None:
    assert largest_difference(small_erfnet(decoder), ErfNet(decoder), (48, 72)) <= 1e-9


# --- FPLNet --------------------------------------------------------------------------------------------------------


def bn_prelu(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width, eps=1e-3), nn.PReLU(width))


class FplModule(nn.Module):
    def __init__(self, read: int, out: int, fusion: str, down: bool = False) -> None:
        super().__init__()
        n = out // 4
        self.fusion, self.down = fusion, down
        self.reduce = nn.Conv2d(read, n, 1, bias=down)
        self.first = nn.Conv2d(n, n, 3, stride=2 if down else 1, padding=1, bias=False)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(n, n, (3, 1), padding=(rate, 0), dilation=(rate, 1), bias=False),
                nn.PReLU(n),
                nn.Conv2d(n, n, (1, 3), padding=(0, rate), dilation=(1, rate), bias=False),
            )
            for rate in (2, 4, 8, 16)
        )
        self.out = bn_prelu(out)

    def forward(self, x: Tensor) -> Tensor:
        c = self.first(self.reduce(x))
        d2, d4, d8, d16 = (branch(c) for branch in self.branches)
        parts = {
            "pairs": [d2, d2 + d4, d8 + d16, d16],
            "stage1": [c + d2, c + d4, c + d8, c + d16],
            "pairs_partial": [d2, d2 + d4, d8, d8 + d16],
        }[self.fusion]
        y = torch.cat(parts, 1)
        return self.out(y if self.down else y + x)


class FplUp(nn.Module):
    def __init__(self, read: int, out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(read, out, 3, stride=2, padding=1, output_padding=1)
        self.out = bn_prelu(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x))


class FplNet(nn.Module):
    def __init__(self, fusion: str, decoder: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), bn_prelu(8)),
            *(nn.Conv2d(8, 8, 3, padding=1, bias=False), bn_prelu(8)),
            *(nn.Conv2d(8, 8, 3, padding=1, bias=False), bn_prelu(8)),
        )
        self.image = nn.Sequential(nn.PReLU(11), bn_prelu(11))
        self.down2 = FplModule(11, 16, fusion, down=True)
        self.stage2 = nn.Sequential(FplModule(16, 16, fusion), FplModule(16, 16, fusion))
        self.fir2 = bn_prelu(35)
        self.down3 = FplModule(35, 24, fusion, down=True)
        self.stage3 = FplModule(24, 24, fusion)
        self.fir3 = bn_prelu(51)
        self.head = nn.Conv2d(51, CLASSES, 1, bias=False)
        self.decoder = nn.Sequential(
            nn.Conv2d(51, 12, 1, bias=False),
            *(FplUp(12, 12), FplModule(12, 12, fusion)),
            *(FplUp(12, 8), FplModule(8, 8, fusion)),
            nn.ConvTranspose2d(8, CLASSES, 2, stride=2),
        )
        self.has_decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        half = functional.max_pool2d(x, 2, stride=2, ceil_mode=True)
        y = self.image(torch.cat([self.stem(x), half], 1))
        quarter = x
        for _ in range(2):
            quarter = functional.avg_pool2d(quarter, 3, stride=2, padding=1)
        eighth = functional.avg_pool2d(quarter, 3, stride=2, padding=1)
        shallow = self.down2(y)
        deep = self.stage2(shallow)
        y = self.fir2(torch.cat([shallow + deep, deep, quarter], 1))
        shallow = self.down3(y)
        deep = self.stage3(shallow)
        y = self.fir3(torch.cat([shallow + deep, deep, eighth], 1))
        return self.decoder(y) if self.has_decoder else resize(self.head(y), x.shape[2:], align_corners=True)


def small_fplnet(fusion: PairwiseFusion, decoder: bool) -> Architecture:
    parent = space.load("fplnet" if decoder else "fplnet-encoder")
    first, second = parent.stages
    small = replace(
        parent,
        stem=replace(parent.stem, width=8),
        stages=(
            replace(first, width=16, depth=2, pairwise_fusion=fusion),
            replace(second, width=24, depth=1, pairwise_fusion=fusion),
        ),
    )
    if not isinstance(parent.decoder, DeconvDecoder):
        return small
    steps = tuple(
        replace(step, width=width, depth=1, pairwise_fusion=fusion)
        for step, width in zip(parent.decoder.steps, (12, 8), strict=True)
    )
    return replace(small, decoder=replace(parent.decoder, projection=12, steps=steps))


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("fusion", ["pairs", "stage1", "pairs_partial"])
def test_fplnet_gives_the_outputs_of_an_independent_implementation(
    largest_difference: Compare, fusion: PairwiseFusion, decoder: bool
) -> None:
    reference = FplNet(fusion, decoder)
    if decoder:
        del reference.head
    else:
        del reference.decoder
    assert largest_difference(small_fplnet(fusion, decoder), reference, (48, 72)) <= 1e-9


# --- NDNet ---------------------------------------------------------------------------------------------------------


class Separable(nn.Sequential):
    def __init__(self, read: int, out: int, stride: int = 1, rate: int = 1) -> None:
        super().__init__(
            nn.Conv2d(read, read, 3, stride=stride, padding=rate, dilation=rate, groups=read, bias=False),
            nn.Conv2d(read, out, 1, bias=False),
            nn.BatchNorm2d(out, eps=1e-5),
        )


class NarrowBottleneck(nn.Module):
    def __init__(self, read: int, middle: int, stride: int, rate: int, first: bool) -> None:
        super().__init__()
        self.conv1 = Separable(read, middle, stride, rate)
        self.conv2 = Separable(middle, 4 * middle, 1, rate)
        projects = first and (stride > 1 or rate > 1)
        self.shortcut = Separable(read, 4 * middle, stride, rate) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv2(functional.relu(self.conv1(x))) + self.shortcut(x))


class NdNetEnde(nn.Module):
    """Its stages have output widths 16, 24, 24; the last keeps stride 16 and opens at rate 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block3 = nn.Sequential(NarrowBottleneck(8, 4, 2, 1, True), NarrowBottleneck(16, 4, 1, 1, False))
        self.block4 = nn.Sequential(NarrowBottleneck(16, 6, 2, 1, True), NarrowBottleneck(24, 6, 1, 1, False))
        self.block5 = nn.Sequential(NarrowBottleneck(24, 6, 1, 2, True), NarrowBottleneck(24, 6, 1, 2, False))
        self.merge = nn.Sequential(nn.Conv2d(40, 20, 1, bias=False), nn.BatchNorm2d(20), nn.ReLU())
        self.head = nn.Sequential(Separable(20, 12), nn.ReLU(), nn.Conv2d(12, CLASSES, 1))
        self.auxiliary = nn.Sequential(Separable(24, 14), nn.ReLU(), nn.Conv2d(14, CLASSES, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        eighth = self.block3(functional.max_pool2d(self.stem(x), 3, stride=2, padding=1))
        sixteenth = self.block4(eighth)
        deep = resize(self.block5(sixteenth), eighth.shape[2:], align_corners=True)
        logits = self.head(self.merge(torch.cat([deep, eighth], 1)))
        return [
            resize(logits, x.shape[2:], align_corners=True),
            resize(self.auxiliary(sixteenth), x.shape[2:], align_corners=True),
        ]


@pytest.mark.parametrize("size", [(48, 80), (45, 61)])
def test_ndnet_gives_the_outputs_of_an_independent_implementation(
    largest_difference: Compare, size: tuple[int, int]
) -> None:
    parent = space.load("ndnet45-ende")
    stages = tuple(
        replace(stage, width=width, depth=2) for stage, width in zip(parent.stages, (16, 24, 24), strict=True)
    )
    small = replace(
        parent,
        stages=stages,
        decoder=CatDecoder(tap=0, width=20),
        head=Head(kind="sep", width=12),
        auxiliary=(Auxiliary(stage=1, width=14, weight=0.4),),
    )
    assert largest_difference(small, NdNetEnde(), size) <= 1e-9
