"""Every published network from scratch on CamVid, for the same time: mIoU against milliseconds.

    python studies/camvid/rivals/rivals.py --data camvid:~/camvid --work runs/rivals [--processes 2] [--each 20]
    python studies/camvid/rivals/rivals.py --work runs/rivals --measure
    python studies/camvid/rivals/rivals.py --draw

The first command trains what `results.csv` beside this file does not hold yet, at 180x240 by `recipe.yaml`, on one
thread each. One epoch is tried first; a training then has as many as fit into `--each` minutes of processor time,
scoring included, its learning rate annealed over them. Another seed has the epochs of the first. What was interrupted
goes on where it was. `--work` keeps weights and unfinished trainings. The second command times the networks, on a
machine that does nothing else, the third draws both.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import space
from nas.commands.common import data_spec
from nas.data import DataSpec, load
from nas.latency.machine import lane
from nas.report.palette import LIGHT
from nas.storage.files import write_text
from nas.training import load_recipe
from nas.training.trainer import Trainer
from nas.training.weights import save_weights

HERE = Path(__file__).parent
RESULTS, RECIPE, BOARD = HERE / "results.csv", HERE / "recipe.yaml", HERE / "latency"
SIZE = "180x240"
TARGET = "onnxruntime@cpu:1"
CLASSES = 11
HEADER = ("network", "seed", "parameters", "epochs", "miou", "best_miou", "processor_seconds")
PRESENT = (  # the rivals of today first, then by how often they are compared with
    "ddrnet23-slim", "rdrnet-s-simple", "fast-scnn", "regseg", "swiftnet-rn18", "ndnet45-ende", "stdc1", "dabnet",
    "rdrnet-s", "erfnet", "swiftnet-mnv2", "fplnet",
)  # fmt: skip
TWICE = ("ddrnet23-slim", "rdrnet-s-simple", "fast-scnn", "swiftnet-rn18", "ndnet45-ende")

Row = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training."""

    network: str
    seed: int
    epochs: int | None
    """None: as many as fit."""


def main() -> None:
    """Train, time or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="camvid:DIR")
    parser.add_argument("--work", type=Path, help="where weights and unfinished trainings are kept")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time, of one thread each")
    parser.add_argument("--each", type=float, default=20.0, help="minutes of processor time for each training")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after so many")
    parser.add_argument("--measure", action="store_true", help="time the networks, and train nothing")
    parser.add_argument("--draw", action="store_true", help="draw what there is, and train nothing")
    asked = parser.parse_args()
    if asked.draw:
        draw(rows_of(RESULTS))
    elif asked.work is None or (asked.data is None and not asked.measure):
        parser.error("expected --data and --work, --measure or --draw")
    elif asked.measure:
        words = ["--target", TARGET, "--input", SIZE, "--classes", str(CLASSES), "--within", "3%", "--out", str(BOARD)]
        subprocess.run([sys.executable, "-m", "nas.cli", "measure", *words], check=True)
    else:
        train_all(data_spec(asked.data, SIZE), asked.work, asked.processes, asked.each, asked.minutes)


def train_all(data: DataSpec, work: Path, processes: int, each: float, minutes: float) -> None:
    """Train what is missing, first seeds first."""
    end = time.monotonic() + 60 * minutes
    work.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool:
        for tasks in (first_seeds(), second_seeds()):
            waiting = iter(list(tasks))
            under_way: set[Future[Row]] = set()
            while True:
                while len(under_way) < processes and time.monotonic() < end:
                    if (task := next(waiting, None)) is None:
                        break
                    under_way.add(pool.submit(trained, task, data, work, each))
                if not under_way:
                    break
                done = next(as_completed(under_way))
                under_way.remove(done)
                add(done.result())
                print(done.result(), flush=True)


def first_seeds() -> Iterator[Task]:
    """Of all networks, those of today first."""
    known = {row["network"] for row in rows_of(RESULTS)}
    for name in dict.fromkeys((*PRESENT, *space.published())):
        if name not in known:
            yield Task(network=name, seed=0, epochs=None)


def second_seeds() -> Iterator[Task]:
    """Of those that matter most, once the first are there."""
    rows = rows_of(RESULTS)
    known = {(row["network"], row["seed"]) for row in rows}
    for row in rows:
        if row["network"] in TWICE and row["seed"] == "0" and (row["network"], "1") not in known:
            yield Task(network=row["network"], seed=1, epochs=int(row["epochs"]))


def trained(task: Task, data: DataSpec, work: Path, each: float) -> Row:
    """One training, as a row."""
    architecture, dataset, checkpoint = space.load(task.network), load(data), work / f"{task.network}-{task.seed}.pt"
    recipe, plan = replace(load_recipe(str(RECIPE)), seed=task.seed), checkpoint.with_suffix(".epochs")
    if not plan.is_file():
        tried = Trainer(architecture, dataset, recipe, threads=1, guard=lane.training_step)
        fitting = task.epochs or epochs_in(each, tried)
        write_text(plan, f"{fitting}\n")
    epochs = int(plan.read_text(encoding="utf-8"))
    trainer = Trainer(architecture, dataset, replace(recipe, epochs=epochs), threads=1, guard=lane.training_step)
    if checkpoint.is_file():
        trainer.restore(checkpoint)
    begun = time.process_time()
    first = trainer.epoch
    while not trainer.finished:
        report = trainer.run_epoch()
        if report.epoch % 5 == 0 or trainer.finished:
            trainer.save(checkpoint)
            print(task.network, task.seed, report, flush=True)
    seconds = (time.process_time() - begun) * epochs / max(1, epochs - first)
    scores = [100 * report.scores.miou for report in trainer.history]
    save_weights(checkpoint.with_suffix(".safetensors"), trainer.weights(), {"miou": f"{scores[-1]:.2f}"})
    return {
        "network": task.network,
        "seed": str(task.seed),
        "parameters": str(space.parameters(architecture, dataset.num_classes)),
        "epochs": str(epochs),
        "miou": f"{scores[-1]:.2f}",
        "best_miou": f"{max(scores):.2f}",
        "processor_seconds": f"{seconds:.0f}",
    }


def epochs_in(minutes: float, trainer: Trainer) -> int:
    """How many epochs fit into minutes of processor time, by one."""
    begun = time.process_time()
    trainer.run_epoch()
    return max(1, round(60 * minutes / (time.process_time() - begun)))


def rows_of(table: Path) -> list[Row]:
    """What a table holds."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(row: Row) -> None:
    """Add a row to the results."""
    rows = [*rows_of(RESULTS), row]
    lines = [",".join(HEADER), *(",".join(each[name] for name in HEADER) for each in rows)]
    write_text(RESULTS, "\n".join(lines) + "\n")


def draw(rows: Sequence[Row]) -> None:
    """mIoU of each network against its milliseconds, seeds joined by a line."""
    from matplotlib.figure import Figure

    latencies = {row["network"]: row for row in rows_of(BOARD / "latency.csv")}
    figure = Figure(figsize=(8, 5), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    for name in dict.fromkeys(row["network"] for row in rows):
        milliseconds = float(latencies[name]["p50_milliseconds"])
        scores = sorted(float(row["miou"]) for row in rows if row["network"] == name)
        axes.plot([milliseconds] * len(scores), scores, "o-", color=LIGHT["company"], markersize=5)
        axes.annotate(name, (milliseconds, scores[-1]), (5, 3), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel(f"milliseconds, {TARGET}, {SIZE}")
    axes.set_ylabel("mIoU on CamVid's validation images, %")
    axes.grid(color=LIGHT["line"])
    figure.savefig(HERE / "rivals.png")


if __name__ == "__main__":
    main()
