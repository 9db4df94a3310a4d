"""The steps of pruning and their order, on an invented target; `test_prune_command.py` prunes on a real one."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import space
from nas.data import Dataset, DataSpec, load
from nas.errors import TargetError, UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.estimates.work import layer_work
from nas.latency.machine import lane
from nas.latency.meter import MeasuresOne
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.prune.judge import Judge
from nas.prune.plan import PruningPlan
from nas.prune.pruner import AIM, Pruned, Pruner
from nas.prune.tuning import FineTuning
from nas.terminal import TELL_SECONDS, ProgressLine
from nas.training import load_recipe
from space import Architecture, BudgetError, UserError
from space.channels import widths
from space.decoders.deconv import DeconvDecoder
from space.network import Network
from space.scale import scale_width

SIZE = (32, 48)


@dataclass
class Invented:
    """A target on which each layer takes a fixed time, and some time per multiply-add."""

    measured: list[str] = field(default_factory=list)
    slowness: float = 1.0

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        self.measured.append(architecture.key)
        graph = architecture.graph(11)
        layers = sum(map(bool, layer_work(graph, widths(graph, architecture.channels), SIZE)))
        milliseconds = self.slowness * (0.02 * layers + space.multiply_adds(architecture, SIZE, 11) / 1.25e6)
        return Latency(
            p50_milliseconds=milliseconds,
            p90_milliseconds=milliseconds,
            p99_milliseconds=milliseconds,
            ci_low_milliseconds=milliseconds,
            ci_high_milliseconds=milliseconds,
            samples=40,
            ratio=milliseconds,
            ratio_low=milliseconds,
            ratio_high=milliseconds,
            reference_milliseconds=1.0,
            raw_p50_milliseconds=milliseconds,
            target="onnxruntime@cpu:1",
            height=SIZE[0],
            width=SIZE[1],
            scope="nothing",
        )


class Tiring(Invented):
    """A target on which everything takes ten times as long from the first repeated measurement on."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        if architecture.key in self.measured:
            self.slowness = 10.0
        return super().measure(architecture, weights=weights, within=within)


class Busy(Invented):
    """A target that a neighbour disturbs."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        return replace(super().measure(architecture, weights=weights, within=within), flagged=("a neighbour",))


class Unsure(Invented):
    """A target whose intervals are 3 % wide to each side."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        latency = super().measure(architecture, weights=weights, within=within)
        low, high = (share * latency.p50_milliseconds for share in (0.97, 1.03))
        return replace(latency, ci_low_milliseconds=low, ci_high_milliseconds=high)


@dataclass
class Picky(Invented):
    """A target that refuses cuts of `low` to `high` milliseconds, for other labels than PyTorch."""

    low: float = 0.0
    high: float = 0.0

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        latency = super().measure(architecture, weights=weights, within=within)
        if architecture.channels and self.low < latency.p50_milliseconds < self.high:
            raise TargetError("other labels than PyTorch")
        return latency


@dataclass
class Fickle(Invented):
    """A target that refuses the first network that it gets a second time, from then on."""

    refused: str = ""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        if architecture.key in self.measured:
            self.refused = self.refused or architecture.key
        if architecture.key == self.refused:
            raise TargetError("other labels than PyTorch")
        return super().measure(architecture, weights=weights, within=within)


class Flattering(Invented):
    """A target that finds each cut 4 % too fast at its first measurement."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        new = bool(self.measured) and architecture.key not in self.measured
        latency = super().measure(architecture, weights=weights, within=within)
        return replace(latency, p50_milliseconds=0.96 * latency.p50_milliseconds) if new else latency


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load(DataSpec(size=SIZE, train_images=8, validation_images=2))


@pytest.fixture(scope="module")
def network() -> Network:
    """A short and narrow ERFNet with five removable blocks."""
    whole = scale_width(space.load("erfnet"), 0.25)
    assert isinstance(whole.decoder, DeconvDecoder)
    stages = tuple(replace(stage, depth=depth) for stage, depth in zip(whole.stages, (1, 2), strict=True))
    decoder = replace(whole.decoder, steps=tuple(replace(step, depth=1) for step in whole.decoder.steps))
    torch.manual_seed(0)
    return replace(whole, stages=stages, decoder=decoder).build(11).eval()


def pruner(
    target: MeasuresOne, dataset: Dataset | None, said: list[str], budget: Budget, plan: PruningPlan | None = None
) -> Pruner:
    return Pruner(
        judge=Judge(target, SIZE, 11),
        budget=budget,
        plan=plan or PruningPlan(epochs=0),
        tuning=None if dataset is None else FineTuning(dataset=dataset, recipe=load_recipe("quick")),
        said=said.append,
    )


def share_of(network: Network, share: float) -> Budget:
    return Budget(milliseconds=share * Invented().measure(network.architecture).p50_milliseconds)


@pytest.fixture(scope="module")
def narrowed(network: Network) -> Pruned:
    """The network pruned without data to three quarters of its latency."""
    return pruner(Invented(), None, [], share_of(network, 0.75)).prune(network)


def test_the_budget_is_filled_and_epochs_are_shared_among_steps(
    network: Network, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    before = {name: value.clone() for name, value in network.state_dict().items()}
    budget = share_of(network, 0.5)
    slow = ProgressLine(itertools.count(step=TELL_SECONDS).__next__)  # on this clock every batch takes that long
    asked = replace(pruner(Invented(), dataset, said, budget, PruningPlan(epochs=4, steps=2)), progress=slow)
    pruned = asked.prune(network)
    # An untrained network loses blocks first, and no part of a block can be given back.
    assert 0.9 * budget.milliseconds <= pruned.after.p50_milliseconds <= AIM * budget.milliseconds
    assert pruned.blocks == 5
    depths = sum(stage.depth for stage in pruned.network.architecture.stages)
    assert pruned.network.architecture.decoder is not None
    depths += sum(step.depth for step in pruned.network.architecture.decoder.steps)
    assert 0 < pruned.blocks_gone == 5 - depths
    assert len([words for words in said if words.startswith("cut")]) == 2
    assert len([words for words in said if words.startswith("epoch")]) == 4
    told = re.findall(r"^(.+): (\d+) of (\d+) images, .* left$", capsys.readouterr().err, re.M)
    steps = [("epoch 1/1",), ("epoch 1/3", "epoch 2/3", "epoch 3/3")]
    before_training = ("channels weighed", "cuts observed", "statistics of batch norms")
    assert [what for what, done, of in told if done == of] == [
        what for epochs in steps for what in (*before_training, *epochs)
    ]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_cut_that_only_seemed_to_fit_is_cut_lower(network: Network) -> None:
    said: list[str] = []
    budget = share_of(network, 0.75)
    pruned = pruner(Flattering(), None, said, budget).prune(network)
    assert 0.9 * budget.milliseconds <= pruned.after.p50_milliseconds <= budget.milliseconds
    assert pruned.after == Invented().measure(pruned.network.architecture)
    assert [words.split()[0] for words in said].count("again") >= 2


@pytest.mark.slow
def test_cuts_that_cannot_be_timed_are_over_the_budget(network: Network) -> None:
    said: list[str] = []
    budget = share_of(network, 0.75)
    target = Picky(low=0.9 * budget.milliseconds, high=budget.milliseconds)
    pruned = pruner(target, None, said, budget).prune(network)
    assert 0.8 * budget.milliseconds <= pruned.after.p50_milliseconds <= target.low
    assert "tried   a cut that cannot be timed: other labels than PyTorch" in said


def test_a_cut_that_cannot_be_timed_again_is_cut_lower(network: Network) -> None:
    said: list[str] = []
    target, budget = Fickle(), share_of(network, 0.75)
    pruned = pruner(target, None, said, budget).prune(network)
    assert pruned.network.architecture.key != target.refused
    assert 0.8 * budget.milliseconds <= pruned.after.p50_milliseconds <= budget.milliseconds
    assert "again   this cut cannot be timed: other labels than PyTorch" in said


def test_a_cut_over_the_budget_is_kept_if_no_lower_cut_exists(network: Network) -> None:
    """The certificate decides later: a single measurement does not discard the training before it."""
    budget = share_of(network, 0.75)
    pruned = pruner(Tiring(), None, [], budget).prune(network)
    assert not budget.admits(pruned.after)
    assert budget.admits(Invented().measure(pruned.network.architecture))


@pytest.mark.slow
def test_a_finished_network_over_the_budget_is_cut_lower(network: Network, dataset: Dataset) -> None:
    said: list[str] = []
    budget = share_of(network, 0.7)
    untrained = pruner(Invented(), dataset, said, budget)
    pruned = untrained.prune(network)
    slower = Invented(slowness=1.03 * budget.milliseconds / pruned.after.p50_milliseconds)
    certified: list[Latency] = []

    def certify(finished: Network) -> Latency:
        certified.append(slower.measure(finished.architecture))
        return certified[-1]

    finished = replace(untrained, plan=PruningPlan(epochs=6)).finish(pruned, network, certify)
    over, inside = (latency.p50_milliseconds / budget.milliseconds for latency in certified)
    assert 0.9 < inside <= AIM < over
    assert certified[-1] == slower.measure(finished.network.architecture)
    assert finished.before == pruned.before
    assert finished.blocks == 5
    assert [words.split()[1] for words in said if words.startswith("epoch")] == ["1/2", "2/2"]


@pytest.mark.parametrize(("growth", "certificates"), [(1.0, 1), (1.1, 3)])
def test_a_finished_network_is_kept_inside_the_budget_and_given_up_after_three_certificates(
    growth: float, certificates: int, network: Network, narrowed: Pruned
) -> None:
    """`growth`: the factor by which every latency grows with each certificate."""
    pruning = pruner(Invented(), None, [], share_of(network, 0.75))
    certified: list[Architecture] = []

    def certify(finished: Network) -> Latency:
        certified.append(finished.architecture)
        return Invented(slowness=growth ** len(certified)).measure(finished.architecture)

    finished = pruning.finish(narrowed, network, certify)
    assert len(set(certified)) == len(certified) == certificates
    assert certified[0] == narrowed.network.architecture
    assert certified[-1] == finished.network.architecture


@pytest.mark.slow
def test_a_network_over_the_budget_is_refused_with_the_reason_if_no_cut_can_be_timed(
    network: Network, narrowed: Pruned
) -> None:
    pruning = pruner(Picky(high=math.inf), None, [], share_of(network, 0.75))
    with pytest.raises(UnmeasuredError, match=r"^other labels than PyTorch$"):
        pruning.finish(narrowed, network, lambda over: Invented(slowness=1.1).measure(over.architecture))


def test_an_unpruned_network_is_cut_if_its_certificate_is_over_the_budget(network: Network) -> None:
    budget = share_of(network, 1.01)
    pruning = pruner(Invented(), None, [], budget)
    pruned = pruning.prune(network)
    assert pruned.network is network

    def certify(finished: Network) -> Latency:
        return Invented(slowness=1.03).measure(finished.architecture)

    finished = pruning.finish(pruned, network, certify)
    assert budget.admits(certify(finished.network))


@pytest.mark.slow
def test_a_plan_without_depth_cuts_channels_alone(network: Network, dataset: Dataset) -> None:
    budget = share_of(network, 0.75)  # fixed times of layers are two thirds of the latency
    pruned = pruner(Invented(), dataset, [], budget, PruningPlan(epochs=0, depth=False)).prune(network)
    assert pruned.blocks_gone == 0
    assert budget.admits(pruned.after)
    fresh = pruned.network.state_dict()["stage0.down.norm.running_mean"]
    kept = pruned.network.architecture
    assert kept.without_channels() == network.architecture
    assert fresh.abs().max() > 0  # statistics of the data instead of initial ones


def test_pruning_without_data_keeps_blocks_and_statistics(network: Network, narrowed: Pruned) -> None:
    pruned = narrowed.network
    assert share_of(network, 0.75).admits(Invented().measure(pruned.architecture))
    assert pruned.architecture.without_channels() == network.architecture
    assert pruned.state_dict()["stage0.down.norm.running_mean"].abs().max() == 0


def test_an_unreachable_budget_is_refused_before_any_cut(network: Network, dataset: Dataset) -> None:
    said: list[str] = []
    target = Invented()
    with pytest.raises(BudgetError, match="the fastest cut that was measured takes"):
        pruner(target, dataset, said, Budget(milliseconds=0.05), PruningPlan(epochs=4)).prune(network)
    assert len(target.measured) == 4  # the whole network and its three smallest cuts
    assert [line.split()[0] for line in said] == ["whole", "tried", "tried", "tried"]


def test_an_unreachable_budget_on_a_busy_machine_is_refused_with_the_disturbance(network: Network) -> None:
    with pytest.raises(BudgetError, match=r"the fastest cut .*but the machine was busy \(a neighbour\).*--patience"):
        pruner(Busy(), None, [], share_of(network, 0.001)).prune(network)


def test_a_cut_whose_interval_leaves_the_budget_is_cut_lower(network: Network) -> None:
    budget, unsure = share_of(network, 0.75), Unsure()
    pruned = pruner(unsure, None, [], budget).prune(network)
    assert budget.verdict(pruned.after) == "PASS"
    assert budget.verdict(unsure.measure(pruned.network.architecture)) == "PASS"
    assert pruned.after.p50_milliseconds > 0.9 * budget.milliseconds


def test_a_network_inside_the_budget_is_returned_unchanged(network: Network, dataset: Dataset) -> None:
    pruned = pruner(Invented(), dataset, [], share_of(network, 1.01), PruningPlan(epochs=4)).prune(network)
    assert pruned.network is network
    assert pruned.blocks_gone == 0


@pytest.mark.slow
def test_every_computation_of_a_single_cut_is_inside_a_training_step(
    network: Network, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring, observing, training and scoring again must not run while another process times on the machine."""
    computed: list[int] = []
    steps: Counter[int] = Counter()  # steps under way by thread: batches are made in another thread
    real = lane.shared

    @contextlib.contextmanager
    def step() -> Iterator[None]:
        with real():
            steps[threading.get_ident()] += 1
            yield
            steps[threading.get_ident()] -= 1

    def hook(module: nn.Module, inputs: object) -> None:
        if isinstance(module, Network):
            computed.append(steps[threading.get_ident()])

    class Alone(Invented):
        def measure(self, *arguments: Any, **named: Any) -> Latency:
            with lane.exclusive():  # would wait for ever for a step that is not over
                return super().measure(*arguments, **named)

    monkeypatch.setattr(lane, "shared", step)
    handle = register_module_forward_pre_hook(hook)
    said: list[str] = []
    try:
        pruner(Alone(), dataset, said, share_of(network, 0.5), PruningPlan(epochs=1, steps=1)).prune(network)
    finally:
        handle.remove()
    assert [words.split()[0] for words in said if words.startswith(("cut", "epoch"))] == ["cut", "epoch"]
    assert len(computed) > 100
    assert set(computed) == {1}
    assert not any(steps.values())


def test_an_importance_that_needs_data_is_refused_without(network: Network, dataset: Dataset) -> None:
    plan, budget = PruningPlan(epochs=0, importance="taylor"), share_of(network, 0.5)
    with pytest.raises(UserError, match=r"taylor expected data.*choose magnitude or batch-norm"):
        pruner(Invented(), None, [], budget, plan)
    assert pruner(Invented(), dataset, [], budget, plan).plan == plan
