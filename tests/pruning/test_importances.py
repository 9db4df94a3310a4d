"""Scores of channels, compared with sums written out by hand and with the loss itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.importance import Batch, LabelledData
from pruning.importances.batch_norm import batch_norm_scale
from pruning.importances.fisher import fisher
from pruning.importances.magnitude import magnitude
from pruning.importances.taylor import taylor
from pruning.surgery import Cutter
from space import Architecture
from space.channels import FIXED, parametric
from space.network import Network

pytestmark = pytest.mark.share(12)

TINY = (
    "fir and cat down with fpl",
    "raw image through two cats, deconv decoder",
    "image pyramid of two levels",
    "narrow sep with image stem",
)


@pytest.fixture(params=TINY)
def network(request: pytest.FixtureRequest, randomised: Callable, crossings: dict[str, Architecture]) -> Network:
    return randomised(crossings[request.param])


def batches(image: Callable, classes: int, count: int = 2) -> list[Batch]:
    rng = torch.Generator().manual_seed(7)
    size = (20, 28)
    return [(image(seed=seed, size=size), torch.randint(classes, (1, *size), generator=rng)) for seed in range(count)]


def labelled(data: list[Batch]) -> LabelledData:
    return LabelledData(batches=data, loss=functional.cross_entropy)


def belonging(cutter: Cutter, network: Network, channel: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Parameters with masks of the entries that are removed with `channel`, each entry once."""
    for node in parametric(cutter.graph):
        out = torch.from_numpy(cutter.positions(node) == channel)
        read = torch.from_numpy(cutter.read_positions(node) == channel)
        if not out.any() and not read.any():
            continue
        for parameter in network.layer(node.name).parameters():
            mask = torch.zeros_like(parameter, dtype=torch.bool)
            if parameter.dim() == 1 or node.group_width:
                mask[out] = True
            elif node.kind == "deconv":
                mask[:, out] = True
                mask[read] = True
            else:
                mask[out] = True
                mask[:, read] = True
            yield parameter, mask


def some_channels(cutter: Cutter) -> list[int]:
    """The first and the last channel of every group."""
    ends = [cutter.map.members(name)[[0, -1]] for name in cutter.map.names]
    return sorted({int(channel) for pair in ends for channel in pair})


def gate_derivatives(cutter: Cutter, network: Network, batch: tuple[Tensor, Tensor], channel: int) -> float:
    """The derivative of the loss by a factor on all readers of a channel: a central difference."""
    step, losses = 1e-4, []
    for factor in (1 + step, 1 - step):
        handles = []
        for node in parametric(cutter.graph):
            if node.kind in ("conv", "deconv") and not node.group_width:
                scale = torch.ones(len(cutter.read_positions(node)), dtype=torch.float64)
                read = cutter.read_positions(node) == channel
                if not read.any():
                    continue
                scale[torch.from_numpy(read)] = factor
                handles.append(
                    network.layer(node.name).register_forward_pre_hook(
                        lambda module, inputs, scale=scale: (inputs[0] * scale[:, None, None],)
                    )
                )
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(network(batch[0]), batch[1])))
        for handle in handles:
            handle.remove()
    return (losses[0] - losses[1]) / (2 * step)


def test_taylor_is_the_slope_of_the_loss(network: Network, image: Callable, classes: int) -> None:
    cutter, data = Cutter(network.architecture, classes), batches(image, classes)
    scores = taylor(cutter, network, labelled(data))
    assert max(scores) > 0
    for channel in some_channels(cutter)[:12]:
        slopes = [abs(gate_derivatives(cutter, network, batch, channel)) for batch in data]
        assert scores[channel] == pytest.approx(np.mean(slopes), rel=1e-3, abs=1e-6 * max(scores))


def test_fisher_is_half_the_squared_slope_of_each_image(network: Network, image: Callable, classes: int) -> None:
    cutter, data = Cutter(network.architecture, classes), batches(image, classes, count=3)
    together = [(torch.cat([one[0] for one in data]), torch.cat([one[1] for one in data]))]
    scores = fisher(cutter, network, labelled(together))
    for channel in some_channels(cutter)[:12]:
        slopes = [gate_derivatives(cutter, network, batch, channel) for batch in data]
        assert scores[channel] == pytest.approx(np.mean(np.square(slopes)) / 2, rel=1e-2, abs=1e-6 * max(scores))


def test_batch_norm_scale_is_the_mean_of_the_scales(network: Network, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    scores = batch_norm_scale(cutter, network)
    scales: dict[int, list[float]] = {}
    for node in parametric(cutter.graph):
        if node.kind == "norm":
            for channel, scale in zip(cutter.positions(node), network.layer(node.name).weight.tolist(), strict=True):
                scales.setdefault(int(channel), []).append(abs(scale))
    assert len(scales) > 10
    for channel, values in scales.items():
        assert scores[channel] == pytest.approx(np.mean(values))
    others = [channel for channel in some_channels(cutter) if channel not in scales]
    mean = np.mean([np.mean(values) for values in scales.values()])
    assert scores[others] == pytest.approx(mean * magnitude(cutter, network)[others])


def test_magnitude_is_the_squared_norm_relative_to_the_group(network: Network, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    scores = magnitude(cutter, network)
    for name in cutter.map.names[:6]:
        members = cutter.map.members(name)
        norms = np.array(
            [
                sum(float((p.detach()[mask] ** 2).sum()) for p, mask in belonging(cutter, network, channel))
                for channel in members
            ]
        )
        assert scores[members] == pytest.approx(norms / norms.mean())


def silence(cutter: Cutter, network: Network, channels: list[int]) -> None:
    with torch.no_grad():
        for channel in channels:
            for parameter, mask in belonging(cutter, network, channel):
                parameter[mask] = 0.0


def test_dead_channels_score_zero(network: Network, image: Callable, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    wide = [name for name, count in zip(cutter.map.names, cutter.map.counts, strict=True) if count >= 4]
    dead = [int(cutter.map.members(name)[1]) for name in wide]
    silence(cutter, network, dead)
    data = batches(image, classes)
    for scores in (
        magnitude(cutter, network),
        taylor(cutter, network, labelled(data)),
        fisher(cutter, network, labelled(data)),
    ):
        assert (scores[dead] == 0).all()
        assert max(scores) > 0


def test_cutting_dead_channels_changes_nothing(network: Network, image: Callable, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    wide = [name for name, count in zip(cutter.map.names, cutter.map.counts, strict=True) if count >= 4]
    dead = [int(cutter.map.members(name)[1]) for name in wide]
    silence(cutter, network, dead)
    keep = cutter.everything.copy()
    keep[dead] = False
    with torch.no_grad():
        before, after = network(image()), cutter.cut(network, keep)(image())
    assert torch.allclose(before, after, rtol=0, atol=1e-10 * float(before.abs().max()))


def test_scores_of_a_cut_network_are_over_the_uncut_channels(
    network: Network, random_keep: Callable, classes: int
) -> None:
    cutter = Cutter(network.architecture, classes)
    cut = cutter.cut(network, random_keep(cutter, seed=1))
    again = Cutter(cut.architecture, classes)
    scores = magnitude(again, cut)
    assert scores.shape == again.everything.shape == cutter.everything.shape
    assert (scores[~again.everything] == 0).all()
    assert (scores[again.everything & (again.map.group_of_channel != FIXED)] > 0).all()
