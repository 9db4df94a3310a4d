"""Search a table of trained networks with several methods, and say what each pays for how good a network.

    python studies/search/replay.py --table F.csv --objective miou --bound multiply_adds_g=1.51 --cheap miou_cheap:0.06

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small matrices: threads only wait for each other

import numpy as np
from methods import METHODS, Account
from numpy.typing import NDArray
from table import Table, load

from nas.report.chance import expected_best
from space import UserError
from space.errors import nearest

STEP = 0.25  # of the cost at which curves are compared, in whole trainings
TARGETS = (100, 400)  # random trainings whose mean best is to be reached
FIRST = 3  # cost that is drawn
SHOWN = (5, 8, 10, 12, 16, 20, 24, 32, 48, 64, 100, 200, 400)
INTERVAL = 1.96  # standard errors: 95 %


def main() -> int:
    """Replay, print, write and draw."""
    arguments = _parser().parse_args()
    try:
        return _replay(arguments)
    except UserError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2


def _replay(asked: argparse.Namespace) -> int:
    names = asked.methods.split(",")
    for name in names:
        if name not in METHODS:
            raise UserError(f"--methods: there is no '{name}'; {nearest(name, METHODS)}")
    if asked.seeds < 1 or asked.trainings < 1:
        raise UserError("expected at least one of --seeds and of --trainings")
    table = load(
        asked.table,
        objective=asked.objective,
        minimize=asked.minimize,
        bounds=asked.bound,
        cheap=asked.cheap,
        features=asked.features,
        facts=asked.facts,
    )
    best = table.sign * float(np.nanmax(table.scores))
    print(f"{len(table)} networks, best {best:.4g}; features: {', '.join(table.features)}")
    for note in table.notes:
        print(f"note: {note}")
    jobs = [(table, name, seed, asked.trainings) for name in names for seed in range(asked.seeds)]
    with ProcessPoolExecutor(asked.jobs) as pool:
        histories = list(pool.map(_run, jobs, chunksize=1))
    found = {name: histories[place * asked.seeds : (place + 1) * asked.seeds] for place, name in enumerate(names)}
    costs = np.arange(1, asked.trainings + STEP / 2, STEP)
    curves = {name: np.array([_curve(each, costs) for each in of]) for name, of in found.items()}
    _print(table, costs, curves)
    if asked.out:
        _write(asked.out, table, found)
    if asked.picture:
        _draw(asked.picture, table, costs, curves, asked.objective)
    return 0


def _run(job: tuple[Table, str, int, float]) -> list[tuple[int, float, float]]:
    table, name, seed, trainings = job
    account = Account(table=table, trainings=trainings)
    METHODS[name](account, seed)
    return account.history


def _curve(history: list[tuple[int, float, float]], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best score at each cost; NaN before the first."""
    paid = np.array([cost for _, cost, _ in history])
    bests = np.array([math.nan, *(best for _, _, best in history)])
    return bests[np.searchsorted(paid, costs + 1e-6, side="right")]


def random_best(table: Table, trainings: int) -> float:
    """What the best of so many random rows scores on average; a row that failed counts as the worst."""
    return expected_best(np.where(np.isnan(table.scores), np.nanmin(table.scores), table.scores).tolist(), trainings)


def _mean(curves: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over seeds and half of its 95 % interval; NaN where a seed has no score yet."""
    spread = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(curves.shape[1])
    return curves.mean(axis=0), INTERVAL * spread / math.sqrt(len(curves))


def _print(table: Table, costs: NDArray[np.float64], curves: dict[str, NDArray[np.float64]]) -> None:
    targets = [random_best(table, trainings) for trainings in TARGETS]
    shown = [place for cost in SHOWN for place in np.flatnonzero(np.isclose(costs, cost))]
    for trainings, target in zip(TARGETS, targets, strict=True):
        print(f"random search's mean best after {trainings}: {table.sign * target:.4f}")
    head = "".join(f"{costs[place]:>15g}" for place in shown)
    print(f"\n{'mean best at a cost of':<24}{head}{'to random 100':>16}{'to random 400':>16}")
    for name, curve in curves.items():
        mean, half = _mean(curve)
        values = "".join(f"{table.sign * mean[place]:>9.3f} ±{half[place]:<4.2f}" for place in shown)
        reached = [np.flatnonzero(mean >= target) for target in targets]
        needed = "".join(f"{costs[each[0]]:>16g}" if len(each) else f"{f'over {costs[-1]:g}':>16}" for each in reached)
        print(f"{name:<24}{values}{needed}")


def _write(file: Path, table: Table, found: dict[str, list[list[tuple[int, float, float]]]]) -> None:
    """Every time that a search found a better one, and its end."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("method", "seed", "trainings", "cost", "best"))
        for name, histories in found.items():
            for seed, history in enumerate(histories):
                before = [None, *(best for _, _, best in history)]
                for place, (trainings, cost, best) in enumerate(history):
                    if best != before[place] or place == len(history) - 1:
                        writer.writerow((name, seed, trainings, f"{cost:g}", f"{table.sign * best:g}"))


def _draw(
    file: Path, table: Table, costs: NDArray[np.float64], curves: dict[str, NDArray[np.float64]], objective: str
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.4), layout="constrained")
    for name, curve in curves.items():
        mean, half = _mean(curve)
        line = axes.plot(costs, table.sign * mean, label=name, linewidth=2 if name == "ours" else 1.2)[0]
        low, high = table.sign * (mean - half), table.sign * (mean + half)
        axes.fill_between(costs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for trainings in TARGETS:
        target = table.sign * random_best(table, trainings)
        axes.axhline(target, color="grey", linestyle=":", linewidth=1)
        place = (max(costs[0], FIRST) * 1.02, target)
        axes.annotate(f"random, {trainings}", place, ha="left", va="bottom", fontsize=8, color="grey")
    means = np.concatenate([_mean(curve)[0] for curve in curves.values()])
    ends = np.nanpercentile(means, [15, 100])
    room = 0.08 * (ends[1] - ends[0])
    limits = table.sign * np.array([ends[0], ends[1] + room])
    axes.set_ylim(min(limits), max(limits))
    axes.set_xscale("log")
    axes.set_xlim(max(costs[0], FIRST), costs[-1])
    ticks = [cost for cost in (FIRST, *SHOWN) if cost <= costs[-1]]
    axes.set_xticks(ticks, [f"{cost:g}" for cost in ticks])
    axes.minorticks_off()
    axes.set_xlabel("cost in whole trainings")
    axes.set_ylabel(f"best {objective}, mean of {len(next(iter(curves.values())))} seeds and its 95 % interval")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(file)
    pyplot.close(figure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="a CSV with a header, one trained network a row")
    parser.add_argument("--objective", required=True, help="column of the score of a whole training")
    parser.add_argument(
        "--minimize", action="store_true", help="the lower the objective the better (the cheap one too)"
    )
    parser.add_argument("--bound", action="append", default=[], help="column=largest value; may be given several times")
    parser.add_argument("--cheap", default="", help="column:cost of a cheap training, in whole trainings")
    parser.add_argument(
        "--features", default="", help="columns by commas, or patterns such as 'c*'; all others if left out"
    )
    parser.add_argument(
        "--facts", default="", help="columns likewise, of numbers that ours is told beside the features (default: none)"
    )
    parser.add_argument("--methods", default="ours,random,tpe,gp,nsga2,asha", help=f"some of {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--trainings", type=float, default=100, help="what each search may pay, in whole trainings")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="CSV to write: method, seed, trainings, cost, best")
    parser.add_argument("--picture", type=Path, help="SVG or PNG to draw")
    return parser


if __name__ == "__main__":
    sys.exit(main())
