"""Every published network from scratch on CamVid, for the same time: mIoU against milliseconds.

    python studies/camvid/rivals/rivals.py --data camvid:~/camvid --probe [--processes 2]
    python studies/camvid/rivals/rivals.py --data camvid:~/camvid --work runs/rivals [--processes 2]
    python studies/camvid/rivals/rivals.py --measure
    python studies/camvid/rivals/rivals.py --draw

The first command tries one epoch of each network on one thread, at 180x240 by `recipe.yaml`, and writes into
`epochs.csv` beside this file how many fit into `MINUTES` of processor time, scoring included; the machine is to do
nothing else. The second trains what `results.csv` does not hold yet for that many epochs, the learning rate annealed
over them, and goes on with what was interrupted: beside other work too, which changes nothing but the time. `--work`
keeps weights and unfinished trainings. The third command times the networks, on a machine that does nothing else, the
fourth draws both. With `--networks NAME|FILE.yaml ...` the first two are about these instead of all published networks,
and `--tables DIR` has tables of its own: what another study found is so trained as the rivals were.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import space
from nas.commands.shared.common import data_spec
from nas.data import DataSpec, load
from nas.latency.machine import lane
from nas.report.drawing import FONT_PIXELS
from nas.report.labels import place_label
from nas.report.palette import LIGHT
from nas.storage.files import write_text
from nas.training import load_recipe
from nas.training.trainer import Trainer
from nas.training.weights import save_weights

HERE = Path(__file__).parent
RESULTS, EPOCHS, BOARD = "results.csv", "epochs.csv", "latency"
RECIPE = HERE / "recipe.yaml"
MINUTES = 20.0
SIZE = (180, 240)
TARGET = "onnxruntime@cpu:1"
CLASSES = 11
PRESENT = (  # the rivals of today first, then by how often they are compared with
    "ddrnet23-slim", "rdrnet-s-simple", "fast-scnn", "regseg", "swiftnet-rn18", "ndnet45-ende", "stdc1", "dabnet",
    "rdrnet-s", "erfnet", "swiftnet-mnv2", "fplnet",
)  # fmt: skip
TICKS = (2, 3, 5, 10, 20, 30, 50)  # milliseconds
TWICE = ("ddrnet23-slim", "rdrnet-s-simple", "fast-scnn", "swiftnet-rn18", "ndnet45-ende")

Row = dict[str, str]


def main() -> None:
    """Probe, train, time or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="camvid:DIR")
    parser.add_argument("--work", type=Path, help="where weights and unfinished trainings are kept")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time, of one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after so many")
    parser.add_argument("--networks", nargs="+", metavar="NAME|FILE", help="instead of all published ones")
    parser.add_argument("--seeds", type=int, default=1, help="of each of --networks")
    parser.add_argument("--tables", type=Path, default=HERE, help="where the tables are (default: beside this file)")
    parser.add_argument("--probe", action="store_true", help="find how many epochs each network has, and train nothing")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="with --probe: epochs there take so many times as long as here"
    )
    parser.add_argument("--measure", action="store_true", help="time the networks, and train nothing")
    parser.add_argument("--draw", action="store_true", help="draw what there is, and train nothing")
    asked = parser.parse_args()
    tables: Path = asked.tables
    if asked.networks:
        tasks = [(name, seed) for seed in range(asked.seeds) for name in asked.networks]
    else:
        tasks = [(name, 0) for name in dict.fromkeys((*PRESENT, *space.published()))] + [(name, 1) for name in TWICE]
    if asked.draw:
        draw(rows_of(tables / RESULTS))
    elif asked.measure:
        words = ["--target", TARGET, "--input", f"{SIZE[0]}x{SIZE[1]}", "--classes", str(CLASSES), "--within", "3%"]
        out = ["--out", str(tables / BOARD)]
        subprocess.run([sys.executable, "-m", "nas.cli", "measure", *(asked.networks or ()), *words, *out], check=True)
    elif asked.data is None:
        parser.error("expected --data, --measure or --draw")
    elif asked.probe:
        missing = [name for name, seed in tasks if seed == 0]
        probe_all(missing, data_spec(asked.data, SIZE), tables, asked.processes, asked.pace)
    elif asked.work is None:
        parser.error("expected --work")
    else:
        train_all(tasks, data_spec(asked.data, SIZE), tables, asked.work, asked.processes, asked.minutes)


def name_of(network: str) -> str:
    """A published name, or that of a YAML file without its ending."""
    return network if network in space.published() else Path(network).stem


def probe_all(networks: Sequence[str], data: DataSpec, tables: Path, processes: int, pace: float) -> None:
    """Try one epoch of each network that `epochs.csv` does not hold.

    `pace`: how many times as long an epoch takes on the machine whose minutes count.
    """
    known = {row["network"] for row in rows_of(tables / EPOCHS)}
    missing = [network for network in networks if name_of(network) not in known]
    with pool_of(processes) as pool:
        for network, seconds in zip(missing, pool.map(probed, missing, [data] * len(missing)), strict=True):
            epochs = max(1, round(60 * MINUTES / (pace * seconds)))
            row = {"network": name_of(network), "seconds_per_epoch": f"{pace * seconds:.1f}", "epochs": str(epochs)}
            add(tables / EPOCHS, row)
            print(row, flush=True)


def probed(network: str, data: DataSpec) -> float:
    """Seconds of processor time that one epoch takes, its scoring included."""
    trainer = Trainer(space.load(network), load(data), load_recipe(str(RECIPE)), threads=1, guard=lane.shared)
    begun = time.process_time()
    trainer.run_epoch()
    return time.process_time() - begun


def train_all(
    tasks: Sequence[tuple[str, int]], data: DataSpec, tables: Path, work: Path, processes: int, minutes: float
) -> None:
    """Train what is missing of networks with seeds, in their order."""
    end = time.monotonic() + 60 * minutes
    work.mkdir(parents=True, exist_ok=True)
    done = {(row["network"], row["seed"]) for row in rows_of(tables / RESULTS)}
    epochs = {row["network"]: int(row["epochs"]) for row in rows_of(tables / EPOCHS)}
    waiting = iter([(network, seed) for network, seed in tasks if (name_of(network), str(seed)) not in done])
    under_way: set[Future[Row]] = set()
    with pool_of(processes) as pool:
        while True:
            while len(under_way) < processes and time.monotonic() < end and (task := next(waiting, None)) is not None:
                under_way.add(pool.submit(trained, *task, epochs[name_of(task[0])], data, work))
            if not under_way:
                break
            finished = next(as_completed(under_way))
            under_way.remove(finished)
            add(tables / RESULTS, finished.result())
            print(finished.result(), flush=True)


def pool_of(processes: int) -> ProcessPoolExecutor:
    """Processes that each run one task and end."""
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1)


def trained(network: str, seed: int, epochs: int, data: DataSpec, work: Path) -> Row:
    """One training, as a row."""
    architecture, dataset, checkpoint = space.load(network), load(data), work / f"{name_of(network)}-{seed}.pt"
    recipe = replace(load_recipe(str(RECIPE)), seed=seed, epochs=epochs)
    trainer = Trainer(architecture, dataset, recipe, threads=1, guard=lane.shared)
    if checkpoint.is_file():
        trainer.restore(checkpoint)
    while not trainer.finished:
        report = trainer.run_epoch()
        if report.epoch % 5 == 0 or trainer.finished:
            trainer.save(checkpoint)
            print(network, seed, report, flush=True)
    scores = [100 * report.miou for report in trainer.history]
    save_weights(checkpoint.with_suffix(".safetensors"), trainer.weights(), {"miou": f"{scores[-1]:.2f}"})
    return {
        "network": name_of(network),
        "seed": str(seed),
        "parameters": str(space.parameters(architecture, dataset.num_classes)),
        "epochs": str(epochs),
        "miou": f"{scores[-1]:.2f}",
        "best_miou": f"{max(scores):.2f}",
    }


def rows_of(table: Path) -> list[Row]:
    """What a table holds."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(table: Path, row: Row) -> None:
    """Add a row to a table."""
    lines = [",".join(row), *(",".join(each.values()) for each in (*rows_of(table), row))]
    write_text(table, "\n".join(lines) + "\n")


def draw(rows: Sequence[Row]) -> None:
    """mIoU of each network against its milliseconds, seeds joined by a line."""
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    latencies = {row["network"]: row for row in rows_of(HERE / BOARD / "latency.csv")}
    figure = Figure(figsize=(11, 6.5), layout="constrained", dpi=72)  # a pixel is a point: so names are placed
    axes = figure.add_subplot()
    best: dict[str, tuple[float, float]] = {}
    every: list[tuple[float, float]] = []
    for name in sorted({row["network"] for row in rows}):
        milliseconds = float(latencies[name]["p50_milliseconds"])
        scores = [float(row["miou"]) for row in rows if row["network"] == name]
        axes.plot([milliseconds] * len(scores), scores, "o-", color=LIGHT["company"], markersize=6)
        best[name] = milliseconds, max(scores)
        every += [(milliseconds, score) for score in scores]
    axes.set_xscale("log")
    axes.set_xticks(TICKS, list(map(str, TICKS)))
    axes.minorticks_off()
    axes.set_xlabel(f"milliseconds, {TARGET}, {SIZE[0]}x{SIZE[1]}", fontsize=FONT_PIXELS)
    axes.set_ylabel("mIoU on CamVid's validation images, %", fontsize=FONT_PIXELS)
    axes.grid(color=LIGHT["line"])
    figure.draw_without_rendering()
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in axes.transData.transform(every)]
    for name, place in best.items():
        box = place_label(name, tuple(axes.transData.transform(place)), taken, axes.bbox)
        if box is not None:
            taken.append(box)
            middle = (box.x0, (box.y0 + box.y1) / 2)
            axes.annotate(name, middle, xycoords="figure points", va="center", fontsize=FONT_PIXELS)
    figure.savefig(HERE / "rivals.png", dpi=130)


if __name__ == "__main__":
    main()
