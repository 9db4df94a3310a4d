"""Published networks at the width that fills a budget, and what searches found beside them.

    python studies/camvid/searches/compare.py --scaled 2.5 7.5
    python studies/camvid/searches/compare.py --report
    python studies/camvid/searches/compare.py --winners --data camvid:~/camvid --work runs/rivals

The first command writes `found/scaled-NAME-2.5ms.yaml` for every published network, the modern ones too: its width is
solved by measuring, as a search solves that of its candidates, on a machine that does nothing else. The tables of
`../rivals/rivals.py` say how all of `found/` train and what they take (README.md beside this file).

The second prints what those tables hold so far: for each budget what ours scores above the best published network
inside it, above random search and above TPE with ASHA, seed by seed; and for each published network at its own width
the least latency at which one of ours reaches its mIoU. `compared.png` in the folder of the tables shows all of them.

The third certifies the best of ours for each budget and writes it into `../winners`, for `nas zoo`: that too on a
machine that does nothing else. `--work` is where `rivals.py` kept its weights.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from searches import CLASSES, FOUND, HERE, NAMES, SIZE, TARGET, rows_of

import space
from nas.commands.shared.common import data_spec
from nas.data import load
from nas.latency.budget import Budget
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.shipped import shipped_table
from nas.latency.meter import Meter
from nas.latency.protocol import QUICK, WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.report.chance import Mean, mean_of
from nas.report.palette import LIGHT
from nas.runs.labelling import Labelling
from nas.runs.winner import Certification, Finished, write_winner
from nas.search.propose.fill import Filled, fill
from nas.storage.files import write_text
from nas.terminal import table
from nas.training.weights import load_weights
from space import Architecture

RIVALS, WINNERS = HERE.parent / "rivals", HERE.parent / "winners"
ZOO = HERE.parents[2] / "nas" / "runs" / "winners"
SCALED = re.compile(r"scaled-(.+)-([\d.]+)ms")
SEARCHED = re.compile(rf"((?:small-)?(?:{'|'.join(NAMES)})|tpe-asha)-([\d.]+)ms-(\d+)-\d+")
OURS, PUBLISHED, SCALED_TO = "ours", "own width", "scaled"
COLOURS = {PUBLISHED: "company", SCALED_TO: "seed", OURS: "winner", "warm": "unsure", "random": "random"}
OTHER = "guided"
ASKED_POINTS, ASKED_SHARE = 5.0, 0.5  # above the best published network; of the latency of each
MOST_BYTES = 10_000_000  # of a winner's folder, which holds the weights twice
BYTES = 8.3  # of a parameter there


@dataclass(frozen=True, kw_only=True)
class Network:
    """One that was trained by the rivals' recipe and timed."""

    name: str
    kind: str
    """The method that found it, or how wide a published one is."""
    budget: float
    """In milliseconds; 0 for a published network at its own width."""
    seed: int
    """Of the search."""
    milliseconds: float
    miou: float
    """In percent, the mean over its trainings."""
    parameters: int
    best_training: int
    """The seed of the training that scored most."""

    @property
    def inside(self) -> bool:
        """Whether it keeps its budget."""
        return self.milliseconds <= self.budget


def main() -> None:
    """Scale, report or certify."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scaled", type=float, nargs="+", metavar="MS", help="scale published networks to budgets")
    parser.add_argument("--report", action="store_true", help="print and draw what there is")
    parser.add_argument("--winners", action="store_true", help="certify the best of ours for each budget")
    parser.add_argument("--tables", type=Path, default=HERE, help="where rivals.py kept its tables of these networks")
    parser.add_argument("--data", metavar="camvid:DIR")
    parser.add_argument("--work", type=Path, help="where rivals.py kept the weights of these networks")
    asked = parser.parse_args()
    if asked.scaled:
        scale(asked.scaled)
    elif asked.report:
        if not (networks := list(networks_in(asked.tables))):
            parser.error(f"--report: expected networks that were trained and timed in {asked.tables}, got none")
        report(networks)
        draw(networks, asked.tables / "compared.png")
    elif asked.winners and asked.data and asked.work:
        certify(list(networks_in(asked.tables)), asked.data, asked.work)
    else:
        parser.error("expected --scaled, --report, or --winners with --data and --work")


def scale(budgets: Sequence[float]) -> None:
    """Write every published network at the width that fills each budget, unless it is there already."""
    with Meter(Target.parse(TARGET), SIZE, CLASSES) as meter:
        reference = meter.measure(space.load("ndnet45-ende")).reference_milliseconds
        estimates = Estimates(SIZE, CLASSES, shipped_table(Target.parse(TARGET), SIZE, reference))
        counted = functools.partial(space.multiply_adds, size=SIZE, num_classes=CLASSES)

        def measured(within: float) -> Callable[[Architecture], Latency]:
            def measure(one: Architecture) -> Latency:
                latency = meter.measure(one, within=within)
                estimates.learn(one, latency.p50_milliseconds, disturbed=bool(latency.flagged))
                return latency

            return measure

        for milliseconds in budgets:
            for name in space.published():
                file = FOUND / f"scaled-{name}-{milliseconds:g}ms.yaml"
                if file.is_file():
                    continue
                budget, architecture = Budget.parse(f"{milliseconds:g}ms"), space.load(name)
                found: Filled = fill(
                    architecture, budget, measured(QUICK * WITHIN), measured(WITHIN), estimates.architecture,
                    multiply_adds=counted, within=WITHIN,
                )  # fmt: skip
                if budget.admits(found.latency):
                    write_text(file, found.architecture.to_yaml())
                else:
                    print(f"{name}: the narrowest is over {budget}")
                print(f"{name} x{found.factor:.3g}: {found.latency}", flush=True)


def networks_in(tables: Path) -> Iterator[Network]:
    """What was trained and timed, of the published networks at their own width and of `found/`. Those at their own
    width that were timed together with the others are taken from there.
    """
    boards = [rows_of(folder / "latency" / "latency.csv") for folder in (RIVALS, tables)]
    latencies = {name_of(row["network"]): float(row["p50_milliseconds"]) for board in boards for row in board}
    results = [row for folder in dict.fromkeys((RIVALS, tables)) for row in rows_of(folder / "results.csv")]
    for name in dict.fromkeys(row["network"] for row in results):
        trainings = [row for row in results if row["network"] == name]
        if name not in latencies:
            print(f"left out: {name}, which was not timed")
            continue
        if not (name in space.published() or SEARCHED.fullmatch(name) or SCALED.fullmatch(name)):
            continue  # of an earlier version of the search, or made by hand
        kind, budget, seed = PUBLISHED, 0.0, 0
        if searched := SEARCHED.fullmatch(name):
            kind, budget, seed = searched[1], float(searched[2]), int(searched[3])
        elif scaled := SCALED.fullmatch(name):
            kind, budget = SCALED_TO, float(scaled[2])
        found = Network(
            name=name,
            kind=kind,
            budget=budget,
            seed=seed,
            milliseconds=latencies[name],
            miou=mean(float(row["miou"]) for row in trainings),
            parameters=int(trainings[0]["parameters"]),
            best_training=int(max(trainings, key=lambda row: float(row["miou"]))["seed"]),
        )
        if budget and not found.inside:
            print(f"left out: {name}, which takes {found.milliseconds:.2f} ms")
            continue
        yield found


def name_of(network: str) -> str:
    """A published name, or that of a YAML file without its ending."""
    return network if network in space.published() else Path(network).stem


def report(networks: Sequence[Network]) -> None:
    """What ours is worth beside others, inside each budget and at each published network's mIoU."""
    rows, above = [], []
    for budget in budgets_of(networks):
        ours = best_by_seed(networks, OURS, budget)
        rows.append((f"{budget:g}", "ours", *words(mean_of([each.miou for each in ours.values()])), "", "", ""))
        inside = [
            each
            for each in networks
            if each.kind in (PUBLISHED, SCALED_TO) and each.budget in (0, budget) and each.milliseconds <= budget
        ]
        if inside:
            best = max(inside, key=lambda each: each.miou)
            difference = mean_of([each.miou - best.miou for each in ours.values()])
            name = f"{best.name}, best of {len(inside)} published"
            rows.append(("", name, f"{best.miou:.1f}", "", "", *words(difference, "+")))
            above += [] if difference is None else [difference.mean]
        methods = dict.fromkeys(each.kind for each in networks if each.kind not in (OURS, PUBLISHED, SCALED_TO))
        for method in methods:
            others = best_by_seed(networks, method, budget)
            score = words(mean_of([each.miou for each in others.values()]))
            both = [ours[seed].miou - others[seed].miou for seed in ours if seed in others]
            rows.append(("", method, *score, *words(mean_of(both), "+")))
    print(table(rows, ("ms", "network", "mIoU %", "+-", "seeds", "ours above", "+-", "seeds")))
    if above:
        told = f"on average over {len(above)} budgets" if len(above) > 1 else "inside one budget"
        print(f"\nabove the best published network {told}: {mean(above):+.1f} points (asked: {ASKED_POINTS:g})")
    print(f"\n{reached(networks)}")


def words(found: Mean | None, sign: str = "") -> tuple[str, str, str]:
    """A mean, half of its interval, and of how many; `sign`: "+" for one that has a sign in any case."""
    if found is None:
        return "-", "-", "0"
    return f"{found.mean:{sign}.1f}", "-" if found.half is None else f"{found.half:.1f}", str(found.count)


def best_by_seed(networks: Sequence[Network], method: str, budget: float) -> dict[int, Network]:
    """The best that each search by a method found inside a budget."""
    found: dict[int, Network] = {}
    for each in sorted(networks, key=lambda each: each.miou):
        if (each.kind, each.budget) == (method, budget):
            found[each.seed] = each
    return dict(sorted(found.items()))


def reached(networks: Sequence[Network]) -> str:
    """At which latency ours come to the mIoU of each published network at its own width."""
    rows, shares = [], []
    for rival in sorted((each for each in networks if each.kind == PUBLISHED), key=lambda each: each.milliseconds):
        as_good = [each for each in networks if each.kind == OURS and each.miou >= rival.miou]
        first = min(as_good, key=lambda each: each.milliseconds, default=None)
        shares.append(None if first is None else first.milliseconds / rival.milliseconds)
        rows.append(
            (
                rival.name,
                f"{rival.milliseconds:.2f}",
                f"{rival.miou:.1f}",
                "none" if first is None else first.name,
                "-" if first is None else f"{first.milliseconds:.2f}",
                "-" if first is None else f"{first.milliseconds / rival.milliseconds:.2f}",
            )
        )
    kept = sum(share is not None and share <= ASKED_SHARE for share in shares)
    text = table(rows, ("published network", "ms", "mIoU %", "ours that is as good", "ms", "share"))
    return f"{text}\n\n{kept} of {len(rows)} are reached at {ASKED_SHARE:g} of their latency or less"


def draw(networks: Sequence[Network], file: Path) -> None:
    """mIoU of each network against its milliseconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    for kind in dict.fromkeys(each.kind for each in networks):
        shown = [each for each in networks if each.kind == kind]
        label = f"published, {kind}" if kind in (PUBLISHED, SCALED_TO) else kind
        colour = LIGHT[COLOURS.get(kind, OTHER)]
        places = [each.milliseconds for each in shown], [each.miou for each in shown]
        axes.plot(*places, "o", color=colour, markersize=5, label=label)
        for each in shown if kind == PUBLISHED else ():
            place = each.milliseconds, each.miou
            axes.annotate(each.name, place, (5, 3), textcoords="offset points", fontsize=8)
    for budget in budgets_of(networks):
        axes.axvline(budget, color=LIGHT["soft"], linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([2, 5, 10, 20, 50], labels=["2", "5", "10", "20", "50"])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(f"milliseconds, {TARGET}, {SIZE[0]}x{SIZE[1]}")
    axes.set_ylabel("mIoU on CamVid's validation images, %")
    axes.grid(color=LIGHT["line"])
    axes.legend(fontsize=8)
    figure.savefig(file)


def budgets_of(networks: Sequence[Network]) -> list[float]:
    """All that something was made for."""
    return sorted({each.budget for each in networks if each.budget})


def certify(networks: Sequence[Network], data: str, work: Path) -> None:
    """Write the best of ours for each budget as a winner, of those whose folder is small enough."""
    dataset = load(data_spec(data, SIZE))
    for budget in budgets_of(networks):
        ours = [each for each in networks if (each.kind, each.budget) == (OURS, budget)]
        small = [each for each in ours if BYTES * each.parameters < MOST_BYTES]
        if not small:
            print(f"{budget:g} ms: none of {len(ours)} networks has a folder under {MOST_BYTES / 1e6:g} MB")
            continue
        best = max(small, key=lambda each: each.miou)
        finished = Finished(
            architecture=space.load(FOUND / f"{best.name}.yaml"),
            weights=load_weights(work / f"{best.name}-{best.best_training}.safetensors"),
            labelling=Labelling.of(dataset),
            dataset=dataset,
        )
        asked = Certification(target=Target.parse(TARGET), budget=Budget.parse(f"{budget:g}ms"))
        folder = WINNERS / f"camvid-{budget:g}ms"
        print(f"{best.name}: {folder}", write_winner(folder, finished, asked).latency, flush=True)
        link = ZOO / folder.name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("../../..") / folder.relative_to(HERE.parents[2]))


if __name__ == "__main__":
    main()
