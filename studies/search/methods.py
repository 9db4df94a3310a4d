"""Ways to search a table. Each asks an account for one training after the other, and knows only what it was given."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import optuna
from numpy.typing import NDArray
from table import Table, TableQuestions

from nas import samplers
from nas.search.propose.sampler import Outcome, Sampler
from nas.surrogate.candidates import Candidates, step_of
from nas.surrogate.encoding import encode

STARTUP = 8  # drawn at random before what a sampler proposes: four random draws and four published networks in a search
POOL = 1500  # rows that a model of ours compares
TREES = 50
SMALLEST_SPLIT = 3  # networks in a leaf that is split
ETA = 4  # of asynchronous successive halving: one of so many is promoted

Vector = NDArray[np.float64]
Predict = Callable[[Vector, Vector, Vector, np.random.Generator], tuple[Vector, Vector]]
"""Mean and deviation of new ones, from vectors that were seen, their scores and the new vectors."""


@dataclass
class Account:
    """What a search paid for, and what it found: the only way to the scores."""

    table: Table
    trainings: float
    """How many whole trainings can be paid for, cheap ones at their cost."""
    continued: bool = False
    """Whether a training goes on from the cheaper ones of its row, so that what these cost is not paid again."""
    cost: float = 0.0
    history: list[tuple[int, float, float]] = field(default_factory=list)
    """Whole trainings, cost and best after each whole training that ended with a score."""
    whole: dict[int, float] = field(default_factory=dict)
    """Scores of whole trainings by row; NaN where one failed."""
    cheap: list[dict[int, float]] = field(init=False)
    """Scores of cheap trainings by row, for each rung of the table."""
    _paid: dict[int, float] = field(default_factory=dict)
    """What the dearest training of a row costs."""

    def __post_init__(self) -> None:
        self.cheap = [{} for _ in self.table.rungs]

    @property
    def open(self) -> bool:
        """Whether there is anything left to pay with and to train."""
        return self.cost + 1 <= self.trainings + 1e-9 and len(self.whole) < len(self.table)

    def train(self, row: int, fidelity: float = 1.0) -> tuple[float, float]:
        """Train a row to the next rung that has a score of it, from `fidelity` on, or whole: the score, and what share
        of a whole training that rung is.
        """
        assert row not in self.whole, "it was trained before"
        paid = self._paid.get(row, 0.0)
        for rung, found in zip(self.table.rungs, self.cheap, strict=True):
            if rung.cost > paid and step_of(rung.cost) >= step_of(fidelity) and not math.isnan(rung.scores[row]):
                self._pay(row, rung.cost)
                found[row] = float(rung.scores[row])
                return found[row], rung.cost
        self._pay(row, 1.0)
        self.whole[row] = float(self.table.scores[row])
        if not math.isnan(self.whole[row]):
            best = max(self.whole[row], self.history[-1][2] if self.history else -math.inf)
            self.history.append((len(self.whole), round(self.cost, 6), best))
        return self.whole[row], 1.0

    def _pay(self, row: int, cost: float) -> None:
        self.cost += cost - self._paid.get(row, 0.0) * self.continued
        self._paid[row] = cost


def random_search(account: Account, seed: int) -> None:
    """Every row equally likely."""
    rows = iter(np.random.default_rng(seed).permutation(len(account.table)).tolist())
    while account.open:
        account.train(next(rows))


def guided(
    account: Account, seed: int, make: Callable[[Candidates], optuna.samplers.BaseSampler], *, cheaply: bool
) -> None:
    """A sampler behind the contract of a search: random draws, then what it proposes. `cheaply`: whether it is offered
    cheap trainings; then a row has one first, and one that is proposed again goes on to the next rung.
    """
    table = account.table
    questions = TableQuestions(table if cheaply else replace(table, rungs=()))
    sampler = Sampler(questions, make)
    drawn = random.Random(seed).sample(range(len(table)), min(STARTUP, len(table)))
    while account.open:
        if drawn:
            row = drawn.pop()
            fidelity = sampler.begins_at
            number = sampler.enter(table.points[row], fidelity)
        else:
            proposal = sampler.propose()
            number, row, fidelity = proposal.number, proposal.built, proposal.fidelity
            if dict(proposal.genotype) != dict(table.points[row]):  # it answered what no row is
                sampler.withdraw(number)
                number = sampler.enter(table.points[row], fidelity)
        score, fidelity = account.train(row, fidelity)
        questions.taken[row] = row in account.whole
        sampler.tell(number, Outcome(miou=None if math.isnan(score) else score, fidelity=fidelity))


def asha(account: Account, seed: int) -> None:
    """Asynchronous successive halving over random draws (Li et al., 2020) with the cheap trainings as its rungs.

    It promotes the best row of those that are in the best quarter of a rung, the highest rung first; where nothing is,
    it draws another one.
    """
    rows = iter(np.random.default_rng(seed).permutation(len(account.table)).tolist())
    while account.open:
        row = _promoted(account, ETA)
        if row is None:
            row = next(rows, None)
        if row is None:  # all are drawn: what is left, the best first
            row = _promoted(account, 1)
        assert row is not None, "there is a row to train as long as the account is open"
        account.train(row, 0.0)


def _promoted(account: Account, one_of: int) -> int | None:
    """The best row that has not gone on of those that are in the best so-many-th of a rung."""
    gone_on = set(account.whole)
    for found in reversed(account.cheap):
        ranked = sorted(found, key=lambda row: -found[row])
        for row in ranked[: len(ranked) // one_of]:
            if row not in gone_on:
                return row
        gone_on |= set(found)
    return None


def model_based(account: Account, seed: int, predict: Predict) -> None:
    """The most improvement expected by a model of whole trainings."""
    table, rng = account.table, np.random.default_rng(seed)
    vectors = encode(table.points)
    rows = rng.permutation(len(table)).tolist()
    while account.open:
        scored = [row for row, score in account.whole.items() if not math.isnan(score)]
        if len(account.whole) < STARTUP or len(scored) < 2:
            account.train(next(row for row in rows if row not in account.whole))
            continue
        free = np.setdiff1d(np.arange(len(table)), list(account.whole))
        if len(free) > POOL:
            free = rng.choice(free, POOL, replace=False)
        scores = np.array([account.whole[row] for row in scored])
        scores = (scores - scores.mean()) / (scores.std() or 1.0)
        mean, deviation = predict(vectors[scored], scores, vectors[free], rng)
        account.train(int(free[np.argmax(_improvement(mean, deviation, scores.max()))]))


def _improvement(mean: Vector, deviation: Vector, best: float) -> Vector:
    z = (mean - best) / deviation
    below = 0.5 * np.array([math.erfc(-each / math.sqrt(2)) for each in z])
    improvement: Vector = deviation * (np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) + z * below)
    return improvement


def _gp(seen: Vector, scores: Vector, new: Vector, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """A Gaussian process of one length (Matérn 5/2, the most likely one of a grid)."""
    fits = []
    for length in math.sqrt(seen.shape[1]) * np.array([0.1, 0.2, 0.4, 0.8, 1.6]):
        for noise in (1e-3, 1e-2, 1e-1):
            root = np.linalg.cholesky(_matern(seen, seen, length) + noise * np.eye(len(seen)))
            weights = np.linalg.solve(root, scores)
            variance = max(float(weights @ weights) / len(scores), 1e-6)
            likelihood = -0.5 * len(scores) * math.log(variance) - float(np.log(np.diag(root)).sum())
            fits.append((likelihood, length, root, weights, variance))
    _, length, root, weights, variance = max(fits, key=lambda fit: fit[0])
    explained = np.linalg.solve(root, _matern(seen, new, length))
    return explained.T @ weights, np.sqrt(np.maximum(1 - (explained**2).sum(axis=0), 1e-9) * variance)


def _matern(left: Vector, right: Vector, length: float) -> Vector:
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None] - 2 * left @ right.T
    distance = np.sqrt(5 * np.maximum(squares, 0)) / length
    alike: Vector = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return alike


def _forest(seen: Vector, scores: Vector, new: Vector, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """Regression trees of random samples with random splits, and how far they are apart (Hutter, Hoos and
    Leyton-Brown, "Sequential model-based optimization for general algorithm configuration", 2011).
    """
    drawn = (rng.integers(len(seen), size=len(seen)) for _ in range(TREES))
    found = np.stack([_tree(seen[rows], scores[rows], new, rng) for rows in drawn])
    return found.mean(axis=0), np.maximum(found.std(axis=0), 1e-3)


def _tree(seen: Vector, scores: Vector, new: Vector, rng: np.random.Generator) -> Vector:
    """What one predicts; of a random split of each column the one that leaves least variance."""
    low, high = seen.min(axis=0), seen.max(axis=0)
    if len(seen) < SMALLEST_SPLIT or not (low < high).any() or np.ptp(scores) == 0:
        return np.full(len(new), scores.mean())
    at = rng.uniform(low, high)
    right = seen > at
    counts = np.stack([(~right).sum(axis=0), right.sum(axis=0)])
    sums = np.stack([scores @ ~right, scores @ right])
    explained = np.where((counts > 0).all(axis=0), (sums**2 / np.maximum(counts, 1)).sum(axis=0), -math.inf)
    column = int(np.argmax(explained))
    found = np.empty(len(new))
    for inside, outside in (
        (right[:, column], new[:, column] > at[column]),
        (~right[:, column], new[:, column] <= at[column]),
    ):
        found[outside] = _tree(seen[inside], scores[inside], new[outside], rng)
    return found


def _product(account: Account, seed: int, *, kind: str, cheaply: bool) -> None:
    """A sampler of the product, made as a search makes it."""
    make = functools.partial(samplers.make, kind, seed=seed, startup=STARTUP)
    guided(account, seed, lambda candidates: make(candidates=candidates), cheaply=cheaply)


def _optuna(account: Account, seed: int, make: Callable[..., optuna.samplers.BaseSampler]) -> None:
    """A sampler of Optuna's, of whole trainings."""
    guided(account, seed, lambda candidates: make(seed=seed), cheaply=False)


METHODS: dict[str, Callable[[Account, int], None]] = {
    "ours": lambda account, seed: _product(account, seed, kind="surrogate", cheaply=bool(account.table.rungs)),
    "ours-whole": functools.partial(_product, kind="surrogate", cheaply=False),
    "random": random_search,
    "tpe": functools.partial(_product, kind="tpe", cheaply=False),
    "gp": functools.partial(model_based, predict=_gp),
    "forest": functools.partial(model_based, predict=_forest),
    "optuna-gp": functools.partial(
        _optuna, make=functools.partial(optuna.samplers.GPSampler, n_startup_trials=STARTUP)
    ),
    "nsga2": functools.partial(_optuna, make=functools.partial(optuna.samplers.NSGAIISampler, population_size=20)),
    "asha": asha,
}
"""By name; `ours-whole` is ours without cheap trainings, and `optuna-gp` needs SciPy."""
