"""A table of the product's own space for `replay.py`: networks of one latency, each trained on CamVid in three rungs.

    python studies/search/trained.py --data camvid:~/camvid --out studies/search/camvid.csv [--processes 2] [--until 4]
    python studies/search/trained.py --data camvid:~/camvid --out studies/search/camvid_wide.csv --until 4 \
        --budget 3.6 --like studies/search/camvid.csv
    python studies/search/trained.py --data camvid:~/camvid --out studies/search/camvid.csv --until 4 --guided 14
    python studies/search/trained.py --data camvid:~/camvid --out studies/search/camvid.csv --longer 40
    python studies/search/trained.py --out studies/search/camvid.csv --measure
    python studies/search/trained.py --out studies/search/camvid.csv --warm-start nas/runs/warm_start.yaml

The first command trains what the table does not hold yet, from scratch, at 120x160 by the recipe `quick`, and adds a
row for each: published networks at the width that is estimated to fill the budget, and random draws of what a search
looks at, then, generation after generation, draws and mutations of the best so far. A training is one of a search: its
schedule is annealed to the end at 1, 4 and 16 epochs, and goes on from the weights; its cost is in processor seconds.
`--until` ends all at an earlier of these, by whose scores the best are then chosen. The second command makes a table at
another budget, which begins with the published networks and the better half of a table that is there instead of draws,
all at the width for that budget. The third trains what a search would propose next that knew the table; the fourth
the 40 best by their scores after 4 epochs again, to the end. The fifth times every network that the table has no
latency of, on a machine that does nothing else, and notes whether that was disturbed. The last writes what every search
begins with (`nas.runs.warm_start`): the answers of each network, and its score after `--until` epochs.

What a network is stands in the columns that begin with `axis.` (the answers that lead to it) and in `factor`, on every
width of what they lead to, or of the published network that `origin` names.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import multiprocessing
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import space
from nas.commands.shared.common import data_spec
from nas.data import DataSpec, load
from nas.errors import TrainingError, UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.estimates.shipped import shipped_table
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine import lane
from nas.latency.meter import Meter
from nas.latency.target import Target
from nas.search.propose.candidates import SpaceQuestions, draw, filling_of
from nas.storage.files import write_text
from nas.surrogate.choice import choose
from nas.surrogate.encoding import key
from nas.surrogate.told import Begun, Told
from nas.training import load_recipe
from nas.training.trainer import Trainer
from space import Architecture, Space
from space.axes import searched
from space.channels import last_layer
from space.choices import Choice, Genotype
from space.errors import ArchitectureError
from space.scale import NARROWEST, bisected, scale_width

SIZE = (120, 160)
SEARCHED = Space(ranges=searched(), size=SIZE)
TARGET = Target.parse("onnxruntime@cpu:1")
BUDGET_MILLISECONDS = 1.2  # unless told otherwise
REFERENCE_MILLISECONDS = 2.0  # of the reference on this target; a constant, so that the same networks are made again
RUNGS = (1, 4, 16)  # epochs
CLASSES = 11
DRAWN = 40  # at random, in the first generation
BRED = (24,) * 7  # draws and mutations of the best, in later ones
BEST = 10  # whose mutations they are
WIDEST = 16.0
FACTS = ("parameters", "multiply_adds", "depth", "logits_stride")
FIXED = ("key", "origin", "factor", *FACTS, "estimated_milliseconds", "p50_milliseconds", "flagged")
SCORES = tuple(f"{name}_{epochs}" for epochs in RUNGS for name in ("miou", "seconds"))
AXIS = "axis."

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network of the table before it is trained."""

    origin: str
    genotype: Genotype
    architecture: Architecture
    factor: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a table is of."""

    table: Path
    budget: float
    """Milliseconds."""
    until: int
    """Epochs of each training."""
    like: Path | None
    """The table whose better half it begins with, instead of draws."""


def main() -> None:
    """Train, or time, what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="camvid:DIR")
    parser.add_argument("--out", type=Path, required=True, help="the table, a CSV file; rows that it has stay")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time, of one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after so many")
    parser.add_argument("--budget", type=float, default=BUDGET_MILLISECONDS, help="milliseconds that all fill")
    parser.add_argument("--like", type=Path, metavar="TABLE", help="begin with its better half instead of draws")
    parser.add_argument("--until", type=int, choices=RUNGS, default=RUNGS[-1], help="epochs of each training")
    parser.add_argument("--guided", type=int, metavar="N", help="train N that a search would propose after the table")
    parser.add_argument("--longer", type=int, metavar="N", help="train the N best after 4 epochs to the end")
    parser.add_argument("--measure", action="store_true", help="time what has no latency yet, and train nothing")
    parser.add_argument(
        "--warm-start", type=Path, metavar="FILE", help="write the tables as what every search begins with"
    )
    asked = parser.parse_args()
    if asked.warm_start:
        write_text(asked.warm_start, warm_start([each for each in (asked.like, asked.out) if each], asked.until))
    elif asked.measure:
        measure(asked.out)
    elif asked.data is None:
        parser.error("expected --data or --measure")
    else:
        data = data_spec(asked.data, SIZE)
        plan = Plan(table=asked.out, budget=asked.budget, until=asked.until, like=asked.like)
        with ProcessPoolExecutor(asked.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            trainings = Trainings(
                pool=pool,
                processes=asked.processes,
                data=data,
                table=asked.out,
                end=time.monotonic() + 60 * asked.minutes,
            )
            if asked.longer:
                train(iter(best_to_end(asked.out, asked.longer)), RUNGS[-1], trainings)
            elif asked.guided:
                train(guided(asked.guided, plan), asked.until, trainings)
            else:
                train_all(plan, trainings)


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """Where trainings run, and for how long."""

    pool: ProcessPoolExecutor
    processes: int
    data: DataSpec
    table: Path
    end: float
    """By the monotonic clock; none begins after it."""


def train_all(plan: Plan, trainings: Trainings) -> None:
    """Train what the table does not hold, generation after generation, until the time is over."""
    for generation in range(1 + len(BRED)):
        known = {row["key"] for row in rows_of(plan.table)}
        missing = [each for each in candidates(generation, plan) if each.architecture.key not in known]
        train(iter(missing), plan.until, trainings)
        if time.monotonic() >= trainings.end:
            return


def train(candidates: Iterator[Candidate], until: int, trainings: Trainings) -> None:
    """Train candidates until an epoch, as long as there is time: a row of the table for each as it ends."""
    under_way: set[Future[Row]] = set()
    while True:
        while len(under_way) < trainings.processes and time.monotonic() < trainings.end:
            if (candidate := next(candidates, None)) is None:
                break
            under_way.add(trainings.pool.submit(trained, candidate, trainings.data, until))
        if not under_way:
            return
        done = next(as_completed(under_way))
        under_way.remove(done)
        row = done.result()
        add(trainings.table, row)
        print(*(row.get(name, "") for name in ("origin", "key", "parameters", *SCORES)), flush=True)


def guided(count: int, plan: Plan) -> Iterator[Candidate]:
    """What a search would propose next that knew the table as it is then, one after the other."""
    filling = filling_of(Budget(milliseconds=plan.budget), CLASSES, estimates())
    questions = SpaceQuestions(SEARCHED, (1.0,), filling)
    under_way: dict[str, Genotype] = {}  # by the key of what they lead to
    for _ in range(count):
        rows = best_first(plan.table, plan.until)
        told = [Told(point=genotype_of(row), score=float(row[f"miou_{plan.until}"])) for row in rows]
        for row in rows:
            under_way.pop(row["key"], None)
        running = [Begun(point=point) for point in under_way.values()]
        around = questions.around([each.point for each in told[:BEST]], random.Random(f"guided {len(rows)}"))
        known = {key(each.point) for each in told} | set(map(key, under_way.values()))
        new = [point for point in around if key(point) not in known]
        while new:
            point = new.pop(choose(new, told, running, questions.facts))
            candidate = made(point, "guided", plan.budget)
            if candidate is not None and candidate.architecture.key not in {row["key"] for row in rows_of(plan.table)}:
                under_way[candidate.architecture.key] = point
                yield candidate
                break


def best_to_end(table: Path, count: int) -> list[Candidate]:
    """The best of a table by the rung before the last, of those that were not trained to the end yet."""
    rows = [row for row in best_first(table, RUNGS[-2])[:count] if not row[f"miou_{RUNGS[-1]}"]]
    return [
        Candidate(
            origin=row["origin"],
            genotype=genotype_of(row),
            architecture=rebuilt(row),
            factor=float(row["factor"]),
        )
        for row in rows
    ]


def candidates(generation: int, plan: Plan) -> list[Candidate]:
    """Those of a generation: the same whenever all before it are trained, and no two alike."""
    rng = random.Random(f"generation {generation}")
    if generation == 0:
        drawn = (made(draw(SEARCHED, rng)[1], "drawn", plan.budget) for _ in itertools.count())
        others = itertools.islice(filter(None, drawn), DRAWN) if plan.like is None else better_half(plan.like, plan)
        found = [*published(plan.budget), *others]
    else:
        later = {f"bred {each}" for each in range(generation, 1 + len(BRED))}  # this one may be trained in part
        scored = [row for row in best_first(plan.table, plan.until) if row["origin"] not in later]
        around = SpaceQuestions(SEARCHED, (1.0,), None).around([genotype_of(row) for row in scored[:BEST]], rng)
        found = [made(each, f"bred {generation}", plan.budget) for each in rng.sample(around, BRED[generation - 1])]
    inside = {each.architecture.key: each for each in found if each is not None}
    return list(inside.values())


def better_half(table: Path, plan: Plan) -> Iterator[Candidate | None]:
    """What is no published network in the better half of another table."""
    rows = best_first(table, plan.until)
    for row in rows[: len(rows) // 2]:
        if row["origin"] not in space.published():
            yield made(genotype_of(row), f"like {row['key']}", plan.budget)


def best_first(table: Path, until: int) -> list[Row]:
    """What was trained so far."""
    score = f"miou_{until}"
    return sorted((row for row in rows_of(table) if row[score]), key=lambda row: -float(row[score]))


def published(budget: float) -> Iterator[Candidate | None]:
    """Published networks that the space has something close to, scaled to the budget."""
    for name in space.published():
        architecture = space.load(name)
        if (genotype := SEARCHED.closest_genotype(architecture)) is not None:
            yield filled(architecture, name, genotype, budget)


def made(genotype: Genotype, origin: str, budget: float) -> Candidate | None:
    """The network that answers lead to, at the width that fills the budget."""
    return filled(led_to(genotype), origin, genotype, budget)


def led_to(genotype: Genotype) -> Architecture:
    """What answers lead to."""
    return SEARCHED.choose(lambda name, options: genotype[name] if genotype.get(name) in options else options[0])


def filled(architecture: Architecture, origin: str, genotype: Genotype, budget: float) -> Candidate | None:
    """At the largest width that is estimated to be inside the budget; None where none is."""
    latencies = estimates()

    def fits(factor: float) -> bool:
        return latencies.estimate(scale_width(architecture, factor), CLASSES) <= budget

    if not fits(NARROWEST):
        return None
    factor = WIDEST if fits(WIDEST) else bisected(NARROWEST, WIDEST, fits)
    scaled = scale_width(architecture, factor)
    return Candidate(origin=origin, genotype=genotype, architecture=scaled, factor=factor)


def estimates() -> LatencyTable:
    """The latency table that comes with the package."""
    table = shipped_table(TARGET, SIZE, REFERENCE_MILLISECONDS)
    assert table is not None, "one comes for this target"
    return table


def trained(candidate: Candidate, data: DataSpec, until: int) -> Row:
    """One training of one thread `until` an epoch, as a row of the table; scores of one that broke are missing."""
    architecture = candidate.architecture
    row = {
        "key": architecture.key,
        "origin": candidate.origin,
        "factor": repr(candidate.factor),
        **facts(architecture),
        "estimated_milliseconds": f"{estimates().estimate(architecture, CLASSES):.3f}",
        **{f"{AXIS}{name}": str(answer) for name, answer in candidate.genotype.items()},
    }
    recipe = replace(load_recipe("quick"), epochs=RUNGS[-1])
    begun = time.process_time()
    try:
        trainer = Trainer(architecture, load(data), recipe, threads=1, rungs=RUNGS, guard=lane.shared)
        while len(trainer.history) < until:
            report = trainer.run_epoch()
            if report.epoch in RUNGS:
                row[f"miou_{report.epoch}"] = f"{100 * report.miou:.2f}"
                row[f"seconds_{report.epoch}"] = f"{time.process_time() - begun:.1f}"
    except (TrainingError, ArchitectureError) as error:
        print(f"{architecture.key} failed: {error}", flush=True)
    return row


def facts(architecture: Architecture) -> dict[str, str]:
    """What is known of a network before it is trained."""
    numbers = (
        space.parameters(architecture, CLASSES),
        space.multiply_adds(architecture, SIZE, CLASSES),
        space.depth(architecture, CLASSES),
        last_layer(architecture.graph(CLASSES)).output_stride[0],
    )
    return dict(zip(FACTS, map(str, numbers), strict=True))


def measure(table: Path) -> None:
    """Time what has no latency yet."""
    rows = rows_of(table)
    with Meter(TARGET, SIZE, CLASSES) as meter:
        for place, row in enumerate(rows):
            if row["p50_milliseconds"]:
                continue
            try:
                latency = meter.measure(rebuilt(row), within=0.04)
            except UnmeasuredError as error:
                print(f"{row['key']}: {error}", flush=True)
                continue
            flagged = "yes" if latency.flagged else ""
            rows[place] = {**row, "p50_milliseconds": f"{latency.p50_milliseconds:.3f}", "flagged": flagged}
            write(table, rows)
            print(row["key"], row["estimated_milliseconds"], rows[place]["p50_milliseconds"], flagged, flush=True)


def rebuilt(row: Row) -> Architecture:
    """The network of a row."""
    if row["origin"] in space.published():
        return scale_width(space.load(row["origin"]), float(row["factor"]))
    return scale_width(led_to(genotype_of(row)), float(row["factor"]))


def genotype_of(row: Row) -> Genotype:
    """The answers of a row, of the kinds that the space has them in."""
    answers: dict[str, Choice] = {}

    def ask(name: str, options: Sequence[Choice]) -> Choice:
        text = row.get(f"{AXIS}{name}")
        answers[name] = next((option for option in options if str(option) == text), options[0])
        return answers[name]

    SEARCHED.choose(ask)
    return answers


def warm_start(tables: Sequence[Path], until: int) -> str:
    """What was trained so far, as YAML, a line for each network."""
    lines = ["tables:"]
    for rows in map(rows_of, tables):
        lines += ["- trained_on: CamVid", "  evaluations:"]
        for row in rows:
            if score := row[f"miou_{until}"]:
                network = {"miou": round(float(score) / 100, 4), "genotype": dict(genotype_of(row))}
                lines.append(f"  - {json.dumps(network)}")
    return "\n".join(lines) + "\n"


def rows_of(table: Path) -> list[Row]:
    """What the table holds."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(table: Path, row: Row) -> None:
    """Add a row in place of any of the same network, and columns for answers that none before it had."""
    rows = rows_of(table)
    same = [place for place, each in enumerate(rows) if each["key"] == row["key"]]
    if same:
        rows[same[0]] = {**row, **{name: rows[same[0]][name] for name in ("p50_milliseconds", "flagged")}}
    else:
        rows.append(row)
    write(table, rows)


def write(table: Path, rows: Sequence[Row]) -> None:
    """Replace the table, columns of axes in their order."""
    rows = [row if row.get(FACTS[-1]) else {**row, **facts(rebuilt(row))} for row in rows]  # of earlier versions
    axes = sorted({name for row in rows for name in row if name.startswith(AXIS)})
    columns = (*FIXED, *SCORES, *axes)
    lines = [",".join(columns), *(",".join(row.get(name) or "" for name in columns) for row in rows)]
    write_text(table, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
