"""How many channels of each group stay, and which blocks, so that a measured latency meets a budget.

What to give up is a knapsack: least damage for a latency. Latency is no sum over groups (a convolution costs by what it
reads times what it gives), it has steps, and fewer channels can take longer. So the knapsack is filled by moves whose
price is estimated with everything else as it stands: groups narrowed or blocks removed, cheapest damage per millisecond
first, until the latency is met; then groups widened and blocks put back where there is room. Going some way below the
latency and coming back up, a few times, finds exchanges that one way alone does not.

An estimate is not a measurement: the result is measured, the estimates are corrected by what came out, and the knapsack
is filled again, until the measured latency is inside the budget and uses nearly all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pruning.damage import Damage, kept_first
from pruning.depth import Shortened, removable_blocks, shorten
from pruning.importance import Scores
from pruning.surgery import Cutter, Mask
from space.architecture import Architecture
from space.channels import Widths
from space.errors import BudgetError
from space.graph import Graph

FLOOR = 8  # a group keeps at least 1/FLOOR of its channels unless the budget cannot be met otherwise
FULL_ENOUGH = 0.97  # of the budget
MOST_MEASUREMENTS = 12
CLOSE = 1.002  # estimates that no choice tells apart
MOST_STEPS = 30  # choices looked at, some of them measured before
DETOURS = (0.1, 0.05, 0.02)  # how far below the latency to go before coming back up
NO_DAMAGE = 1e-12
EXCHANGED = 3  # blocks that are tried in exchange for channels
GREED = 0.25  # of all moves, and of what is still to be saved, in one round: moves shift each other's estimates
MULTIPLES = ((1, 1), (4, 2), (16, 2))  # counts that are tried: (multiple, how many of them); hardware rewards some
SMALL = 8  # channels, up to which single ones are worth a try

Estimate = Callable[[Graph, Widths], float]
Measure = Callable[[Architecture], float]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Channels left in each group, and the blocks that are gone."""

    counts: Mapping[str, int]
    blocks: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others."""
        return tuple(self.counts.values()), self.blocks


@dataclass(frozen=True, kw_only=True, eq=False)
class Allocation:
    """Which channels stay, which blocks go, and what the network that is left measured."""

    keep: Mask
    blocks: frozenset[str]
    architecture: Architecture
    milliseconds: float
    damage: float
    measurements: int


def require_reachable(
    cutter: Cutter, *, estimate: Estimate, measure: Measure, budget_milliseconds: float, depth: bool = True
) -> None:
    """Measure the network cut as far as it goes, blocks included where `depth` may go, until a cut is inside.

    One channel each is not always the fastest: some runtimes take longer for it than for a whole vector of them.

    Raises: BudgetError with the lowest latency when none is inside the budget.
    """
    room = _Knapsack(cutter, Damage(groups={}, blocks={}), estimate)
    blocks = frozenset(removable_blocks(cutter.architecture) if depth else ())
    measured = []
    for choice in sorted((room.everywhere(count, blocks) for count in (1, 4, 16)), key=room.milliseconds):
        measured.append(measure(room.architecture(choice)))
        if measured[-1] <= budget_milliseconds:
            return
    raise _unreachable(budget_milliseconds, min(measured))


def allocate(
    cutter: Cutter,
    scores: Scores,
    damage: Damage,
    *,
    estimate: Estimate,
    measure: Measure,
    budget_milliseconds: float,
    full_enough: float = FULL_ENOUGH,
) -> Allocation:
    """Give up as little as brings the measured latency inside the budget.

    `estimate` gives the milliseconds of a graph at given widths, `measure` those of an architecture on the target;
    within a group, `scores` decide which channels go. Stops when the latency is inside the budget and uses
    `full_enough` of it, or after MOST_MEASUREMENTS.

    Raises: BudgetError with the lowest latency measured when none was inside.
    """
    room = _Knapsack(cutter, damage, estimate)
    choice = room.whole()
    measured = {choice.key: measure(cutter.architecture)}
    whole_fits = measured[choice.key] <= budget_milliseconds
    best = choice if whole_fits else None
    aim = budget_milliseconds * (1 + full_enough) / 2
    inside, outside = 0.0, math.inf  # estimates that were asked for
    for _ in range(MOST_STEPS):
        if whole_fits or (best is not None and measured[best.key] >= full_enough * budget_milliseconds):
            break
        if outside < CLOSE * inside:  # nothing lies in between
            break
        wanted = aim * room.milliseconds(choice) / measured[choice.key]
        if not inside < wanted < outside:
            wanted = math.sqrt(max(inside, wanted / 2) * min(outside, wanted * 2))
        choice = room.fill(choice, wanted)
        if choice.key not in measured:
            if len(measured) == MOST_MEASUREMENTS:
                break
            measured[choice.key] = measure(room.architecture(choice))
        if measured[choice.key] > budget_milliseconds:
            outside = min(outside, wanted)
            continue
        inside = max(inside, wanted)
        if best is None or room.damage(choice) < room.damage(best):
            best = choice
    if best is None:
        raise _unreachable(budget_milliseconds, min(measured.values()))
    return Allocation(
        keep=room.mask(best, scores),
        blocks=best.blocks,
        architecture=room.architecture(best),
        milliseconds=measured[best.key],
        damage=room.damage(best),
        measurements=len(measured),
    )


def _unreachable(budget_milliseconds: float, lowest: float) -> BudgetError:
    return BudgetError(
        f"expected a budget that pruning can reach, this one leaves it {budget_milliseconds:.4g} ms; cut as far as "
        f"it goes the network takes {lowest:.4g} ms; raise the budget, lower the input size or start from a smaller "
        "network"
    )


@dataclass(frozen=True, kw_only=True)
class _Move:
    """One group at another count (`count`), or one block gone or back (None), and what that does."""

    name: str
    count: int | None
    damage: float
    milliseconds: float

    def applied(self, choice: Choice) -> Choice:
        """The choice with this one change."""
        if self.count is None:
            return replace(choice, blocks=choice.blocks ^ {self.name})
        return replace(choice, counts={**choice.counts, self.name: self.count})

    @property
    def price_down(self) -> float:
        """Damage per millisecond saved."""
        return self.damage / -self.milliseconds

    @property
    def price_up(self) -> float:
        """Milliseconds per damage undone; what undoes none comes last, and is still better kept than given up."""
        return max(self.milliseconds, 0.0) / max(-self.damage, NO_DAMAGE)


class _Knapsack:
    """Choices with their estimated latency and damage, and moves between them."""

    def __init__(self, cutter: Cutter, damage: Damage, estimate: Estimate) -> None:
        self._cutter = cutter
        self._damage = damage
        self._estimate = estimate
        self._shortened: dict[frozenset[str], Shortened] = {}
        self._milliseconds: dict[tuple[object, ...], float] = {}
        self.full = cutter.counts(cutter.everything)
        self._floor = {name: -(-count // FLOOR) for name, count in self.full.items()}

    def whole(self) -> Choice:
        """Nothing given up."""
        return Choice(counts=self.full)

    def everywhere(self, count: int, blocks: frozenset[str]) -> Choice:
        """At most `count` channels in every group, without the blocks."""
        return Choice(counts={name: min(count, full) for name, full in self.full.items()}, blocks=blocks)

    def milliseconds(self, choice: Choice) -> float:
        """Estimated."""
        if choice.key not in self._milliseconds:
            shortened = self._without(choice.blocks)
            keep = self._cutter.map.keep_first(choice.counts)
            self._milliseconds[choice.key] = self._estimate(shortened.graph, shortened.widths(keep))
        return self._milliseconds[choice.key]

    def damage(self, choice: Choice) -> float:
        """Of all that is given up; what a removed block had inside it counts no more."""
        lost = sum(self._damage.blocks[name] for name in choice.blocks)
        return lost + sum(
            float(self._damage.groups[name][count])
            for name, count in choice.counts.items()
            if count < self.full[name] and not _inside(name, choice.blocks)
        )

    def architecture(self, choice: Choice) -> Architecture:
        """What is left."""
        if not choice.blocks:
            return self._cutter.narrowed(dict(choice.counts))
        return self._without(choice.blocks).narrowed(self._cutter.map.keep_first(choice.counts))

    def mask(self, choice: Choice, scores: Scores) -> Mask:
        """The channels that stay, the best of each group."""
        keep = self._cutter.everything.copy()
        for name, count in choice.counts.items():
            keep[kept_first(self._cutter, scores, name)[count:]] = False
        return keep

    def fill(self, start: Choice, milliseconds: float) -> Choice:
        """The least damage found whose estimate is at most `milliseconds`; the least estimate when there is none."""
        best = self._raised(self._lowered(start, milliseconds), milliseconds)
        for detour in DETOURS:
            best = self._better(best, self._lowered(best, milliseconds * (1 - detour)), milliseconds)
        dearest = sorted(best.blocks, key=lambda name: -self._damage.blocks[name])[:EXCHANGED]
        for block in dearest:  # it comes back, and channels make room for it
            back = replace(best, blocks=best.blocks - {block})
            best = self._better(best, self._lowered(back, milliseconds, blocks=False), milliseconds)
        return best

    def _better(self, best: Choice, other: Choice, milliseconds: float) -> Choice:
        """The other one, widened where there is room, if it fits and does less damage."""
        other = self._raised(other, milliseconds)
        over, over_before = (self.milliseconds(choice) > milliseconds for choice in (other, best))
        return other if (over, self.damage(other)) < (over_before, self.damage(best)) else best

    def _lowered(self, choice: Choice, milliseconds: float, *, blocks: bool = True) -> Choice:
        """Moves down, least damage per saved millisecond first, until the estimate is met or no move saves any."""
        for floor in (self._floor, dict.fromkeys(self.full, 1)):
            while self.milliseconds(choice) > milliseconds:
                wanted = max(milliseconds, _between(self.milliseconds(choice), milliseconds, GREED))
                before = choice
                moves = self._moves_down(choice, floor, blocks=blocks)
                for move in moves[: math.ceil(GREED * len(moves))]:
                    after = move.applied(choice)
                    if self.milliseconds(after) < self.milliseconds(choice):
                        choice = after
                    if self.milliseconds(choice) <= wanted:
                        break
                if choice is before:
                    break
        return choice

    def _raised(self, choice: Choice, milliseconds: float) -> Choice:
        """Moves up, most damage undone per millisecond first, as long as the estimate is met."""
        while True:
            before = choice
            for move in self._moves_up(choice):
                after = move.applied(choice)
                if self.milliseconds(after) <= milliseconds and self.damage(after) <= self.damage(choice):
                    choice = after
            if choice is before:
                return choice

    def _moves_down(self, choice: Choice, floor: Mapping[str, int], *, blocks: bool) -> list[_Move]:
        """The best narrower count of each group and, with `blocks`, each block that can go, cheapest first."""
        best: dict[str, _Move] = {}
        for name, count in self._changes(choice):
            if count is None and (name in choice.blocks or not blocks):
                continue
            if count is not None and not floor[name] <= count < choice.counts[name]:
                continue
            move = self._move(choice, name, count)
            if move.milliseconds < 0 and (name not in best or move.price_down < best[name].price_down):
                best[name] = move
        return sorted(best.values(), key=lambda move: move.price_down)

    def _moves_up(self, choice: Choice) -> list[_Move]:
        """The best wider count of each group and each block that can come back, cheapest first."""
        best: dict[str, _Move] = {}
        for name, count in self._changes(choice):
            if count is None and name not in choice.blocks:
                continue
            if count is not None and count <= choice.counts[name]:
                continue
            move = self._move(choice, name, count)
            gains = move.damage < 0 or (count is not None and move.damage == 0)
            if gains and (name not in best or move.price_up < best[name].price_up):
                best[name] = move
        return sorted(best.values(), key=lambda move: move.price_up)

    def _changes(self, choice: Choice) -> Iterator[tuple[str, int | None]]:
        """Other counts of groups, by name, and blocks."""
        for name, count in choice.counts.items():
            if not _inside(name, choice.blocks):
                for other in _counts_around(count, self.full[name]):
                    yield name, other
        for name in self._damage.blocks:
            yield name, None

    def _move(self, choice: Choice, name: str, count: int | None) -> _Move:
        after = _Move(name=name, count=count, damage=0.0, milliseconds=0.0).applied(choice)
        return _Move(
            name=name,
            count=count,
            damage=self.damage(after) - self.damage(choice),
            milliseconds=self.milliseconds(after) - self.milliseconds(choice),
        )

    def _without(self, blocks: frozenset[str]) -> Shortened:
        if blocks not in self._shortened:
            cutter = self._cutter
            self._shortened[blocks] = shorten(cutter.architecture, blocks, cutter.map, cutter.num_classes)
        return self._shortened[blocks]


def _between(high: float, low: float, share: float) -> float:
    return high - share * (high - low)


def _inside(group: str, blocks: frozenset[str]) -> bool:
    return any(group.startswith(f"{block}.") for block in blocks)


def _counts_around(count: int, full: int) -> list[int]:
    """Counts worth trying beside `count`, from 1 to `full`: the nearest multiples of what hardware rewards."""
    found = {full}
    for multiple, tries in MULTIPLES:
        if multiple == 1 and count > SMALL:
            continue
        below, above = (count - 1) // multiple, count // multiple + 1
        found.update(multiple * step for step in range(below - tries + 1, below + 1))
        found.update(multiple * step for step in range(above, above + tries))
    return sorted(other for other in found if 1 <= other <= full and other != count)
