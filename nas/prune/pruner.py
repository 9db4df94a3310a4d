"""Pruning a trained network into a measured budget: look at what it costs, weigh, cut, recover, and again.

`pruning` decides what goes; here it meets data, the target and the trainer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nas.data import Dataset, Loader, endless, make_loader
from nas.latency.budget import Budget
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine import lane
from nas.latency.meter import MeasuresOne
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.training import EpochReport, Recipe
from nas.training.steps import guarded
from pruning import check, importances
from pruning.allocation import FULL_ENOUGH, Allocation, allocate, require_reachable
from pruning.damage import Damage, assumed_damage, observed_damage
from pruning.depth import removable_blocks, remove_blocks, without_blocks
from pruning.importance import LabelledData, Scores
from pruning.surgery import Cutter
from space import Architecture, BudgetError, UserError
from space.channels import Widths
from space.graph import Graph

if TYPE_CHECKING:
    from space.network import Network

SCORING_BATCHES = 16
OBSERVED_IMAGES = 16  # on which damage is observed; their statistics stand for the data's
STATISTICS_BATCHES = 32  # that give batch norms fresh statistics when nothing is trained
AIM = 0.985  # of the budget: repeated measurements differ by one to two per cent
ROUGHLY_FULL = 0.9  # of what a cut on the way aims at
CONFIRMATIONS = 3  # of last cuts, each lower than the one before
TRIMS = 2  # at most, of what is over the budget when it is finished,
TRIM_SHARE = 0.25  # each followed by so much of the epochs
QUICK = 2.0  # times as unsure are the latencies of cuts that only teach what cuts cost
TAUGHT = 10  # such cuts
NARROWEST = 0.15  # share of channels that they keep


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """A network inside its budget, what it and its origin measured, and how many of the blocks that can go went."""

    network: Network
    before: Latency
    after: Latency
    blocks: int
    blocks_gone: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to prune. `steps`: cuts on the way to the budget, each weighed anew and followed by its share of `epochs`.

    Raises: UserError for less than one step, fewer than no epochs, or an importance that is not known.
    """

    epochs: int
    steps: int = 2
    importance: str | None = None  # of `pruning.importances`; None: Fisher with data, magnitude without
    depth: bool = True  # blocks may go, not only channels

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps: expected at least 1, got {self.steps}")
        if self.epochs < 0:
            raise UserError(f"epochs: expected 0 or more, got {self.epochs}")
        if self.importance is not None:
            importances.kind(self.importance)


class Pruner:
    """Prunes networks on one target; keeps what it learnt of the target's latencies."""

    def __init__(
        self,
        meter: MeasuresOne,
        size: tuple[int, int],
        num_classes: int,
        *,
        table: LatencyTable | None,
        dataset: Dataset | None,
        recipe: Recipe,
        device: str = "cpu",
        within: float = WITHIN,
        said: Callable[[str], None] = lambda words: None,
    ) -> None:
        """`size`: height and width that `meter` times at, and `within`: how sure (see `Meter.measure`). Without
        `dataset` nothing is trained, and weights decide.
        """
        self._meter = meter
        self._num_classes = num_classes
        self._dataset = dataset
        self._recipe = recipe
        self._device = device
        self._within = within
        self._said = said
        self._estimates = Estimates(size, num_classes, table)
        self._latencies: dict[str, Latency] = {}

    def prune(self, network: Network, budget: Budget, plan: Plan) -> Pruned:
        """The most accurate network that can be cut out of `network` inside `budget`.

        Of the cuts that are measured one is taken that came out inside, which it may owe to its measurement: before its
        training it is measured once more, and what is over then is cut lower.

        Raises: BudgetError with the lowest latency reached, before anything is trained, when no cut is enough.
        """
        before = self._latency(network.architecture)
        if budget.admits(before):
            return _pruned(network, network, before, before)
        aim = AIM * budget.milliseconds
        cutter = Cutter(network.architecture, self._num_classes)
        self._learn(network.architecture, budget)
        depth = plan.depth and self._dataset is not None  # without data nothing tells which blocks can go
        require_reachable(
            cutter,
            estimate=self._estimate,
            measure=lambda architecture: self._learn(architecture, budget),
            budget_milliseconds=aim,
            depth=depth,
        )
        for cut in some_cuts(cutter, TAUGHT, depth=depth):
            self._learn_latency(cut, self._quick(cut), budget)
        with lane.training_step():
            differing = check.differing_groups(cutter, network)
        assert not differing, f"torch-pruning finds other channels in {', '.join(differing)}"
        teacher = network = network.to(self._device)
        start = before.milliseconds(budget.statistic)
        for step in range(1, plan.steps + 1):
            wanted = start * math.pow(aim / start, step / plan.steps)
            network = self._cut(network, wanted, budget, plan, last=step == plan.steps)
            after = self._latency(network.architecture)
            network = self._recovered(network, teacher, _share(plan.epochs, step, plan.steps))
        return _pruned(network.cpu(), teacher, before, after)

    def finish(
        self, pruned: Pruned, whole: Network, budget: Budget, plan: Plan, certify: Callable[[Network], Latency]
    ) -> Pruned:
        """`pruned`, finished: `certify` writes a network and measures what was written. What is over the budget then is
        cut lower, trained for a share of the plan's epochs, with the `whole` network as the teacher, and certified
        again; the last one certified is given back, and may still be over.

        Raises: BudgetError with the lowest latency reached when no cut is enough.
        """
        latency = certify(pruned.network)
        for _ in range(TRIMS):
            if budget.admits(latency):
                break
            over = latency.milliseconds(budget.statistic) / budget.milliseconds - 1
            self._said(f"over    {latency}: {100 * over:.1f} % too long when it was finished")
            self._latencies[pruned.network.architecture.key] = latency
            aim = _lower(pruned.after.milliseconds(budget.statistic), latency, budget)
            network = self._cut(pruned.network.to(self._device), aim, budget, plan, last=True)
            after = self._latency(network.architecture)
            network = self._recovered(network, whole.to(self._device), math.ceil(TRIM_SHARE * plan.epochs))
            pruned = _pruned(network.cpu(), whole, pruned.before, after)
            latency = certify(pruned.network)
        return pruned

    def _cut(self, network: Network, milliseconds: float, budget: Budget, plan: Plan, *, last: bool) -> Network:
        """`network` cut to `milliseconds`; the `last` cut is confirmed."""
        cutter = Cutter(network.architecture, self._num_classes)
        scores, damage = self._weighed(cutter, network, plan)

        def allocated(milliseconds: float) -> Allocation:
            full_enough = FULL_ENOUGH / AIM if last else ROUGHLY_FULL
            allocation = self._allocated(cutter, scores, damage, milliseconds, budget, full_enough)
            self._said(f"cut     {self._latency(allocation.architecture)}")
            return allocation

        allocation = allocated(milliseconds)
        for _ in range(CONFIRMATIONS if last else 0):
            latency = self._latency(allocation.architecture, anew=True)
            self._said(f"again   {latency}")
            if budget.admits(latency):
                break
            try:
                allocation = allocated(_lower(allocation.milliseconds, latency, budget))
            except BudgetError:  # this one is as low as it goes, and may be inside when it is finished
                break
        cut = remove_blocks(cutter.cut(network, allocation.keep), allocation.blocks)
        assert cut.architecture == allocation.architecture, "what was cut is what was measured"
        return cut

    def _allocated(
        self,
        cutter: Cutter,
        scores: Scores,
        damage: Damage,
        milliseconds: float,
        budget: Budget,
        full_enough: float,
    ) -> Allocation:
        taught: list[Architecture] = []

        def measure(architecture: Architecture) -> float:
            taught.append(architecture)
            latency = self._latency(architecture)
            self._said(f"tried   {latency}")
            return latency.milliseconds(budget.statistic)

        allocation = allocate(
            cutter,
            scores,
            damage,
            estimate=self._estimate,
            measure=measure,
            budget_milliseconds=milliseconds,
            full_enough=full_enough,
        )
        for architecture in taught:  # not sooner: the allocation corrects the estimates that it began with
            self._learn(architecture, budget)
        return allocation

    def _weighed(self, cutter: Cutter, network: Network, plan: Plan) -> tuple[Scores, Damage]:
        scores = self._scores(cutter, network, plan.importance)
        if self._dataset is None:
            return scores, assumed_damage(cutter, scores)
        with lane.training_step():
            images = next(endless(self._loader(self._dataset, OBSERVED_IMAGES)))[0]
        damage = observed_damage(cutter, network, scores, [images], guard=lane.training_step)
        return scores, damage if plan.depth else replace(damage, blocks={})

    def _scores(self, cutter: Cutter, network: Network, name: str | None) -> Scores:
        from nas.training.loss import segmentation_loss

        importance = importances.kind(name or importances.default(with_data=self._dataset is not None))
        if self._dataset is None or not importance.needs_data:
            return importance.scores(cutter, network)
        batches = itertools.islice(endless(self._loader(self._dataset, self._recipe.batch_size)), SCORING_BATCHES)
        with closing(guarded(batches, lane.training_step)) as steps:
            return importance.scores(cutter, network, LabelledData(batches=steps, loss=segmentation_loss))

    def _loader(self, dataset: Dataset, size: int) -> Loader:
        """Training images as they are."""
        return make_loader(
            dataset, "train", batch_size=size, augmentation=None, seed=self._recipe.seed, device=self._device
        )

    def _recovered(self, network: Network, teacher: Network, epochs: int) -> Network:
        """Fresh batch-norm statistics, then training with the whole network as the teacher."""
        from nas.training.normalisation import reestimate_batch_norm
        from nas.training.trainer import Trainer

        if self._dataset is None:
            return network
        loader = self._loader(self._dataset, self._recipe.batch_size)
        reestimate_batch_norm(network, loader, STATISTICS_BATCHES, guard=lane.training_step)
        if not epochs:
            return network
        trainer = Trainer(
            network.architecture,
            self._dataset,
            replace(self._recipe, epochs=epochs),
            device=self._device,
            weights=network.state_dict(),
            teacher=teacher,
            guard=lane.training_step,
        )
        while not trainer.finished:
            self._said(_words(trainer.run_epoch()))
        network.load_state_dict(trainer.weights())
        return network

    def _estimate(self, graph: Graph, sizes: Widths) -> float:
        with lane.training_step():  # thousands of them keep a core busy for a minute
            return self._estimates.graph(graph, sizes)

    def _latency(self, architecture: Architecture, *, anew: bool = False) -> Latency:
        """The last one measured."""
        if anew or architecture.key not in self._latencies:
            self._latencies[architecture.key] = self._meter.measure(architecture, within=self._within)
        return self._latencies[architecture.key]

    def _quick(self, architecture: Architecture) -> Latency:
        return self._meter.measure(architecture, within=QUICK * self._within)

    def _learn(self, architecture: Architecture, budget: Budget) -> float:
        return self._learn_latency(architecture, self._latency(architecture), budget)

    def _learn_latency(self, architecture: Architecture, latency: Latency, budget: Budget) -> float:
        milliseconds = latency.milliseconds(budget.statistic)
        self._estimates.learn(architecture, milliseconds, disturbed=bool(latency.flagged))
        return milliseconds


def _lower(before: float, latency: Latency, budget: Budget) -> float:
    """The milliseconds to aim at, on the scale on which what took `latency`, over the budget, took `before`."""
    over = latency.milliseconds(budget.statistic) / budget.milliseconds
    assert over > 1, "what is inside the budget is left as it is"
    return AIM * min(budget.milliseconds, before / over)


def some_cuts(cutter: Cutter, number: int, *, depth: bool) -> Iterator[Architecture]:
    """Cuts of all sizes, at random: what to measure to learn what cutting this network brings.

    `depth`: blocks go too, the more the narrower the cut.
    """
    random = np.random.default_rng(0)
    possible = removable_blocks(cutter.architecture) if depth else ()
    for share in np.geomspace(1.0, NARROWEST, number):
        counts = {}
        for name, full in cutter.counts(cutter.everything).items():
            wanted = full * min(1.0, share * math.exp(random.uniform(-0.4, 0.4)))
            multiple = int(random.choice([1, 4, 16]))
            counts[name] = int(np.clip(round(wanted / multiple) * multiple, 1, full))
        blocks = [block for block in possible if random.random() > math.sqrt(share)]
        yield without_blocks(cutter.narrowed(counts), blocks)


def _pruned(network: Network, whole: Network, before: Latency, after: Latency) -> Pruned:
    blocks, left = (len(removable_blocks(each.architecture)) for each in (whole, network))
    return Pruned(network=network, before=before, after=after, blocks=blocks, blocks_gone=blocks - left)


def _share(epochs: int, step: int, steps: int) -> int:
    """Epochs after a step: the last gets three quarters of them or more, the others share the rest."""
    early = epochs // 4 // (steps - 1) if steps > 1 else 0
    return epochs - early * (steps - 1) if step == steps else early


def _words(report: EpochReport) -> str:
    miou = 100 * report.scores.miou
    return f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  mIoU {miou:.1f} %"
