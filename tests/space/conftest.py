"""Helpers for tests of `space`: random architectures, and comparison with an independent network."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from space import Architecture, Space
from space.choices import Choice

OWNERS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.PReLU)
# Narrow and shallow, so that a network of any kind is built and run in milliseconds.
TINY: Mapping[str, tuple[str | int | float | bool, ...]] = {
    "stem.width": (8, 16),
    "stem.kernel": (3,),
    "stages": (2, 3, 4),
    "stage.width": (16, 24, 32, 48, 64, 96, 128, 256),
    "stage.depth": (1, 2),
    "decoder.width": (16, 32),
    "decoder.depth": (0, 1),
    "decoder.projection": (0, 32),
    "context.bottleneck": (32,),
    "head.width": (32,),
}


def tiny_space() -> Space:
    return Space(ranges=TINY, size=(64, 96))


@cache
def sample_kinds(count: int) -> tuple[Architecture, ...]:
    """Random tiny architectures that together hold every block, decoder, stem, fusion and an image pyramid."""
    rng = random.Random(7)
    small = tiny_space()
    chosen: list[Architecture] = []
    seen: set[object] = set()
    for _ in range(350):  # ten times as many draws bring no further kinds
        candidate = small.sample(rng)
        traits = {
            ("block", candidate.stages[0].block, candidate.stages[0].factorization),
            ("fuse", candidate.stages[0].fuse),
            ("stem", candidate.stem.kind, candidate.stem.image),
            ("down", candidate.stages[0].down, candidate.stages[0].pairwise_fusion),
            ("decoder", candidate.decoder and candidate.decoder.kind),
            ("context", candidate.context is None),
            ("levels", candidate.levels),
            ("auxiliary", len(candidate.auxiliary) and candidate.auxiliary[0].width),
            ("head", candidate.head.kind),
            ("activation", candidate.activation),
        }
        if not traits <= seen:
            seen |= traits
            chosen.append(candidate)
    while len(chosen) < count:
        chosen.append(small.sample(rng))
    return tuple(chosen)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take `random_architecture` run on every sampled one, each under its key."""
    if "random_architecture" in metafunc.fixturenames:
        samples = sample_kinds(25)
        metafunc.parametrize("random_architecture", samples, ids=[sample.key for sample in samples])


@pytest.fixture(name="tiny_space")
def tiny_space_fixture() -> Space:
    return tiny_space()


@pytest.fixture(scope="session")
def draws() -> list[Architecture]:
    """A thousand draws of the whole space; tests must not change the list."""
    return draw_many(Space(), 1000)


def draw_many(within: Space, count: int = 50) -> list[Architecture]:
    """Draws of a space, the same ones at each call."""
    rng = random.Random(4)
    return [within.sample(rng) for _ in range(count)]


@pytest.fixture(name="draw_many", scope="session")
def draw_many_fixture() -> Callable[..., list[Architecture]]:
    return draw_many


def replay(architecture: Architecture, within: Space) -> Architecture:
    """What `choose` makes of an architecture's genotype, which must answer exactly the questions that are asked."""
    genotype = within.genotype(architecture)
    asked: list[str] = []

    def answer(name: str, options: Sequence[Choice]) -> Choice:
        asked.append(name)
        assert genotype[name] in options
        return genotype[name]

    result = within.choose(answer)
    assert set(asked) == set(genotype)
    assert len(asked) == len(genotype)
    return result


@pytest.fixture(name="replay", scope="session")
def replay_fixture() -> Callable[[Architecture, Space], Architecture]:
    return replay


def order_of_computation(network: nn.Module, image: Tensor) -> list[nn.Module]:
    """Layers with weights, in the order of their first use."""
    order: dict[nn.Module, None] = {}
    hooks = [
        module.register_forward_hook(lambda module, *_: order.setdefault(module))
        for module in network.modules()
        if isinstance(module, OWNERS)
    ]
    with torch.no_grad():
        getattr(network, "outputs", network)(image)
    for hook in hooks:
        hook.remove()
    return list(order)


def randomise(network: nn.Module) -> None:
    """Set random weights and statistics, which show any mistake in normalisation or activation."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for value in (module.weight, module.running_var):
                value.data.uniform_(0.5, 1.5, generator=generator)
            for value in (module.bias, module.running_mean):
                value.data.normal_(0, 0.3, generator=generator)
        elif isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.2, 0.5, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
            module.bias.data.normal_(0, 0.3, generator=generator)


def largest_difference(
    architecture: Architecture, reference: nn.Module, size: tuple[int, int], classes: int = 5
) -> float:
    """The largest difference of the built network from the reference, relative to 1 + the reference's value, in
    evaluation and in training mode, with the same random weights in layers of the same kind and order.
    """
    network = architecture.build(classes, auxiliary=True, training_form=True).double().eval()
    reference = reference.double().eval()
    image = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    randomise(network)
    sources, targets = order_of_computation(network, image), order_of_computation(reference, image)
    assert len(sources) == len(targets) == len([m for m in network.modules() if isinstance(m, OWNERS)])
    for source, target in zip(sources, targets, strict=True):
        assert type(source) is type(target)
        target.load_state_dict(source.state_dict())
    largest = 0.0
    for training in (False, True):
        network.train(training)
        reference.train(training)
        with torch.no_grad():
            expected = reference(image)
            expected = expected if isinstance(expected, list) else [expected]
            for output, wanted in zip(network.outputs(image), expected, strict=True):
                assert float(wanted.std()) > 1e-3, "outputs that are all alike would tell nothing"
                assert output.shape == wanted.shape
                assert bool(output.isfinite().all())
                largest = max(largest, float(((output - wanted).abs() / (1 + wanted.abs())).max()))
    return largest


@pytest.fixture(name="largest_difference")
def largest_difference_fixture() -> Callable[[Architecture, nn.Module, tuple[int, int]], float]:
    return largest_difference
