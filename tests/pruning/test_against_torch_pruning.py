"""Groups, cuts and importances agree with those of torch-pruning, which traces the module by itself."""

from __future__ import annotations

import copy
import importlib.util
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch.nn.functional import cross_entropy

import space
from pruning.check import (
    MOST_SLICES,
    Traced,
    UntraceableError,
    comparable,
    differing_groups,
    producers,
    slices_at,
    slices_of_channels,
)
from pruning.surgery import Cutter
from space import Architecture
from space.channels import channel_map
from space.network import Network

pytestmark = pytest.mark.share(16)

SAMPLES = 2  # channels compared per layer, beside its first and its last

PUBLISHED = ("erfnet", "fplnet-encoder", "ndnet45-ende", "swiftnet-rn18", "swiftnet-mnv2", "swiftnet-rn18-pyramid")
CROSSINGS = (
    "fpl encoder under a ladder",
    "nonbt, conv_pool stem, cat decoder",
    "raw image through two cats, deconv decoder",
    "esp, all cats",
    "esp modules with image_concat, cat decoder",
    "fir and cat down with fpl",
    "fpl under sums of its first convolution",
    "fpl, cats of cats, all fusions of pairs",
    "image pyramid of two levels",
    "narrow sep with image stem",
    "inverted with cats, relu6",
    "detail branch that gives nothing back, of another width, over a parallel pyramid",
    "detail branch with two bottlenecks and no context",
    "blocks of all families in a row",
)


@pytest.fixture
def network_of(
    randomised: Callable[..., Network], crossings: dict[str, Architecture], shallow: Callable[[str], Architecture]
) -> Callable[[str], Network]:
    return lambda name: randomised(crossings[name] if name in crossings else shallow(name))


@pytest.fixture(params=[*PUBLISHED, *CROSSINGS])
def network(request: pytest.FixtureRequest, network_of: Callable[[str], Network]) -> Network:
    return network_of(request.param)


def test_all_crossings_without_granules_are_compared(crossings: dict[str, Architecture], classes: int) -> None:
    """Crossings with granules have grouped convolutions, through which torch-pruning follows no channel."""
    assert set(CROSSINGS) == {name for name, each in crossings.items() if comparable(Cutter(each, classes))}
    assert all(set(space.granules(crossings[name]).values()) > {1} for name in set(crossings) - set(CROSSINGS))


def test_groups_are_those_of_torch_pruning(network: Network, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    assert comparable(cutter)
    places, traced = slices_of_channels(cutter), Traced(network)
    rng, compared = np.random.default_rng(0), 0
    for node in producers(cutter):
        count = len(cutter.positions(node))
        for index in sorted({0, count - 1, *rng.integers(count, size=SAMPLES).tolist()}):
            ours = slices_at(cutter, places, node, [index])
            if len(ours) <= MOST_SLICES:
                assert traced.slices(node.name, [index]) == ours, f"{node.name} channel {index}"
                compared += 1
    assert compared >= 10


def test_the_check_of_a_run_finds_no_differing_groups_in_published_networks(
    published: Architecture, classes: int
) -> None:
    cutter = Cutter(published, classes)
    assert comparable(cutter) == (set(cutter.map.granules) == {1})
    assert differing_groups(cutter, published.build(classes)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_the_check_of_a_run_finds_no_differing_groups_in_random_networks(
    seed: int, narrow_space: space.Space, random_keep: Callable[..., np.ndarray], classes: int
) -> None:
    whole = Cutter(narrow_space.sample(random.Random(seed)), classes)
    for share in (1.0, 0.6):
        architecture = whole.narrowed(whole.counts(random_keep(whole, seed=seed, share=share)))
        assert differing_groups(Cutter(architecture, classes), architecture.build(classes)) == []


def test_wrong_groups_are_found(crossings: dict[str, Architecture], classes: int) -> None:
    """In the wrong groups the terms of a sum are not tied, so that each would be cut by itself."""
    architecture = crossings["raw image through two cats, deconv decoder"]
    wrong = Cutter(architecture, classes)
    wrong.graph = copy.copy(wrong.graph)
    wrong.graph.ties = []
    wrong.map = channel_map(wrong.graph)
    wrong.everything = wrong.map.keep_first({})
    assert "stage0.block0.2_1x3" in differing_groups(wrong, architecture.build(classes))


@pytest.mark.parametrize("name", ["nonbt, conv_pool stem, cat decoder", "narrow sep with image stem"])
def test_single_channels_that_torch_pruning_mistakes_are_not_compared(
    name: str, crossings: dict[str, Architecture], classes: int
) -> None:
    """They are those of a PReLU of one channel, and of a depthwise convolution of one channel."""
    whole = Cutter(crossings[name], classes)
    architecture = whole.narrowed(dict.fromkeys(whole.map.names, 1))
    cutter = Cutter(architecture, classes)
    assert comparable(whole)
    assert not comparable(cutter)
    assert differing_groups(cutter, architecture.build(classes)) == []


@pytest.mark.parametrize("training", [False, True])
def test_checking_leaves_the_network_unchanged(
    training: bool, crossings: dict[str, Architecture], classes: int
) -> None:
    network = crossings["fpl encoder under a ladder"].build(classes).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random_before = torch.random.get_rng_state()
    with torch.no_grad():
        assert differing_groups(Cutter(network.architecture, classes), network) == []
    assert all(module.training is training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(torch.random.get_rng_state(), random_before)


def test_cuts_are_those_of_torch_pruning(
    network: Network, image: Callable[..., torch.Tensor], random_keep: Callable[..., np.ndarray], classes: int
) -> None:
    cutter, picture = Cutter(network.architecture, classes), image()
    keep = random_keep(cutter, seed=1, share=0.7)
    expected = cutter.cut(network, keep)
    achieved, gone = copy.deepcopy(network), set()
    traced = Traced(achieved)
    for node in producers(cutter):
        left = [int(channel) for channel in cutter.positions(node) if int(channel) not in gone]
        indices = [index for index, channel in enumerate(left) if not keep[channel]]
        if indices:
            traced.group(node.name, indices).prune()
            gone |= {left[index] for index in indices}
    assert gone == set(np.flatnonzero(~keep).tolist())
    weights = achieved.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with torch.no_grad():
        assert torch.equal(expected(picture), achieved(picture))


@pytest.fixture
def stock() -> ModuleType:
    """The study's re-expression of torch-pruning's importances."""
    path = Path(__file__).parents[2] / "studies" / "pruning" / "stock.py"
    spec = importlib.util.spec_from_file_location("stock", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# For concatenated channels of several layers torch-pruning's scores leave out layers of unknown place.
@pytest.mark.parametrize(
    "name",
    [
        "swiftnet-rn18",
        "swiftnet-mnv2",
        "ndnet45-fcn32",
        "ndnet45-ende",
        "fplnet-encoder",
        "fpl encoder under a ladder",
        "esp modules with image_concat, cat decoder",
    ],
)
@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_the_importances_of_the_study_are_those_of_torch_pruning(
    importance: str,
    name: str,
    network_of: Callable[[str], Network],
    randomised: Callable[..., Network],
    image: Callable[..., torch.Tensor],
    classes: int,
    stock: ModuleType,
) -> None:
    network = randomised(_without_image(network_of(name).architecture))
    cutter, picture = Cutter(network.architecture, classes), image()
    labels = torch.randint(classes, (len(picture), *picture.shape[-2:]), generator=torch.Generator().manual_seed(0))
    traced = Traced(network)
    if importance == "magnitude":
        scores, scorer = stock.group_magnitude(cutter, network), tp.importance.GroupMagnitudeImportance()
    else:
        batch = (picture, labels)
        scores, scorer = (
            stock.group_taylor(cutter, network, [batch], cross_entropy),
            tp.importance.GroupTaylorImportance(),
        )
        cross_entropy(network(picture), labels).backward()
    for node in producers(cutter):
        channels = cutter.positions(node)
        expected = scorer(traced.group(node.name, range(len(channels)))).double().numpy()
        found = scores[channels] / scores[channels].mean()
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=node.name)


def _without_image(architecture: Architecture) -> Architecture:
    """The architecture without images that are joined later."""
    fuse = {"image_concat": "concat", "fir": "none"}
    stages = tuple(replace(stage, fuse=fuse.get(stage.fuse, stage.fuse)) for stage in architecture.stages)
    return replace(architecture, stem=replace(architecture.stem, image=False), stages=stages)


def test_a_network_that_torch_pruning_cannot_trace_raises_one_kind_of_error() -> None:
    network = space.load("ndnet45-ende").build(3)

    def broken(image: torch.Tensor) -> torch.Tensor:
        raise KeyError("nobody traces this")

    network.forward = broken  # type: ignore[method-assign]
    with pytest.raises(UntraceableError, match="KeyError: 'nobody traces this'"):
        differing_groups(Cutter(network.architecture, 3), network)
    assert network.training
