"""DDRNet-23-slim and RDRNet-S, written a second time, and the folding of several trained paths.

As in `test_independent_networks.py`: plain PyTorch from the paper's layers, weights copied in the order of first use.
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
from space.paths import ReparameterizedConv, folded_state
from space.scale import scale_width

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


class Rep(nn.Module):
    """A 3x3 convolution, two 1x1 ones in a row and the identity, each normalised; the sum."""

    def __init__(self, read: int, out: int, stride: int) -> None:
        super().__init__()
        self.large = cb(read, out, 3, stride)
        self.small = nn.Sequential(cb(read, out, 1, stride, bias=True), cb(out, out, 1, bias=True))
        self.same = nn.BatchNorm2d(out) if stride == 1 and read == out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.large(x) + self.small(x)
        return y if self.same is None else y + self.same(x)


def reps(read: int, width: int, stride: int = 1, count: int = 4) -> nn.Sequential:
    """Several `Rep` blocks with a ReLU between, and none behind the last."""
    layers: list[nn.Module] = [Rep(read, width, stride)]
    for _ in range(count - 1):
        layers += [nn.ReLU(), Rep(width, width, 1)]
    return nn.Sequential(*layers)


class Two(nn.Module):
    """BN, ReLU, and two normalised 3x3 convolutions summed: one branch of RPPM's grouped ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.first, self.second = cb(width, width, 3), cb(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(x))
        return self.first(x) + self.second(x)


class Pyramid(nn.Module):
    """The map, three windows and the global mean: one after the other (DAPPM), or all beside the map (RPPM)."""

    def __init__(self, read: int, width: int, out: int, *, deep: bool) -> None:
        super().__init__()
        self.deep = deep
        self.scales = nn.ModuleList(pre(read, width, 1) for _ in range(5))
        self.process = nn.ModuleList(pre(width, width, 3) if deep else Two(width) for _ in range(4))
        self.squeeze = pre(5 * width, out, 1)
        self.shortcut = pre(read, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        own = self.scales[0](x)
        pooled = [functional.avg_pool2d(x, 2 * s + 1, stride=s, padding=s, count_include_pad=True) for s in (2, 4, 8)]
        pooled.append(x.mean(dim=(2, 3), keepdim=True))
        means = [resize(scale(each), x) for scale, each in zip(list(self.scales)[1:], pooled, strict=True)]
        found = [own]
        for process, mean in zip(self.process, means, strict=True):
            found.append(process(mean + (found[-1] if self.deep else own)))
        return self.squeeze(torch.cat(found, dim=1)) + self.shortcut(x)


class Dual(nn.Module):
    """Two branches as both networks wire them; logits, and those of the auxiliary head."""

    stem: nn.Module
    trunk: nn.ModuleList
    detail: nn.ModuleList

    def __init__(self, *, head: int, deep: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList([cb(64, 128, 3, 2), nn.Sequential(cb(64, 128, 3, 2), nn.ReLU(), cb(128, 256, 3, 2))])
        self.lateral = nn.ModuleList([cb(128, 64, 1), cb(256, 64, 1)])
        self.context = Pyramid(512, 128, 128, deep=deep)
        self.head = nn.Sequential(pre(128, head, 3), pre(head, CLASSES, 1, bias=True))
        self.auxiliary = nn.Sequential(pre(64, head, 3), pre(head, CLASSES, 1, bias=True))

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


class DdrNet(Dual):
    """DDRNet-23-slim."""

    def __init__(self) -> None:
        super().__init__(head=64, deep=True)
        self.stem = nn.Sequential(cb(3, 32, 3, 2, bias=True), nn.ReLU(), cb(32, 32, 3, 2, bias=True), nn.ReLU())
        rows = [(32, 32, 1), (32, 64, 2), (64, 128, 2), (128, 256, 2)]
        self.trunk = nn.ModuleList([*(basics(*row) for row in rows), Bottle(256, 256, 2)])
        self.detail = nn.ModuleList([basics(64, 64), basics(64, 64), Bottle(64, 64, 1)])


class RdrNet(Dual):
    """RDRNet-S in its trained form; `head` is 128 channels wide, or 64 in the simple network."""

    def __init__(self, head: int) -> None:
        super().__init__(head=head, deep=False)
        self.stem = nn.Sequential(Rep(3, 32, 2), nn.ReLU())
        rows = [(32, 32, 2, 5), (32, 64, 2, 4), (64, 128, 2, 6), (128, 256, 2, 6)]
        self.trunk = nn.ModuleList([*(reps(*row) for row in rows), Bottle(256, 256, 2)])
        self.detail = nn.ModuleList([reps(64, 64), reps(64, 64), Bottle(64, 64, 1)])
        for name, module in self.named_modules():
            if isinstance(module, nn.BatchNorm2d) and not name.startswith(("head", "auxiliary")):
                module.eps, module.momentum = 1e-3, 0.03


@pytest.mark.share(2)
@pytest.mark.parametrize("size", [(64, 128), (100, 132)])
def test_ddrnet_gives_the_outputs_of_an_independent_implementation(
    largest_difference: Compare, size: tuple[int, int]
) -> None:
    assert largest_difference(space.load("ddrnet23-slim"), DdrNet(), size) < 1e-9


@pytest.mark.share(2)
@pytest.mark.parametrize(("name", "head"), [("rdrnet-s", 128), ("rdrnet-s-simple", 64)])
def test_rdrnet_gives_the_outputs_of_an_independent_implementation(
    largest_difference: Compare, name: str, head: int
) -> None:
    assert largest_difference(space.load(name), RdrNet(head), (89, 132)) < 1e-9


def test_normalisation_in_the_heads_of_rdrnet_has_its_own_constants() -> None:
    network = space.load("rdrnet-s").build(CLASSES, auxiliary=True, training_form=True)
    found: dict[bool, set[tuple[float, float | None]]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            found.setdefault(name.startswith(("head", "auxiliary")), set()).add((module.eps, module.momentum))
    assert found == {True: {(1e-5, 0.1)}, False: {(1e-3, 0.03)}}


def trained(architecture: Architecture) -> nn.Module:
    """A network with random weights and statistics, in double precision."""
    network = architecture.build(CLASSES, training_form=True).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.5
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.normal_(0, 0.3)
        for _ in range(8):
            network(torch.rand(2, 3, 64, 96, dtype=torch.float64))
    return network.eval()


def rates() -> Architecture:
    """RDRNet with dilated blocks, and another activation."""
    whole = space.load("rdrnet-s-simple")
    last = replace(whole.stages[3], rates=(1, 2, 4), depth=3)
    return replace(whole, stages=(*whole.stages[:3], last, whole.stages[4]), activation="prelu")


@pytest.mark.share(2)
@pytest.mark.parametrize("make", [lambda: space.load("rdrnet-s-simple"), rates], ids=["simple", "dilated"])
def test_the_folded_network_gives_the_outputs_of_the_trained_one(make: Callable[[], Architecture]) -> None:
    torch.manual_seed(0)
    architecture = scale_width(make(), 0.25)
    network = trained(architecture)
    runs = architecture.build(CLASSES).double().eval()
    runs.load_state_dict(folded_state(network))
    assert not any(isinstance(module, ReparameterizedConv) for module in runs.modules())
    image = torch.rand(1, 3, 89, 132, dtype=torch.float64)
    with torch.no_grad():
        wanted = network(image)
        assert float((runs(image) - wanted).abs().max()) < 1e-9 * float(wanted.abs().max())


@pytest.mark.share(4)
@pytest.mark.parametrize("classes", [19, 11])
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("rdrnet-s", {19: (8_869_843, 8_946_406), 11: (8_868_811, 8_944_342)}),
        ("rdrnet-s-simple", {19: (8_794_771, 8_833_126), 11: (8_794_251, 8_832_086)}),
    ],
)
def test_the_trained_form_has_more_parameters(
    name: str, counts: dict[int, tuple[int, int]], classes: int, auxiliary: bool
) -> None:
    architecture = space.load(name)
    expected = counts[classes][auxiliary]
    assert space.parameters(architecture, classes, auxiliary=auxiliary, training_form=True) == expected
    network = architecture.build(classes, auxiliary=auxiliary, training_form=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_trained_and_running_form_of_a_pruned_network_are_the_same() -> None:
    cut = replace(space.load("rdrnet-s-simple"), channels={"stage0.block0.3x3": 20})
    assert space.parameters(cut, CLASSES, training_form=True) == space.parameters(cut, CLASSES)
    network = cut.build(CLASSES, training_form=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == space.parameters(cut, CLASSES)
