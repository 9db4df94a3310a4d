"""Networks of others in plain PyTorch, with the names of their files: torchvision's ResNet-18 and MobileNetV2, and the
public checkpoints of SwiftNet and ERFNet. Nothing of ours is imported.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(read: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(read, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, read: int, out: int, stride: int, levels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(read, out, 3, stride), conv(out, out, 3)
        self.bn1, self.bn2 = norms(out, levels), norms(out, levels)
        self.downsample = None
        if stride > 1 or read != out:
            self.downsample = nn.Sequential(conv(read, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """The sum of the block, before its ReLU."""
        y = of(self.bn2, level)(self.conv2(F.relu(of(self.bn1, level)(self.conv1(x)))))
        return y + (x if self.downsample is None else self.downsample(x))


def norms(width: int, levels: int) -> nn.Module:
    return nn.BatchNorm2d(width) if levels == 1 else nn.ModuleList(nn.BatchNorm2d(width) for _ in range(levels))


def of(norm: nn.Module, level: int) -> nn.Module:
    return norm[level] if isinstance(norm, nn.ModuleList) else norm


class ResNet(nn.Module):
    """A ResNet with torchvision's names and two blocks in each layer."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512), levels: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, widths[0], 7, 2), norms(widths[0], levels)
        reads = (widths[0], *widths)
        for index, (read, out) in enumerate(zip(reads, widths, strict=False)):
            blocks = BasicBlock(read, out, 1 if index == 0 else 2, levels), BasicBlock(out, out, 1, levels)
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.count = len(widths)

    def sums(self, image: Tensor, level: int = 0) -> list[Tensor]:
        x = F.max_pool2d(F.relu(of(self.bn1, level)(self.conv1(image))), 3, stride=2, padding=1)
        found = []
        for index in range(self.count):
            for block in self.get_submodule(f"layer{index + 1}"):
                x = F.relu(total := block(x, level))
            found.append(total)
        return found


class Unit(nn.Sequential):
    def __init__(self, read: int, out: int, kernel: int, bias: bool = False) -> None:
        super().__init__()
        self.add_module("norm", nn.BatchNorm2d(read))
        self.add_module("relu", nn.ReLU())
        self.add_module("conv", nn.Conv2d(read, out, kernel, padding=kernel // 2, bias=bias))


def resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


class Backbone(ResNet):
    """A ResNet with the additions of SwiftNet's authors: a spatial pyramid and an upsampling, or an image pyramid."""

    def __init__(self, widths: tuple[int, ...], levels: int, mean: Tensor, std: Tensor) -> None:
        super().__init__(widths, levels)
        self.register_buffer("img_mean", mean.view(1, 3, 1, 1))
        self.register_buffer("img_std", std.view(1, 3, 1, 1))
        self.levels = levels
        back = widths[::-1]
        if levels > 1:
            self.upsample_bottlenecks = nn.ModuleList(conv(width, 10, 1) for width in back)
            self.upsample_blends = nn.ModuleList(blend() for _ in range(2 + levels))
            return
        self.spp = nn.Module()
        self.spp.spp = nn.Sequential()
        self.spp.spp.add_module("spp_bn", Unit(widths[-1], 9, 1))
        for index in range(2):
            self.spp.spp.add_module(f"spp{index}", Unit(9, 3, 1))
        self.spp.spp.add_module("spp_fuse", Unit(15, 10, 1))
        self.upsample = nn.ModuleList(blend(Unit(width, 10, 1)) for width in back[1:])

    def forward(self, image: Tensor) -> Tensor:
        image = (image - self.img_mean) / self.img_std
        if self.levels == 1:
            *skips, last = [F.relu(each) for each in self.sums(image)]  # their ReLU is in place
            first, *pools, fuse = self.spp.spp
            x = first(last)
            parts = [x]
            for grid, unit in zip((4, 2), pools, strict=True):
                cells = (grid, max(1, round(grid * x.shape[3] / x.shape[2])))
                parts.append(resize(unit(F.adaptive_avg_pool2d(x, cells)), x))
            x = fuse(torch.cat(parts, 1))
            for up, skip in zip(self.upsample, skips[::-1], strict=True):
                lateral = up.bottleneck(skip)
                x = up.blend_conv(resize(x, lateral) + lateral)
            return x
        sums: dict[int, list[Tensor]] = {}
        for level in range(self.levels):
            smaller = F.interpolate(image, scale_factor=0.5**level, mode="bicubic") if level else image
            for index, each in enumerate(self.sums(smaller, level)):
                lateral = self.upsample_bottlenecks[self.count - 1 - index](each)
                sums.setdefault(index + level, []).append(lateral)
        order = sorted(sums, reverse=True)
        x = sum(sums[order[0]])
        for step, stride in zip(self.upsample_blends, order[1:], strict=True):
            skip = sum(sums[stride])
            x = step.blend_conv(resize(x, skip) + skip)
        return x


def blend(bottleneck: nn.Module | None = None) -> nn.Module:
    module = nn.Module()
    if bottleneck is not None:
        module.bottleneck = bottleneck
    module.blend_conv = Unit(10, 10, 3)
    return module


class SwiftNet(nn.Module):
    def __init__(self, widths: tuple[int, ...], levels: int, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone(widths, levels, mean, std)
        self.logits = Unit(10, classes, 1, bias=True)

    def forward(self, values: Tensor) -> Tensor:
        """Logits of an image with values 0..255."""
        return resize(self.logits(self.backbone(values)), values)


class ConvNorm(nn.Sequential):
    def __init__(self, read: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(conv(read, out, kernel, stride, groups), nn.BatchNorm2d(out), nn.ReLU6())


class InvertedResidual(nn.Module):
    def __init__(self, read: int, out: int, stride: int, ratio: int) -> None:
        super().__init__()
        wide = read * ratio
        widen = [ConvNorm(read, wide, 1)] if ratio > 1 else []
        self.conv = nn.Sequential(
            *widen, ConvNorm(wide, wide, 3, stride, groups=wide), conv(wide, out, 1), nn.BatchNorm2d(out)
        )
        self.same = stride == 1 and read == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.same else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
        read = 32
        for ratio, out, count, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for index in range(count):
                layers.append(InvertedResidual(read, out, stride if index == 0 else 1, ratio))
                read = out
        self.features = nn.Sequential(*layers, ConvNorm(320, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 10))

    def encoded(self, image: Tensor) -> Tensor:
        return self.features[:-1](image)


class Down(nn.Module):
    """ERFNet's downsampling; `border` is the value around the image (0 in its authors' code)."""

    def __init__(self, read: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(read, out - read, 3, stride=2)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor, border: Tensor | float = 0.0) -> Tensor:
        padded = F.pad(x - border, (1, 1, 1, 1)) + border
        return F.relu(self.bn(torch.cat([self.conv(padded), F.max_pool2d(x, 2)], 1)))


class NonBottleneck(nn.Module):
    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.conv3x1_1 = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self.conv3x1_2 = nn.Conv2d(width, width, (3, 1), padding=(rate, 0), dilation=(rate, 1))
        self.conv1x3_2 = nn.Conv2d(width, width, (1, 3), padding=(0, rate), dilation=(1, rate))
        self.bn2 = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1x3_1(F.relu(self.conv3x1_1(x)))))
        return F.relu(self.bn2(self.conv1x3_2(F.relu(self.conv3x1_2(y)))) + x)


class Up(nn.Module):
    def __init__(self, read: int, out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(read, out, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class ErfNet(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        deep = [NonBottleneck(128, rate) for rate in (2, 4, 8, 16) * 2]
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.initial_block = Down(3, 16)
        self.encoder.layers = nn.ModuleList(
            [Down(16, 64), *(NonBottleneck(64, 1) for _ in range(5)), Down(64, 128), *deep]
        )
        self.encoder.output_conv = nn.Conv2d(128, classes, 1)
        self.decoder.layers = nn.ModuleList(
            [
                *(Up(128, 64), NonBottleneck(64, 1), NonBottleneck(64, 1)),
                *(Up(64, 16), NonBottleneck(16, 1), NonBottleneck(16, 1)),
            ]
        )
        self.decoder.output_conv = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, values: Tensor, border: Tensor | float = 0.0) -> Tensor:
        """Logits of an image with values 0..1."""
        x = self.encoder.initial_block(values, border)
        for layer in (*self.encoder.layers, *self.decoder.layers):
            x = layer(x)
        return self.decoder.output_conv(x)  # type: ignore[no-any-return]


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random statistics and weights, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()
