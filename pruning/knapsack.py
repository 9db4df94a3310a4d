"""Chooses the channels and blocks to cut: the least damage for an estimated latency.

Latency is not a sum over groups (a convolution costs input times output channels), it has steps, and fewer channels can
take longer. The knapsack problem is therefore solved by local moves, whose effect is estimated with everything else
unchanged: groups are narrowed or blocks removed, least damage per saved millisecond first, until the latency is met;
then groups are widened and blocks restored while the latency stays met. Going somewhat below the latency and coming
back up, a few times, finds exchanges that neither direction finds alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pruning.damage import Damage, kept_first
from pruning.depth import Shortened, shorten
from pruning.importance import ChannelScores
from pruning.surgery import Cutter, Mask
from space.architecture import Architecture
from space.channels import Widths
from space.graph import Graph

FLOOR = 8  # a group keeps at least 1/FLOOR of its channels unless the budget cannot be met otherwise
DETOURS = (0.1, 0.05, 0.02)  # shares of the latency by which to go below it before coming back up
NO_DAMAGE = 1e-12
EXCHANGED = 3  # number of removed blocks that are tried in exchange for channels
GREED = 0.25  # share of the moves, and of the time still to save, in one round: moves change each other's estimates
MULTIPLES = ((1, 1), (4, 2), (16, 2))  # counts to try: (multiple, number of multiples); hardware favours some
SMALL = 8  # up to this number of channels, counts that are not multiples of 4 are tried

EstimateGraph = Callable[[Graph, Widths], float]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Channels left in each group, and the names of the removed blocks."""

    counts: Mapping[str, int]
    blocks: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[object, ...]:
        """A hashable value, equal for equal cuts of one network."""
        return tuple(self.counts.values()), self.blocks


@dataclass(frozen=True, kw_only=True)
class _Move:
    """A change of a cut: one group at another count, or one block removed or restored."""

    name: str
    """Name of the group or block."""
    count: int | None
    """New count of the group's channels; None for a block."""
    damage: float
    """Change of the damage."""
    milliseconds: float
    """Change of the estimated latency."""

    def applied(self, cut: Cut) -> Cut:
        """The cut after this change."""
        if self.count is None:
            return replace(cut, blocks=cut.blocks ^ {self.name})
        return replace(cut, counts={**cut.counts, self.name: self.count})

    @property
    def price_down(self) -> float:
        """Damage per millisecond saved."""
        return self.damage / -self.milliseconds

    @property
    def price_up(self) -> float:
        """Milliseconds per damage undone; moves that undo none come last, but are still worth making."""
        return max(self.milliseconds, 0.0) / max(-self.damage, NO_DAMAGE)


class Knapsack:
    """Cuts with their estimated latency and damage, and moves between them."""

    def __init__(self, cutter: Cutter, damage: Damage, estimate: EstimateGraph) -> None:
        self._cutter = cutter
        self._damage = damage
        self._estimate = estimate
        self._shortened: dict[frozenset[str], Shortened] = {}
        self._milliseconds: dict[tuple[object, ...], float] = {}
        self.full = cutter.counts(cutter.everything)
        self._granules = dict(zip(cutter.map.names, cutter.map.granules, strict=True))
        self._floor = {name: cutter.map.whole(name, -(-count // FLOOR)) for name, count in self.full.items()}
        self._curves: dict[str, list[float]] = {name: curve.tolist() for name, curve in damage.groups.items()}
        self._outside: dict[frozenset[str], list[str]] = {}  # by removed blocks, the groups outside them

    def whole(self) -> Cut:
        """The cut that cuts nothing."""
        return Cut(counts=self.full)

    def everywhere(self, count: int, blocks: frozenset[str]) -> Cut:
        """The cut with at most `count` channels per group, rounded up to whole granules, and without the blocks."""
        whole = {name: self._cutter.map.whole(name, count) for name in self.full}
        return Cut(counts={name: min(whole[name], full) for name, full in self.full.items()}, blocks=blocks)

    def milliseconds(self, cut: Cut) -> float:
        """Estimated latency of a cut."""
        if cut.key not in self._milliseconds:
            shortened = self._without(cut.blocks)
            keep = self._cutter.map.keep_first(cut.counts)
            self._milliseconds[cut.key] = self._estimate(shortened.graph, shortened.widths(keep))
        return self._milliseconds[cut.key]

    def damage(self, cut: Cut) -> float:
        """Total damage of a cut; groups inside removed blocks do not count."""
        lost = sum(self._damage.blocks[name] for name in cut.blocks)
        counts = [(name, cut.counts[name]) for name in self._groups_outside(cut.blocks)]
        return lost + sum([self._curves[name][count] for name, count in counts if count < self.full[name]])

    def architecture(self, cut: Cut) -> Architecture:
        """The architecture after a cut."""
        if not cut.blocks:
            return self._cutter.narrowed(dict(cut.counts))
        return self._without(cut.blocks).narrowed(self._cutter.map.keep_first(cut.counts))

    def mask(self, cut: Cut, scores: ChannelScores) -> Mask:
        """The channels to keep: the best of each group."""
        keep = self._cutter.everything.copy()
        for name, count in cut.counts.items():
            keep[kept_first(self._cutter, scores, name)[count:]] = False
        return keep

    def fill(self, start: Cut, milliseconds: float) -> Cut:
        """The cut of least damage found with an estimate of at most `milliseconds`; else that of the least estimate."""
        best = self._raised(self._lowered(start, milliseconds), milliseconds)
        for detour in DETOURS:
            best = self._better(best, self._lowered(best, milliseconds * (1 - detour)), milliseconds)
        dearest = sorted(best.blocks, key=lambda name: -self._damage.blocks[name])[:EXCHANGED]
        for block in dearest:  # restore the block, and cut channels instead
            back = replace(best, blocks=best.blocks - {block})
            best = self._better(best, self._lowered(back, milliseconds, blocks=False), milliseconds)
        return best

    def _better(self, best: Cut, other: Cut, milliseconds: float) -> Cut:
        """`other`, widened as far as the latency allows, if it is better; else `best`. Fitting counts before damage."""
        other = self._raised(other, milliseconds)
        over, over_before = (self.milliseconds(cut) > milliseconds for cut in (other, best))
        return other if (over, self.damage(other)) < (over_before, self.damage(best)) else best

    def _lowered(self, cut: Cut, milliseconds: float, *, blocks: bool = True) -> Cut:
        """Move down, least damage per saved millisecond first, until the estimate is met or no move saves time."""
        for floor in (self._floor, dict.fromkeys(self.full, 1)):
            while self.milliseconds(cut) > milliseconds:
                wanted = max(milliseconds, _between(self.milliseconds(cut), milliseconds, GREED))
                before = cut
                moves = self._moves_down(cut, floor, blocks=blocks)
                for move in moves[: math.ceil(GREED * len(moves))]:
                    after = move.applied(cut)
                    if self.milliseconds(after) < self.milliseconds(cut):
                        cut = after
                    if self.milliseconds(cut) <= wanted:
                        break
                if cut is before:
                    break
        return cut

    def _raised(self, cut: Cut, milliseconds: float) -> Cut:
        """Move up, most damage undone per millisecond first, as long as the estimate stays met."""
        while True:
            before = cut
            for move in self._moves_up(cut):
                after = move.applied(cut)
                if self.milliseconds(after) <= milliseconds and self.damage(after) <= self.damage(cut):
                    cut = after
            if cut is before:
                return cut

    def _moves_down(self, cut: Cut, floor: Mapping[str, int], *, blocks: bool) -> list[_Move]:
        """The best narrower count of each group and, with `blocks`, each removable block, cheapest first."""
        best: dict[str, _Move] = {}
        damage = self.damage(cut)
        for name, count in self._changes(cut):
            if count is None and (name in cut.blocks or not blocks):
                continue
            if count is not None and not floor[name] <= count < cut.counts[name]:
                continue
            move = self._move(cut, damage, name, count)
            if move.milliseconds < 0 and (name not in best or move.price_down < best[name].price_down):
                best[name] = move
        return sorted(best.values(), key=lambda move: move.price_down)

    def _moves_up(self, cut: Cut) -> list[_Move]:
        """The best wider count of each group and each removed block, cheapest first."""
        best: dict[str, _Move] = {}
        damage = self.damage(cut)
        for name, count in self._changes(cut):
            if count is None and name not in cut.blocks:
                continue
            if count is not None and count <= cut.counts[name]:
                continue
            move = self._move(cut, damage, name, count)
            gains = move.damage < 0 or (count is not None and move.damage == 0)
            if gains and (name not in best or move.price_up < best[name].price_up):
                best[name] = move
        return sorted(best.values(), key=lambda move: move.price_up)

    def _changes(self, cut: Cut) -> Iterator[tuple[str, int | None]]:
        """Possible changes: groups with another count, and blocks with None."""
        for name in self._groups_outside(cut.blocks):
            for other in _counts_around(cut.counts[name], self.full[name], self._granules[name]):
                yield name, other
        for name in self._damage.blocks:
            yield name, None

    def _move(self, cut: Cut, damage: float, name: str, count: int | None) -> _Move:
        """This change of a cut, whose present damage is `damage`."""
        after = _Move(name=name, count=count, damage=0.0, milliseconds=0.0).applied(cut)
        return _Move(
            name=name,
            count=count,
            damage=self.damage(after) - damage,
            milliseconds=self.milliseconds(after) - self.milliseconds(cut),
        )

    def _groups_outside(self, blocks: frozenset[str]) -> list[str]:
        """Groups that are not inside these blocks."""
        if blocks not in self._outside:
            self._outside[blocks] = [name for name in self.full if not _inside(name, blocks)]
        return self._outside[blocks]

    def _without(self, blocks: frozenset[str]) -> Shortened:
        if blocks not in self._shortened:
            cutter = self._cutter
            self._shortened[blocks] = shorten(cutter.architecture, blocks, cutter.map, cutter.num_classes)
        return self._shortened[blocks]


def _between(high: float, low: float, share: float) -> float:
    return high - share * (high - low)


def _inside(group: str, blocks: frozenset[str]) -> bool:
    return any(group.startswith(f"{block}.") for block in blocks)


@functools.lru_cache(maxsize=4096)
def _counts_around(count: int, full: int, granule: int) -> tuple[int, ...]:
    """Counts to try instead of `count`, from 1 to `full`: the nearest multiples in `MULTIPLES`, and `full`; all are
    multiples of `granule`.
    """
    found = {full}
    for rewarded, tries in MULTIPLES:
        multiple = math.lcm(rewarded, granule)
        if multiple == 1 and count > SMALL:
            continue
        below, above = (count - 1) // multiple, count // multiple + 1
        found.update(multiple * step for step in range(below - tries + 1, below + 1))
        found.update(multiple * step for step in range(above, above + tries))
    return tuple(sorted(other for other in found if 1 <= other <= full and other != count))
