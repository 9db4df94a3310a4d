"""What each part of a recipe is worth: the same networks from scratch with and without it, the same epochs and seeds.

    python studies/camvid/recipes/ablation.py --data camvid:~/camvid --work runs/ablation

trains on CamVid at 120x160 and adds a row to `results.csv` beside this file for each training that it does not hold
yet. A part that costs nothing in the finished network is judged by its mIoU at the same number of epochs; what it costs
in training is in the column `seconds`, to be read only from a machine that was left alone.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

import space
from nas.commands.shared.common import data_spec
from nas.data import Dataset, load
from nas.latency.machine import lane
from nas.training import Recipe, Variant, load_recipe
from nas.training.trainer import Trainer
from nas.training.weights import load_into, load_weights, save_weights
from space import Architecture
from space.scale import scale_width

HERE = Path(__file__).parent
SIZE = (120, 160)
EPOCHS = 12
SEEDS = (0, 1, 2)
TEACHER, TEACHER_EPOCHS = "swiftnet-rn18", 20
HEADER = ("network", "part", "seed", "epochs", "miou", "best_miou", "seconds")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One change of the recipe, or of what is trained by it."""

    recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe
    architecture: Callable[[Architecture], Architecture] = lambda architecture: architecture
    taught: bool = False
    """By a larger network that was trained before."""


def supervised_at_two_places(architecture: Architecture) -> Architecture:
    """With a head on the last stage (or the one before, if the logits are its) and on the one before that."""
    return Variant(deep_supervision=(0.4, 0.4)).trains(replace(architecture, auxiliary=()))


NETWORKS = {
    "ndnet45-ende": lambda: space.load("ndnet45-ende"),
    "rdrnet-s-simple x 0.5": lambda: scale_width(space.load("rdrnet-s-simple"), 0.5),
}
PARTS = {
    "quick": Part(),
    "ohem 0.7": Part(recipe=lambda recipe: replace(recipe, ohem_probability=0.7)),
    "ema 0.99": Part(recipe=lambda recipe: replace(recipe, ema_decay=0.99)),
    "class-uniform 0.5": Part(recipe=lambda recipe: replace(recipe, class_uniform=0.5)),
    "equal class weights": Part(recipe=lambda recipe: replace(recipe, class_weighting=None)),
    "no auxiliary head": Part(architecture=lambda architecture: replace(architecture, auxiliary=())),
    "auxiliary heads at two places": Part(architecture=supervised_at_two_places),
    "one path": Part(architecture=lambda architecture: replace(architecture, rep=False)),
    "pixel shuffle": Part(
        architecture=lambda architecture: replace(architecture, head=replace(architecture.head, shuffle=2))
    ),
    "labels at half the size": Part(architecture=lambda architecture: replace(architecture, label_stride=2)),
    "distillation": Part(taught=True),
}
OF_NETWORK = {
    "ndnet45-ende": [name for name in PARTS if name != "one path"],
    "rdrnet-s-simple x 0.5": ["quick", "one path"],
}


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--work", type=Path, required=True, help="where the teacher and unfinished trainings are kept")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    options = parser.parse_args()
    dataset = load(data_spec(options.data, SIZE))
    table = HERE / "results.csv"
    done = set()
    if table.is_file():
        with table.open(encoding="utf-8") as file:
            done = {(row["network"], row["part"], int(row["seed"])) for row in csv.DictReader(file)}
    else:
        table.write_text(",".join(HEADER) + "\n", encoding="utf-8")
    for seed in SEEDS:
        for network, parts in OF_NETWORK.items():
            for part in parts:
                if part in options.parts and (network, part, seed) not in done:
                    row = (network, part, seed, *trained(network, PARTS[part], seed, dataset, options.work))
                    with table.open("a", newline="", encoding="utf-8") as file:
                        csv.writer(file, lineterminator="\n").writerow(row)


def trained(network: str, part: Part, seed: int, dataset: Dataset, work: Path) -> tuple[int, str, str, str]:
    """Epochs, last and best mIoU in percent, and seconds of one training."""
    recipe = part.recipe(replace(load_recipe("quick"), epochs=EPOCHS, seed=seed))
    teacher = teacher_of(dataset, work) if part.taught else None
    trainer = Trainer(
        part.architecture(NETWORKS[network]()), dataset, recipe, threads=1, teacher=teacher, guard=lane.shared
    )
    begun = time.monotonic()
    while not trainer.finished:
        trainer.run_epoch()
    scores = [report.miou for report in trainer.history]
    seconds = time.monotonic() - begun
    return EPOCHS, f"{100 * scores[-1]:.2f}", f"{100 * max(scores):.2f}", f"{seconds:.0f}"


def teacher_of(dataset: Dataset, work: Path) -> nn.Module:
    """The larger network, trained once."""
    file, architecture = work / f"{TEACHER}.safetensors", space.load(TEACHER)
    if not file.is_file():
        recipe = replace(load_recipe("quick"), epochs=TEACHER_EPOCHS, seed=100)
        trainer = Trainer(architecture, dataset, recipe, threads=1, guard=lane.shared)
        while not trainer.finished:
            trainer.run_epoch()
        work.mkdir(parents=True, exist_ok=True)
        save_weights(file, trainer.weights(), {"miou": f"{trainer.history[-1].miou:.4f}"})
    network = architecture.build(dataset.num_classes)
    load_into(network, load_weights(file), str(file))
    return network


if __name__ == "__main__":
    main()
