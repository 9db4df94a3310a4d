"""Fast-SCNN, STDC1's backbone under RegSeg's decoder, RegSeg and DABNet, written a second time.

As in `test_independent_networks.py`: plain PyTorch from the papers' layers, weights copied in the order of first use.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import space
from space.architecture import Architecture

CLASSES = 5
Compare = Callable[[Architecture, nn.Module, tuple[int, int]], float]


def cna(read: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    convolution = nn.Conv2d(read, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


def separable(read: int, out: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3, BN, ReLU, 1x1, BN, ReLU."""
    depthwise = nn.Conv2d(read, read, 3, stride=stride, padding=1, groups=read, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(read), nn.ReLU(), cna(read, out, 1))


def resize(x: Tensor, size: torch.Size, align_corners: bool) -> Tensor:
    return functional.interpolate(x, size=tuple(size[2:]), mode="bilinear", align_corners=align_corners)


class Inverted(nn.Module):
    """An inverted residual of expansion 6."""

    def __init__(self, read: int, out: int, stride: int) -> None:
        super().__init__()
        inner = 6 * read
        self.widen = cna(read, inner, 1)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.project = nn.Sequential(nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out))
        self.same = stride == 1 and read == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(functional.relu(self.norm(self.depthwise(self.widen(x)))))
        return x + y if self.same else y


class FastScnn(nn.Module):
    """Fast-SCNN with its first convolution padded, bilinear with aligned corners; logits, also auxiliary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(cna(3, 32, 3, 2), separable(32, 48, 2), separable(48, 64, 2))
        rows = [(64, 64, 2), (64, 96, 2), (96, 128, 1)]
        blocks = [Inverted(read if index == 0 else out, out, stride if index == 0 else 1)
                  for read, out, stride in rows for index in range(3)]  # fmt: skip
        self.features = nn.Sequential(*blocks)
        self.levels = nn.ModuleList(cna(128, 32, 1) for _ in range(4))
        self.pooled = cna(256, 128, 1)
        self.low_depthwise = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=1, groups=128, bias=False), nn.BatchNorm2d(128)
        )
        self.low = nn.Sequential(nn.Conv2d(128, 128, 1), nn.BatchNorm2d(128))
        self.high = nn.Sequential(nn.Conv2d(64, 128, 1), nn.BatchNorm2d(128))
        self.head = nn.Sequential(separable(128, 128), separable(128, 128), nn.Conv2d(128, CLASSES, 1))
        self.auxiliary = nn.Sequential(cna(64, 32, 3), nn.Conv2d(32, CLASSES, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.down(image)
        x = self.features(fine)
        pools = [
            resize(level(functional.adaptive_avg_pool2d(x, bins)), x.shape, True)
            for bins, level in zip((1, 2, 3, 6), self.levels, strict=True)
        ]
        x = self.pooled(torch.cat([x, *pools], 1))
        low = self.low(functional.relu(self.low_depthwise(resize(x, fine.shape, True))))
        logits = self.head(functional.relu(low + self.high(fine)))
        return [resize(logits, image.shape, True), resize(self.auxiliary(fine), image.shape, True)]


class Stdc(nn.Module):
    """A short-term dense block of four parts."""

    def __init__(self, read: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = cna(read, out // 2, 1)
        self.strided = None
        if stride == 2:
            depthwise = nn.Conv2d(out // 2, out // 2, 3, stride=2, padding=1, groups=out // 2, bias=False)
            self.strided = nn.Sequential(depthwise, nn.BatchNorm2d(out // 2))
        self.second = cna(out // 2, out // 4, 3)
        self.third = cna(out // 4, out // 8, 3)
        self.fourth = cna(out // 8, out // 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first if self.strided is None else self.strided(first))
        if self.strided is not None:
            first = functional.avg_pool2d(first, 3, stride=2, padding=1)
        third = self.third(second)
        return torch.cat([first, second, third, self.fourth(third)], 1)


class StdcSteps(nn.Module):
    """Widths 256, 512 and 1024 at strides 8, 16 and 32; from 128 channels up to stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(cna(3, 32, 3, 2), cna(32, 64, 3, 2))
        self.eight = nn.Sequential(Stdc(64, 256, 2), Stdc(256, 256, 1))
        self.sixteen = nn.Sequential(Stdc(256, 512, 2), Stdc(512, 512, 1))
        self.thirty_two = nn.Sequential(Stdc(512, 1024, 2), Stdc(1024, 1024, 1))
        self.top = cna(1024, 128, 1)
        self.lateral_sixteen, self.blend_sixteen = cna(512, 128, 1), cna(128, 64, 3)
        self.lateral_eight, self.blend_eight = cna(256, 32, 1), cna(96, 64, 3)
        self.classify = nn.Conv2d(64, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        eight = self.eight(self.stem(image))
        sixteen = self.sixteen(eight)
        x = self.top(self.thirty_two(sixteen))
        x = self.blend_sixteen(self.lateral_sixteen(sixteen) + resize(x, sixteen.shape, False))
        lateral = self.lateral_eight(eight)
        x = self.blend_eight(torch.cat([resize(x, eight.shape, False), lateral], 1))
        return resize(self.classify(x), image.shape, False)


class DBlock(nn.Module):
    """RegSeg's block, in groups of 16; every rate has an equal part of the channels."""

    def __init__(self, read: int, out: int, rates: tuple[int, ...], stride: int = 1) -> None:
        super().__init__()
        part = out // len(rates)
        self.reduce = nn.ModuleList(cna(read, part, 1) for _ in rates)
        self.grouped = nn.ModuleList(
            nn.Conv2d(part, part, 3, stride=stride, padding=rate, dilation=rate, groups=part // 16, bias=False)
            for rate in rates
        )
        self.norm = nn.ModuleList(nn.BatchNorm2d(part) for _ in rates)
        self.squeeze, self.excite = nn.Conv2d(out, read // 4, 1), nn.Conv2d(read // 4, out, 1)
        self.last = nn.Sequential(nn.Conv2d(out, out, 1, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut.append(nn.AvgPool2d(2, 2, ceil_mode=True))
        if stride == 2 or read != out:
            self.shortcut.extend([nn.Conv2d(read, out, 1, bias=False), nn.BatchNorm2d(out)])

    def middle(self, x: Tensor) -> Tensor:
        halves = zip(self.reduce, self.grouped, self.norm, strict=True)
        return torch.cat([norm(grouped(reduce(x))) for reduce, grouped, norm in halves], 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.middle(x))
        mean = functional.relu(self.squeeze(y.mean((2, 3), keepdim=True)))
        y = self.last(y * torch.sigmoid(self.excite(mean)))
        return functional.relu(y + self.shortcut(x))


class SplitDBlock(DBlock):
    """The same as it was published: one 1x1 convolution to all channels, which are split, and one normalisation."""

    def __init__(self, read: int, out: int, rates: tuple[int, ...], stride: int = 1) -> None:
        super().__init__(read, out, rates, stride)
        self.reduce, self.norm = cna(read, out, 1), nn.BatchNorm2d(out)

    def middle(self, x: Tensor) -> Tensor:
        parts = self.reduce(x).chunk(len(self.grouped), 1)
        return self.norm(torch.cat([grouped(part) for grouped, part in zip(self.grouped, parts, strict=True)], 1))


class RegSeg(nn.Module):
    """RegSeg with the second of its decoders and rates up to 14."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = cna(3, 32, 3, 2)
        self.four = DBlock(32, 48, (1,), 2)
        self.eight = nn.Sequential(DBlock(48, 128, (1,), 2), *(DBlock(128, 128, (1,)) for _ in range(2)))
        rates = [(1,), (1, 2), *[(1, 4)] * 4, *[(1, 14)] * 6]
        blocks = (DBlock(256, 256, each) for each in rates)
        self.sixteen = nn.Sequential(DBlock(128, 256, (1,), 2), *blocks, DBlock(256, 320, (1, 14)))
        self.top = cna(320, 128, 1)
        self.lateral_eight, self.blend_eight = cna(128, 128, 1), cna(128, 64, 3)
        self.lateral_four, self.blend_four = cna(48, 8, 1), cna(72, 64, 3)
        self.classify = nn.Conv2d(64, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        four = self.four(self.stem(image))
        eight = self.eight(four)
        x = self.top(self.sixteen(eight))
        x = self.blend_eight(resize(x, eight.shape, False) + self.lateral_eight(eight))
        lateral = self.lateral_four(four)
        x = self.blend_four(torch.cat([resize(x, four.shape, False), lateral], 1))
        return resize(self.classify(x), image.shape, False)


def bp(width: int) -> nn.Sequential:
    """Batch normalisation and PReLU as in DABNet."""
    return nn.Sequential(nn.BatchNorm2d(width, eps=1e-3), nn.PReLU(width))


def plain(read: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(read, out, kernel, stride=stride, padding=kernel // 2, bias=False)


class Dab(nn.Module):
    """A depthwise asymmetric bottleneck of one rate."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        half = width // 2
        self.reduce = nn.Sequential(bp(width), plain(width, half, 3), bp(half))
        self.near, self.far = self.pair(half, 1), self.pair(half, rate)
        self.expand = nn.Sequential(bp(half), plain(half, width, 1))

    @staticmethod
    def pair(width: int, rate: int) -> nn.Sequential:
        tall = nn.Conv2d(width, width, (3, 1), padding=(rate, 0), dilation=(rate, 1), groups=width, bias=False)
        wide = nn.Conv2d(width, width, (1, 3), padding=(0, rate), dilation=(1, rate), groups=width, bias=False)
        return nn.Sequential(tall, bp(width), wide, bp(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        return x + self.expand(self.near(y) + self.far(y))


class DabNet(nn.Module):
    """Logits at an eighth of the size, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(plain(3, 32, 3, 2), bp(32), plain(32, 32, 3), bp(32), plain(32, 32, 3), bp(32))
        self.joined = bp(35)
        self.down_four, self.down_four_bp = plain(35, 29, 3, 2), bp(64)
        self.four = nn.Sequential(*(Dab(64, 2) for _ in range(3)))
        self.fused_four = bp(131)
        self.down_eight = nn.Sequential(plain(131, 128, 3, 2), bp(128))
        self.eight = nn.Sequential(*(Dab(128, rate) for rate in (4, 4, 8, 8, 16, 16)))
        self.fused_eight = bp(259)
        self.classify = nn.Conv2d(259, CLASSES, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        small = [image]
        for _ in range(3):
            small.append(functional.avg_pool2d(small[-1], 3, stride=2, padding=1))
        x = self.joined(torch.cat([self.stem(image), small[1]], 1))
        pooled = functional.max_pool2d(x, 2, ceil_mode=True)
        shallow = self.down_four_bp(torch.cat([self.down_four(x), pooled], 1))
        x = self.fused_four(torch.cat([self.four(shallow), shallow, small[2]], 1))
        shallow = self.down_eight(x)
        x = self.fused_eight(torch.cat([self.eight(shallow), shallow, small[3]], 1))
        return resize(self.classify(x), image.shape, False)


def test_fast_scnn_gives_the_outputs_of_an_independent_implementation(largest_difference: Compare) -> None:
    assert largest_difference(space.load("fast-scnn"), FastScnn(), (100, 132)) < 1e-9


def test_stdc_under_the_stepwise_decoder_gives_the_outputs_of_an_independent_implementation(
    largest_difference: Compare,
) -> None:
    assert largest_difference(space.load("stdc1"), StdcSteps(), (100, 132)) < 1e-9


def test_regseg_gives_the_outputs_of_an_independent_implementation(largest_difference: Compare) -> None:
    assert largest_difference(space.load("regseg"), RegSeg(), (100, 132)) < 1e-9


def test_the_two_halves_of_a_d_block_equal_a_single_split_convolution() -> None:
    torch.manual_seed(0)
    halves, split = DBlock(48, 64, (1, 4)).double(), SplitDBlock(48, 64, (1, 4)).double()
    state = halves.state_dict()
    joined = {}
    for name in split.state_dict():
        layer, _, rest = name.partition(".")
        both = [state[f"{layer}.{half}.{rest}"] for half in (0, 1)] if layer in ("reduce", "norm") else [state[name]]
        joined[name] = torch.cat(both) if both[0].dim() else both[0]
    split.load_state_dict(joined)
    image = torch.randn(2, 48, 9, 13, dtype=torch.float64)
    for training in (False, True):
        torch.testing.assert_close(split.train(training)(image), halves.train(training)(image))


def test_dabnet_gives_the_outputs_of_an_independent_implementation(largest_difference: Compare) -> None:
    assert largest_difference(space.load("dabnet"), DabNet(), (100, 132)) < 1e-9
