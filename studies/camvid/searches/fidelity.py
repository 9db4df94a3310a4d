"""How well do short trainings of a search order networks whose score after a whole training is known?

    python studies/camvid/searches/fidelity.py --data camvid:~/camvid --networks FILE.yaml ... [--processes 2]

trains each network from scratch for some numbers of epochs, the learning rate annealed over them, by one of the recipes
of `searches.py`, and adds a row per training to `fidelity.csv` beside this file. What the table holds is not trained
again. Whole trainings are in `results.csv`.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from searches import RECIPES, SIZE

import space
from nas.commands.shared.common import data_spec
from nas.data import DataSpec, load
from nas.latency.machine import lane
from nas.training.trainer import Trainer

HERE = Path(__file__).parent
TABLE = HERE / "fidelity.csv"
HEADER = "network,seed,recipe,epochs,miou"


def main() -> None:
    """Train what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--networks", nargs="+", required=True, metavar="NAME|FILE")
    parser.add_argument("--epochs", nargs="+", type=int, default=[1, 2, 3, 6, 12])
    parser.add_argument("--recipe", choices=RECIPES, default="finals")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time, of one thread each")
    asked = parser.parse_args()
    data = data_spec(asked.data, SIZE)
    if not TABLE.is_file():
        TABLE.write_text(f"{HEADER}\n", "utf-8")
    known = {tuple(line.split(",")[:4]) for line in TABLE.read_text("utf-8").splitlines()}
    tasks = [
        (network, seed, asked.recipe, epochs)
        for seed, epochs, network in itertools.product(range(asked.seeds), asked.epochs, asked.networks)
        if (Path(network).stem, str(seed), asked.recipe, str(epochs)) not in known
    ]
    with ProcessPoolExecutor(asked.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(trained, *task, data) for task in tasks]):
            with TABLE.open("a", encoding="utf-8") as file:
                file.write(f"{done.result()}\n")
            print(done.result(), flush=True)


def trained(network: str, seed: int, recipe_name: str, epochs: int, data: DataSpec) -> str:
    """One training, as a row."""
    recipe = replace(RECIPES[recipe_name], epochs=epochs, seed=seed)
    trainer = Trainer(space.load(network), load(data), recipe, threads=1, guard=lane.shared)
    while not trainer.finished:
        report = trainer.run_epoch()
    return f"{Path(network).stem},{seed},{recipe_name},{epochs},{100 * report.miou:.2f}"


if __name__ == "__main__":
    main()
