"""Networks without initial values, the expected results of cutting, and crossings between the families."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import space
from pruning.surgery import Cutter, Mask
from space import Architecture
from space.channels import FIXED, parametric
from space.context import PoolingPyramid, SpatialPyramid
from space.decoders.cat import CatDecoder
from space.decoders.deconv import DeconvDecoder
from space.decoders.ladder import LadderDecoder
from space.decoders.steps import JoinStep, StepwiseDecoder
from space.detail import Detail
from space.head import Head
from space.network import Network
from space.stage import DecoderStep, Stage
from space.stem import Stem

CLASSES = 5
SIZE = (44, 60)  # divisible by 4 but not by 8, so that every deeper layer rounds up


def _randomised(architecture: Architecture, *, seed: int = 0) -> Network:
    """A network in evaluation mode and double precision whose every parameter and statistic is random."""
    torch.manual_seed(seed)
    network = architecture.build(CLASSES).double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
            elif isinstance(module, nn.PReLU):
                module.weight.uniform_(0.1, 0.6)
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
                module.bias.normal_(0, 0.3)
    return network


def _image(*, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _without(cutter: Cutter, network: Network, keep: Mask, image: Tensor) -> Tensor:
    """Logits of the uncut network when nothing reads the channels outside `keep`."""
    handles = []
    for node in parametric(cutter.graph):
        if node.kind not in ("conv", "deconv"):
            continue
        gone = torch.from_numpy(np.flatnonzero(~keep[cutter.read_positions(node)]))

        def silence(module: nn.Module, args: tuple[Tensor], gone: Tensor = gone) -> tuple[Tensor]:
            return (args[0].index_fill(1, gone, 0.0),)

        handles.append(network.layer(node.name).register_forward_pre_hook(silence))
    with torch.no_grad():
        logits = network(image)
    for handle in handles:
        handle.remove()
    return logits


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A cut network beside the uncut one in which nothing reads the removed channels, relative to its largest logit."""

    cut: Network
    error: float
    """The largest between the two; EXACT or less is rounding."""
    effect: float
    """The largest between the uncut network and the one in which nothing reads the removed channels."""


def _compared(cutter: Cutter, network: Network, keep: Mask, image: Tensor) -> Compared:
    cut = cutter.cut(network, keep)
    expected = _without(cutter, network, keep, image)
    with torch.no_grad():
        achieved, whole = cut(image), network(image)
    scale = float(expected.abs().max())
    return Compared(
        cut=cut,
        error=float((achieved - expected).abs().max()) / scale,
        effect=float((whole - expected).abs().max()) / scale,
    )


def _partition(cutter: Cutter, sets: int, *, seed: int = 0) -> list[Mask]:
    """Masks that together remove every removable channel exactly once, and never a whole group."""
    rng = np.random.default_rng(seed)
    masks = [cutter.everything.copy() for _ in range(sets)]
    for name in cutter.map.names:
        present = _granules(cutter, name)
        if len(present) > 1:
            for place, granule in enumerate(rng.permutation(present), start=int(rng.integers(sets))):
                masks[place % sets][granule] = False
    return masks


def _granules(cutter: Cutter, name: str) -> np.ndarray:
    """The granules of a group in a mask (granules, channels), which are cut together; mostly single channels."""
    members = cutter.map.members(name)
    return members[cutter.everything[members]].reshape(-1, cutter.map.granule(name))


def _random_keep(cutter: Cutter, *, seed: int, share: float = 0.5) -> Mask:
    """A random mask that keeps about `share` of every group, and at least one granule."""
    rng = np.random.default_rng(seed)
    keep = cutter.everything.copy()
    keep[(cutter.map.group_of_channel != FIXED) & (rng.random(len(keep)) > share)] = False
    for name in cutter.map.names:
        granules = _granules(cutter, name)
        keep[granules] = keep[granules[:, :1]]
        if not keep[granules].any():
            keep[rng.choice(granules)] = True
    return keep


def _architecture(**changes: object) -> Architecture:
    """A small ERFNet-like point with `changes`."""
    base = Architecture(
        stem=Stem(kind="convs", width=8),
        stages=(_nonbt(12), _nonbt(20)),
        context=None,
        decoder=None,
        head=Head(kind="linear"),
        activation="prelu",
        levels=1,
        norm_epsilon=1e-3,
        bias=True,
        align_corners=False,
    )
    return replace(base, **changes)


def _nonbt(width: int, **changes: object) -> Stage:
    return replace(Stage(block="nonbt", width=width, depth=2, stride=2, rates=(1, 2), down="block"), **changes)


def _fpl(width: int, **changes: object) -> Stage:
    stage = Stage(
        block="fpl", width=width, depth=2, stride=2, rates=(1, 2, 3, 4), factorization="composite", down="module"
    )
    return replace(stage, **changes)


def _dblock(width: int, **changes: object) -> Stage:
    stage = Stage(block="dblock", width=64, depth=2, stride=2, rates=(1, 2))
    return replace(stage, width=width, **changes)


def _esp(width: int, **changes: object) -> Stage:
    return replace(Stage(block="esp", width=width, depth=2, stride=2, rates=(1, 2, 3, 4, 5), down="module"), **changes)


def _sep(width: int, **changes: object) -> Stage:
    return replace(Stage(block="sep", width=width, depth=2, stride=2, rates=(1, 2)), **changes)


def _inverted(width: int, **changes: object) -> Stage:
    return replace(Stage(block="inverted", width=width, depth=2, stride=2, expansion=4), **changes)


def _bottle(width: int, **changes: object) -> Stage:
    return replace(Stage(block="bottle", width=width, depth=2, stride=2, expansion=2), **changes)


def _step(width: int, **changes: object) -> DecoderStep:
    return replace(DecoderStep(width=width, depth=1, block="nonbt", factorization="all"), **changes)


CAT_STEM = Stem(kind="cat", width=12)
IMAGE_STEM = Stem(kind="convs", width=9, convolutions=2, image=True)
POOL_STEM = Stem(kind="conv_pool", width=10, kernel=7)
LADDER = LadderDecoder(width=12)
PYRAMID = SpatialPyramid(bottleneck=12, level_width=5, grids=(2, 1))
ALL_CAT = {"down": "cat", "factorization": "all"}
DECONV = DeconvDecoder(projection=0, steps=(_step(16), _step(8)))

CROSSINGS = {
    "fpl encoder under a ladder": _architecture(
        stem=IMAGE_STEM,
        stages=(_fpl(16, fuse="fir"), _fpl(24, fuse="fir"), _fpl(32, fuse="fir")),
        context=PYRAMID,
        decoder=LADDER,
        head=Head(kind="preact"),
    ),
    "nonbt, conv_pool stem, cat decoder": _architecture(
        stem=POOL_STEM,
        stages=(_nonbt(16, **ALL_CAT), _nonbt(28, **ALL_CAT), _nonbt(40, **ALL_CAT)),
        decoder=CatDecoder(tap=0, width=14),
        head=Head(kind="sep", width=11),
    ),
    "raw image through two cats, deconv decoder": _architecture(
        stem=CAT_STEM,
        stages=(_nonbt(20, **ALL_CAT), _nonbt(33, **ALL_CAT)),
        decoder=DECONV,
        head=Head(kind="deconv2"),
    ),
    "esp, all cats": _architecture(
        stem=CAT_STEM, stages=(_esp(23, down="cat"), _esp(41, down="cat", fuse="concat")), activation="relu"
    ),
    "esp modules with image_concat, cat decoder": _architecture(
        stages=(_esp(17, fuse="image_concat"), _esp(28, fuse="image_concat")),
        decoder=CatDecoder(tap=0, width=9),
    ),
    "fir and cat down with fpl": _architecture(
        stem=IMAGE_STEM,
        stages=(_fpl(20, down="cat", fuse="fir"), _fpl(64, down="cat", fuse="fir")),
    ),
    "fpl under sums of its first convolution": _architecture(
        stages=(
            _fpl(16, pairwise_fusion="stage1", factorization="none"),
            _fpl(24, pairwise_fusion="pairs_partial", fuse="add"),
            _fpl(24, pairwise_fusion="pairs", factorization="all", fuse="image_add"),
        ),
        decoder=LadderDecoder(width=12, taps="relu"),
    ),
    "fpl, cats of cats, all fusions of pairs": _architecture(
        stem=CAT_STEM,
        stages=(
            _fpl(16, down="cat", pairwise_fusion="pairs_partial"),
            _fpl(28, down="cat", pairwise_fusion="pairs", fuse="concat"),
            _fpl(84, down="cat", pairwise_fusion="stage1"),
        ),
        decoder=DeconvDecoder(
            projection=12,
            steps=(
                _step(16, block="fpl", factorization="composite", rates=(1, 2, 3, 4)),
                _step(12, block="sep", factorization="none"),
                _step(8),
            ),
        ),
        head=Head(kind="deconv2"),
    ),
    "image pyramid of two levels": _architecture(
        stem=Stem(kind="conv_pool", width=8),
        stages=(_nonbt(8, stride=1), _nonbt(12), _nonbt(16, factorization="composite")),
        decoder=LADDER,
        levels=2,
        activation="relu",
    ),
    "narrow sep with image stem": _architecture(
        stem=Stem(kind="convs", width=13, image=True),
        stages=(_sep(16), _sep(24, stride=1), _sep(24, rates=(2,)), _sep(32)),
        decoder=LadderDecoder(width=9),
        head=Head(kind="linear_nobias"),
    ),
    "inverted with cats, relu6": _architecture(
        stem=CAT_STEM,
        stages=(_inverted(20, down="cat", fuse="image"), _inverted(33, down="cat", fuse="fir")),
        activation="relu6",
    ),
    "detail branch that gives nothing back, of another width, over a parallel pyramid": _architecture(
        stages=(_nonbt(12), _nonbt(16), _sep(24, rates=(1,)), replace(_nonbt(20), block="plain", rates=(1,))),
        detail=Detail(start=0, exchange="up", parts=(_nonbt(16, stride=1), _sep(12, stride=1), _nonbt(10, stride=1))),
        context=PoolingPyramid(order="parallel", width=6, strides=(2,)),
        head=Head(kind="preact3", width=9),
    ),
    "detail branch with two bottlenecks and no context": _architecture(
        stages=(_nonbt(12), _bottle(16), _bottle(24)),
        detail=Detail(start=0, exchange="both", parts=(_bottle(12, stride=1), _bottle(16, stride=1, depth=1))),
        head=Head(kind="preact"),
        activation="relu",
    ),
    "granules under gates, in groups of 8 and 16": _architecture(
        stages=(
            _dblock(48, rates=(1,), block_options={"group": 8}),
            _dblock(64),
            _dblock(64, stride=1, rates=(4,), block_options={"squeeze": 0}),
        ),
        decoder=StepwiseDecoder(top=12, steps=(JoinStep(stride=4, join="concat", width=8, lateral=5),)),
    ),
    "blocks of all families in a row": _architecture(
        stem=CAT_STEM,
        stages=(
            _fpl(20, down="cat"),
            _nonbt(20, stride=1, factorization="composite"),
            _esp(36, down="cat"),
            _sep(36, stride=1),
            _inverted(36, stride=1),
        ),
        decoder=CatDecoder(tap=1, width=12),
    ),
}

# Small widths, so that a random architecture is cut quickly; every other axis has its full range.
NARROW: dict[str, tuple[object, ...]] = {
    "stem.width": (8, 12, 13),
    "stage.width": (16, 20, 28, 40, 60, 100, 140, 220, 300, 460, 640),
    "stage.depth": (1, 2),
    "stages": (2, 3, 4),
    "decoder.width": (8, 12, 16),
    "decoder.depth": (0, 1),
    "decoder.projection": (0, 12),
    "context.bottleneck": (6, 12),
    "head.width": (7,),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are so small that several threads would take longer than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=space.published())
def published(request: pytest.FixtureRequest) -> Architecture:
    return space.load(request.param)


@pytest.fixture(params=CROSSINGS)
def crossing(request: pytest.FixtureRequest) -> Architecture:
    return CROSSINGS[request.param]


@pytest.fixture
def crossings() -> dict[str, Architecture]:
    return CROSSINGS


@pytest.fixture
def narrow_space() -> space.Space:
    return space.Space(ranges=NARROW)


@pytest.fixture
def classes() -> int:
    return CLASSES


@pytest.fixture
def randomised() -> Callable[..., Network]:
    return _randomised


@pytest.fixture
def image() -> Callable[..., Tensor]:
    return _image


@pytest.fixture
def without() -> Callable[[Cutter, Network, Mask, Tensor], Tensor]:
    return _without


@pytest.fixture
def compared() -> Callable[[Cutter, Network, Mask, Tensor], Compared]:
    return _compared


@pytest.fixture
def granules() -> Callable[[Cutter, str], np.ndarray]:
    return _granules


@pytest.fixture
def partition() -> Callable[..., list[Mask]]:
    return _partition


@pytest.fixture
def random_keep() -> Callable[..., Mask]:
    return _random_keep
