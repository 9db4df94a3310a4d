"""Pruning a trained network into a measured budget: measure, weigh, cut, recover, and repeat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from nas.errors import UnmeasuredError
from nas.latency.budget import Budget, unsettled
from nas.latency.machine import lane
from nas.latency.record import Latency
from nas.prune.judge import TAUGHT, Judge
from nas.prune.plan import PruningPlan
from nas.prune.recovery import Recover, recover
from nas.prune.tuning import FineTuning
from nas.prune.weighing import Weigh, Weighed, weighed
from nas.terminal import ProgressLine
from pruning import importances
from pruning.allocation import FULL_ENOUGH, LOWER, Allocation, allocate, require_reachable
from pruning.check import UntraceableError, differing_groups
from pruning.depth import removable_blocks, remove_blocks
from pruning.surgery import Cutter
from space.architecture import Architecture
from space.errors import BudgetError, UserError
from space.network import Network

AIM = 0.985  # share of the budget to aim at: repeated measurements differ by one to two per cent
ROUGHLY_FULL = 0.9  # share of its aim that an intermediate cut has to fill
CONFIRMATIONS = 3  # attempts to confirm a last cut, each lower than the one before
TRIMS = 2  # further cuts, at most, of a finished network that is over the budget


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """A pruned network, the latencies before and after, and how many of the removable blocks were removed."""

    network: Network
    before: Latency
    after: Latency
    blocks: int
    blocks_gone: int


def _silence(words: str) -> None:
    """Ignore a message: the default where nobody listens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruner:
    """Prunes networks into one budget.

    Raises: UserError when the plan's importance needs data and there is no fine-tuning.
    """

    judge: Judge
    budget: Budget
    plan: PruningPlan
    tuning: FineTuning | None = None
    """Data and recipe; without them nothing is trained, channels are scored by weights, and no block is removed."""
    weigh: Weigh = weighed
    """Scores channels and the damage of cuts, on this or another machine."""
    recover: Recover = recover
    """Restores the accuracy of a cut network, on this or another machine."""
    said: Callable[[str], None] = _silence
    """Receives a line for each cut that is tried or made, and for each epoch."""
    progress: ProgressLine = field(default_factory=partial(ProgressLine, silent=True))
    """Shows the progress of long steps."""

    def __post_init__(self) -> None:
        chosen = self.plan.importance
        if self.tuning is None and chosen is not None and importances.kind(chosen).needs_data:
            raise UserError(
                f"importance: {chosen} expected data to compute gradients on, got none; give data, or choose "
                f"{' or '.join(importances.without_data())}"
            )

    def prune(self, network: Network) -> Pruned:
        """The most accurate network inside the budget that can be cut out of `network`.

        A cut that measured inside the budget may owe that to chance. The last cut is therefore measured once more
        before its training, and cut lower if it is over the budget then or cannot be timed again.

        Raises: BudgetError with the lowest latency reached, before anything is trained, when no cut is enough;
        UnmeasuredError when none can be timed.
        """
        before = self.judge.latency(network.architecture)
        self.said(f"whole   {before}")
        if self.budget.admits(before):
            self.said(f"nothing is cut: the network is within {self.budget} already")
            return _pruned(network, network, before, before)
        aim = AIM * self.budget.milliseconds
        self._look(network, aim)
        teacher = network = self._placed(network)
        start = before.milliseconds(self.budget.statistic)
        for step in range(1, self.plan.steps + 1):
            wanted = start * math.pow(aim / start, step / self.plan.steps)
            network = self._cut(network, wanted, last=step == self.plan.steps)
            after = self.judge.latency(network.architecture)
            self._recover(network, teacher, self.plan.epochs_after(step))
        return _pruned(network.cpu(), teacher, before, after)

    def finish(self, pruned: Pruned, whole: Network, certify: Callable[[Network], Latency]) -> Pruned:
        """Finish a pruned network: `certify` writes a network and measures it. One that is then over the budget is cut
        lower, trained for a share of the plan's epochs with the `whole` network as teacher, and certified again.
        Returns the last certified network, which may still be over the budget.

        Raises: BudgetError with the lowest latency when no cut is enough; UnmeasuredError when none can be timed.
        """
        latency = certify(pruned.network)
        for _ in range(TRIMS):
            if self._keeps(latency):
                break
            over = f"{100 * (self._highest(latency) / self.budget.milliseconds - 1):.1f} % over the budget"
            words = f"may be {over}" if self.budget.admits(latency) else over
            self.said(f"over    {latency}: the finished network is {words}; it is cut further")
            self.judge.correct(pruned.network.architecture, latency)
            aim = self._lower(pruned.after.milliseconds(self.budget.statistic), latency)
            network = self._cut(self._placed(pruned.network), aim, last=True)
            after = self.judge.latency(network.architecture)
            self._recover(network, self._placed(whole), self.plan.epochs_of_trim)
            pruned = _pruned(network.cpu(), whole, pruned.before, after)
            latency = certify(pruned.network)
        return pruned

    def _look(self, network: Network, milliseconds: float) -> None:
        """Before any training, check the network's groups of channels, check that a cut can be inside the budget, and
        measure some cuts to improve the estimates.

        Raises: BudgetError with the lowest latency reached when no cut is inside.
        """
        cutter = Cutter(network.architecture, network.num_classes)
        self._compare_groups(cutter, network)
        self.judge.learn(network.architecture, self.budget)
        depth = self.plan.depth and self.tuning is not None  # only data can tell which blocks are dispensable
        tried: list[Latency | UnmeasuredError] = []

        def measure(architecture: Architecture) -> float:
            tried.append(self._tried(architecture))
            return self.judge.learn(architecture, self.budget) if isinstance(tried[-1], Latency) else math.inf

        try:
            require_reachable(
                cutter,
                estimate=self.judge.estimate,
                measure=measure,
                budget_milliseconds=milliseconds,
                depth=depth,
            )
        except BudgetError as error:
            raise _doubted(error, tried) from None
        self.said(f"learn   from the latencies of {TAUGHT} cuts of all sizes")
        self.judge.learn_from_cuts(cutter, self.budget, depth=depth)

    def _compare_groups(self, cutter: Cutter, network: Network) -> None:
        """Compare our groups of channels with those of torch-pruning, if that can trace the network.

        Raises: UserError when they differ.
        """
        try:
            with lane.shared():
                differing = differing_groups(cutter, network)
        except UntraceableError as error:
            self.said(f"check   torch-pruning cannot trace this network ({error}); groups are not compared with it")
            return
        if differing:
            raise UserError(
                f"expected the groups of channels that torch-pruning finds, got different ones in "
                f"{', '.join(differing)}; please report this with the architecture's YAML"
            )

    def _cut(self, network: Network, milliseconds: float, *, last: bool) -> Network:
        """`network` cut to `milliseconds`; the `last` cut is confirmed."""
        scales = self.weigh(network, self.plan, self.tuning, self.said, self.progress)
        allocation = self._allocated(scales, milliseconds, last=last)
        for _ in range(CONFIRMATIONS if last else 0):
            try:
                latency = self.judge.latency(allocation.architecture, anew=True)
            except UnmeasuredError as error:
                self.said(f"again   this cut cannot be timed: {error}")
                lower = LOWER * allocation.milliseconds
            else:
                self.said(f"again   {latency}")
                if self._keeps(latency):
                    break
                lower = self._lower(allocation.milliseconds, latency)
            try:
                allocation = self._allocated(scales, lower, last=last)
            except (BudgetError, UnmeasuredError):  # no lower cut exists; this one may still be inside once finished
                break
        cut = remove_blocks(scales.cutter.cut(network, allocation.keep), allocation.blocks)
        assert cut.architecture == allocation.architecture, "the cut network is the one that was measured"
        return cut

    def _allocated(self, scales: Weighed, milliseconds: float, *, last: bool) -> Allocation:
        """The channels and blocks to keep for `milliseconds`; an intermediate cut need not use them fully."""
        taught: list[Architecture] = []
        tried: list[Latency | UnmeasuredError] = []

        def measure(architecture: Architecture) -> float:
            found = self._tried(architecture)
            if architecture != scales.cutter.architecture:  # the uncut network itself does not count
                tried.append(found)
            if isinstance(found, UnmeasuredError):
                return math.inf
            taught.append(architecture)
            return found.milliseconds(self.budget.statistic)

        try:
            allocation = allocate(
                scales.cutter,
                scales.scores,
                scales.damage,
                estimate=self.judge.estimate,
                measure=measure,
                budget_milliseconds=milliseconds,
                full_enough=FULL_ENOUGH / AIM if last else ROUGHLY_FULL,
            )
        except BudgetError as error:
            raise _doubted(error, tried) from None
        for architecture in taught:  # not earlier, since the allocation corrects the estimates that it began with
            self.judge.learn(architecture, self.budget)
        self.said(f"cut     {self.judge.latency(allocation.architecture)}")
        return allocation

    def _tried(self, architecture: Architecture) -> Latency | UnmeasuredError:
        """The latency of a cut, or why the target cannot time it."""
        try:
            latency = self.judge.latency(architecture)
        except UnmeasuredError as error:
            self.said(f"tried   a cut that cannot be timed: {error}")
            return error
        self.said(f"tried   {latency}")
        return latency

    def _lower(self, before: float, latency: Latency) -> float:
        """The milliseconds to aim at next, after a cut that measured `before` at first and now `latency`, over the
        budget.
        """
        over = self._highest(latency) / self.budget.milliseconds
        assert over > 1, "a cut inside the budget is not cut further"
        return AIM * min(self.budget.milliseconds, before / over)

    def _keeps(self, latency: Latency) -> bool:
        """Whether a cut is good enough: certainly inside the budget or, on a disturbed machine, measured inside it."""
        return self.budget.verdict(latency) == "PASS" or (bool(latency.flagged) and self.budget.admits(latency))

    def _highest(self, latency: Latency) -> float:
        """The upper end of a latency's interval; for one from a disturbed machine, the measured value itself."""
        if latency.flagged:
            return latency.milliseconds(self.budget.statistic)
        return latency.interval(self.budget.statistic)[1]

    def _recover(self, network: Network, teacher: Network, epochs: int) -> None:
        if self.tuning is not None:
            self.recover(network, teacher, epochs, self.tuning, self.said, self.progress)

    def _placed(self, network: Network) -> Network:
        """The network on the device where it is weighed and trained."""
        return network if self.tuning is None else network.to(self.tuning.device)


def _doubted(error: BudgetError, tried: Sequence[Latency | UnmeasuredError]) -> UserError:
    """The error for a budget that no cut met, with doubts: cuts that cannot be timed, or a machine that was busy."""
    latencies = [each for each in tried if isinstance(each, Latency)]
    refusals = [each for each in tried if isinstance(each, UnmeasuredError)]
    if refusals and not latencies:
        return refusals[0]
    refused = f"{len(refusals)} of {len(tried)} cuts cannot be timed: {refusals[0]}" if refusals else ""
    doubts = [*filter(None, [refused, next(filter(None, map(unsettled, latencies)), "")])]
    return BudgetError(f"{error}; but {'; '.join(doubts)}") if doubts else error


def _pruned(network: Network, whole: Network, before: Latency, after: Latency) -> Pruned:
    blocks, left = (len(removable_blocks(each.architecture)) for each in (whole, network))
    return Pruned(network=network, before=before, after=after, blocks=blocks, blocks_gone=blocks - left)
