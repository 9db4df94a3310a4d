"""Search a table of trained networks with several methods, and say what each pays for how good a network.

    python studies/search/replay.py --table F.csv --objective miou --bound multiply_adds_g=1.51 --cheap miou_cheap:0.06

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small matrices: threads only wait for each other

import numpy as np
from methods import METHODS, Account
from numpy.typing import NDArray
from table import Table, load

from nas.commands.shared.output import require_folder
from nas.host.cores import usable_cores
from nas.report.chance import expected_best
from nas.storage.files import write_text
from nas.terminal import ProgressLine
from space import UserError
from space.errors import nearest

STEP = 0.25  # of the cost at which curves are compared, in whole trainings
FIRST = 3  # cost that is drawn
SHOWN = (5, 8, 10, 12, 16, 20, 24, 32, 48, 64, 100, 200, 400)
INTERVAL = 1.96  # standard errors: 95 %
PICTURES = (".svg", ".png", ".pdf")

History = list[tuple[int, float, float]]
Curves = NDArray[np.float64]
Middle = Callable[[Curves], tuple[Curves, Curves, Curves]]


def main() -> int:
    """Replay, print, write and draw."""
    arguments = _parser().parse_args()
    try:
        return _replay(arguments)
    except (UserError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = f"; {arguments.out} has the searches that had ended" if arguments.out else ""
        print(f"replay: interrupted{kept}", file=sys.stderr)
        return 130


def _replay(asked: argparse.Namespace) -> int:
    names = asked.methods.split(",")
    for name in names:
        if name not in METHODS:
            raise UserError(f"--methods: there is no '{name}'; {nearest(name, METHODS)}")
    if asked.seeds < 1 or asked.jobs < 1 or not 1 <= asked.trainings < math.inf:
        raise UserError("expected at least one of --seeds, of --jobs and of --trainings, and these to be finite")
    if asked.picture and asked.picture.suffix not in PICTURES:
        raise UserError(f"--picture: expected a file that ends in {', '.join(PICTURES)}, got {asked.picture}")
    for file in filter(None, (asked.out, asked.picture)):
        require_folder(file.parent)
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
    ended = _searched(table, asked, [(name, seed) for name in names for seed in range(asked.seeds)])
    found = {name: [ended[name, seed] for seed in range(asked.seeds)] for name in names}
    costs = np.arange(1, asked.trainings + STEP / 2, STEP)
    curves = {name: np.array([_curve(each, costs) for each in of]) for name, of in found.items()}
    middle = _median if asked.median else _mean
    seeds = f"{asked.seeds} seeds and its 95 % interval" if asked.seeds > 1 else "1 seed"
    named = f"{'median' if asked.median else 'mean'} of {seeds}"
    targets = {trainings: random_best(table, trainings, median=asked.median) for trainings in asked.random}
    _print(table, costs, curves, middle, targets, named)
    if asked.picture:
        _draw(asked.picture, table, costs, curves, middle, targets, f"best {asked.objective}, {named}")
    return 0


def _searched(
    table: Table, asked: argparse.Namespace, jobs: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], History]:
    """Each search, written as it ends.

    Raises: UserError when a process was killed.
    """
    run = functools.partial(_run, table, asked.trainings, asked.continued)
    ended: dict[tuple[str, int], History] = {}
    progress = ProgressLine()
    with ProcessPoolExecutor(asked.jobs) as pool, progress.over("searching", len(jobs), unit="searches"):
        running = {pool.submit(run, job): job for job in jobs}
        try:
            for each in as_completed(running):
                ended[running[each]] = each.result()
                progress.count(1)
                if asked.out:
                    _write(asked.out, table, {job: ended[job] for job in jobs if job in ended})
        except BrokenExecutor:
            raise UserError(
                f"a search was killed, as happens where memory runs out; give fewer --jobs than {asked.jobs}"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return ended


def _run(table: Table, trainings: float, continued: bool, job: tuple[str, int]) -> History:
    name, seed = job
    account = Account(table=table, trainings=trainings, continued=continued)
    METHODS[name](account, seed)
    return account.history


def _curve(history: History, costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best score at each cost; NaN before the first."""
    paid = np.array([cost for _, cost, _ in history])
    bests = np.array([math.nan, *(best for _, _, best in history)])
    return bests[np.searchsorted(paid, costs + 1e-6, side="right")]


def random_best(table: Table, trainings: int, *, median: bool = False) -> float:
    """What the best of so many random rows scores on average, or in the median; one that failed counts as the worst."""
    scores = np.sort(np.where(np.isnan(table.scores), np.nanmin(table.scores), table.scores)).tolist()
    if not median:
        return expected_best(scores, trainings)
    drawn = min(trainings, len(scores))
    ways = math.comb(len(scores), drawn)  # of which so many have their best among the first ones
    return float(next(score for first, score in enumerate(scores, 1) if 2 * math.comb(first, drawn) >= ways))


def _mean(curves: Curves) -> tuple[Curves, Curves, Curves]:
    """Over seeds, with its 95 % interval; NaN where a seed has no score yet."""
    spread = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(curves.shape[1])
    mean, half = curves.mean(axis=0), INTERVAL * spread / math.sqrt(len(curves))
    return mean, mean - half, mean + half


def _median(curves: Curves) -> tuple[Curves, Curves, Curves]:
    """Likewise."""
    ranked, count = np.sort(curves, axis=0), len(curves)
    low = max(0, math.floor((count - INTERVAL * math.sqrt(count)) / 2))  # of the binomial distribution
    return np.median(curves, axis=0), ranked[low], ranked[count - 1 - low]


def _print(
    table: Table,
    costs: NDArray[np.float64],
    curves: dict[str, Curves],
    middle: Middle,
    targets: Mapping[int, float],
    named: str,
) -> None:
    shown = [place for cost in SHOWN for place in np.flatnonzero(np.isclose(costs, cost))]
    for trainings, target in targets.items():
        print(f"random search's best after {trainings}: {table.sign * target:.4f}")
    head = "".join(f"{costs[place]:>15g}" for place in shown)
    asked = "".join(f"{f'to random {trainings}':>16}" for trainings in targets)
    print(f"\nbest at a cost, {named}\n{'':<12}{head}{asked}")
    for name, curve in curves.items():
        found, low, high = middle(curve)
        half = (high - low) / 2
        sure = [f" ±{half[place]:<4.2f}" if len(curve) > 1 else " " * 6 for place in shown]
        values = "".join(f"{table.sign * found[place]:>9.3f}{said}" for place, said in zip(shown, sure, strict=True))
        reached = [np.flatnonzero(found >= target - 1e-9) for target in targets.values()]
        needed = "".join(f"{costs[each[0]]:>16g}" if len(each) else f"{f'over {costs[-1]:g}':>16}" for each in reached)
        print(f"{name:<12}{values}{needed}")


def _write(file: Path, table: Table, ended: Mapping[tuple[str, int], History]) -> None:
    """Every time that a search found a better one, and its end."""
    lines = ["method,seed,trainings,cost,best"]
    for (name, seed), history in ended.items():
        before = [None, *(best for _, _, best in history)]
        for place, (trainings, cost, best) in enumerate(history):
            if best != before[place] or place == len(history) - 1:
                lines.append(f"{name},{seed},{trainings},{cost:g},{table.sign * best:g}")
    write_text(file, "\n".join(lines) + "\n")


def _draw(
    file: Path,
    table: Table,
    costs: NDArray[np.float64],
    curves: dict[str, Curves],
    middle: Middle,
    targets: Mapping[int, float],
    named: str,
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.4), layout="constrained")
    for name, curve in curves.items():
        found, low, high = (table.sign * each for each in middle(curve))
        line = axes.plot(costs, found, label=name, linewidth=2 if name == "ours" else 1.2)[0]
        axes.fill_between(costs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for trainings, target in targets.items():
        axes.axhline(table.sign * target, color="grey", linestyle=":", linewidth=1)
        place = (max(costs[0], FIRST) * 1.02, table.sign * target)
        axes.annotate(f"random, {trainings}", place, ha="left", va="bottom", fontsize=8, color="grey")
    ends = np.nanpercentile(np.concatenate([middle(curve)[0] for curve in curves.values()]), [15, 100])
    room = 0.08 * (ends[1] - ends[0])
    limits = table.sign * np.array([ends[0], ends[1] + room])
    axes.set_ylim(min(limits), max(limits))
    axes.set_xscale("log")
    axes.set_xlim(max(costs[0], FIRST), costs[-1])
    ticks = [cost for cost in (FIRST, *SHOWN) if cost <= costs[-1]]
    axes.set_xticks(ticks, [f"{cost:g}" for cost in ticks])
    axes.minorticks_off()
    axes.set_xlabel("cost in whole trainings")
    axes.set_ylabel(named)
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
    parser.add_argument(
        "--cheap",
        action="append",
        default=[],
        help="column:cost of a cheap training, in whole trainings; once for each rung",
    )
    parser.add_argument(
        "--continued", action="store_true", help="trainings go on from cheaper ones: what these cost is not paid again"
    )
    parser.add_argument(
        "--features",
        default="",
        help="columns by commas, or patterns such as 'c*'; if left out all others that are no scores or names",
    )
    parser.add_argument(
        "--facts", default="", help="columns likewise, of numbers that ours is told beside the features (default: none)"
    )
    parser.add_argument("--methods", default="ours,random,tpe,gp,nsga2,asha", help=f"some of {', '.join(METHODS)}")
    parser.add_argument(
        "--random",
        type=lambda text: tuple(map(int, text.split(","))),
        default=(100, 400),
        help="after how many random trainings the best is to be reached, by commas (default: 100,400)",
    )
    parser.add_argument("--median", action="store_true", help="medians over seeds instead of means")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--trainings", type=float, default=100, help="what each search may pay, in whole trainings")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes (default: one a core)")
    parser.add_argument("--out", type=Path, help="CSV to write: method, seed, trainings, cost, best")
    parser.add_argument("--picture", type=Path, help="SVG or PNG to draw")
    return parser


if __name__ == "__main__":
    sys.exit(main())
