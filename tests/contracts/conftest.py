"""Small random points of the space that hold a given kind, and tools to look at their networks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import space
from nas.latency.estimates.table import LatencyTable
from pruning.surgery import Cutter, Mask
from space import Architecture, Space
from space.channels import FIXED, parametric
from space.choices import Choice
from space.network import Network

CLASSES = 5
SIZE = (360, 480)  # the input size of the space; tests run networks at smaller sizes
# Narrow and shallow, so that a network of any kind is built and run in milliseconds.
SMALL: Mapping[str, tuple[Choice, ...]] = {
    "stem.width": (8, 16),
    "stem.kernel": (3,),
    "stages": (2, 3),
    "stage.width": (16, 24, 32, 48, 64, 96, 160, 256),
    "stage.depth": (1, 2),
    "decoder.width": (16, 32),
    "decoder.depth": (0, 1),
    "decoder.projection": (0, 32),
    "context.bottleneck": (32,),
    "head.width": (32,),
    "detail.bottles": (0,),  # bottleneck stages would be of another block kind
}


@pytest.fixture
def run() -> Callable[..., str]:
    """The output of a program in a Python process of its own, with a folder's packages in front of all others."""

    def printed(program: str, folder: Path | None = None) -> str:
        paths = [*([str(folder)] if folder else []), str(Path(space.__file__).parents[1]), *filter(None, sys.path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return printed


@pytest.fixture
def small_space() -> Callable[..., Space]:
    """A space of small networks, some of whose axes are narrowed to one option."""
    return lambda fixed: Space(ranges={**SMALL, **{axis: (option,) for axis, option in fixed.items()}}, size=SIZE)


@pytest.fixture
def draws(small_space: Callable[..., Space]) -> Callable[..., list[Architecture]]:
    """Some small architectures, drawn with the given answers on some axes."""

    def drawn(fixed: Mapping[str, Choice], count: int = 3) -> list[Architecture]:
        rng = random.Random(1)
        return [small_space(fixed).sample(rng) for _ in range(count)]

    return drawn


@pytest.fixture
def table() -> LatencyTable:
    """Invented prices of work."""
    return LatencyTable(
        target="null@cpu:1",
        height=64,
        width=96,
        milliseconds={},
        unit_milliseconds={"multiply_adds": 1e-6, "count": 1e-3},
        networks=0,
        seconds=0.0,
        error=0.0,
        environment={},
    )


@pytest.fixture
def lively() -> Callable[[Architecture], Network]:
    """A network in double precision and evaluation mode, with all its numbers drawn at random."""

    def made(architecture: Architecture) -> Network:
        torch.manual_seed(0)
        network = architecture.build(CLASSES).double().eval()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.3)
                    module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
                    module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
                elif isinstance(module, nn.PReLU):
                    module.weight.uniform_(0.1, 0.6)
        return network

    return made


@pytest.fixture
def image() -> Tensor:
    """A random image of a size that no stride divides, float64 (1, 3, 44, 60)."""
    return torch.randn(1, 3, 44, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def some_kept() -> Callable[[Cutter], Mask]:
    """A mask that keeps about half of every group of channels, one granule at least."""

    def kept(cutter: Cutter) -> Mask:
        rng = np.random.default_rng(0)
        keep = cutter.everything.copy()
        keep[(cutter.map.group_of_channel != FIXED) & (rng.random(len(keep)) > 0.5)] = False
        for name in cutter.map.names:
            granules = cutter.map.members(name).reshape(-1, cutter.map.granule(name))
            keep[granules] = keep[granules[:, :1]]
            if not keep[granules].any():
                keep[rng.choice(granules)] = True
        return keep

    return kept


@pytest.fixture
def unread() -> Callable[[Cutter, Network, Mask, Tensor], Tensor]:
    """The logits that a cut network must give: those of the whole network when no layer reads masked-out channels."""

    def logits(cutter: Cutter, network: Network, keep: Mask, image: Tensor) -> Tensor:
        handles = []
        for node in parametric(cutter.graph):
            if node.kind in ("conv", "deconv"):
                gone = torch.from_numpy(np.flatnonzero(~keep[cutter.read_positions(node)]))

                def silence(module: nn.Module, read: tuple[Tensor], gone: Tensor = gone) -> tuple[Tensor]:
                    return (read[0].index_fill(1, gone, 0.0),)

                handles.append(network.layer(node.name).register_forward_pre_hook(silence))
        with torch.no_grad():
            found: Tensor = network(image)
        for handle in handles:
            handle.remove()
        return found

    return logits
