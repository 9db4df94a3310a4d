"""Do hard examples and auxiliary heads help where networks are finished, which begin with the weights of a short
training?

    python studies/camvid/recipes/finishing.py [--data camvid:~/camvid]

trains published networks, scaled, for 2 epochs as candidates of a search are, then finishes each from the same
weights: by the recipe `quick`; by it with `ohem_probability: 0.7`; and with an auxiliary head too, where a network has
none of its own. On the built-in road scenes as `nas search` without a study has them, 6 epochs; or on CamVid at
120x160, 12 epochs. A row for each goes into `finishing.csv` beside this file.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import space
from nas.commands.shared.common import data_spec
from nas.data import load
from nas.latency.machine import lane
from nas.study import built_in_study
from nas.training import load_recipe
from nas.training.trainer import Trainer
from nas.training.variant import Variant
from space.scale import scale_width

HERE = Path(__file__).parent
HEADER = ("data", "network", "seed", "ohem_probability", "deep_supervision", "epochs", "before", "miou")
NETWORKS = (("ndnet45-ende", 1.0), ("swiftnet-rn18", 0.3), ("fast-scnn", 1.0), ("stdc1", 0.3))
SEEDS = (0, 1, 2)
VARIANTS = (Variant(), Variant(ohem_probability=0.7), Variant(ohem_probability=0.7, deep_supervision=True))
SHORT = 2  # epochs of a candidate


def main() -> None:
    """Train what the table does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="camvid:DIR", help="instead of the built-in road scenes")
    options = parser.parse_args()
    if options.data:
        spec, recipe, epochs = data_spec(options.data, (120, 160)), load_recipe("quick"), 12
    else:
        study = built_in_study("10ms")
        spec, recipe, epochs = study.data, study.recipe, study.search.finish_epochs
    dataset, table = load(spec), HERE / "finishing.csv"
    if not table.is_file():
        table.write_text(",".join(HEADER) + "\n", encoding="utf-8")
    with table.open(encoding="utf-8") as file:
        done = {(row["data"], row["network"], int(row["seed"])) for row in csv.DictReader(file)}
    for seed in SEEDS:
        for name, factor in NETWORKS:
            network = f"{name} x{factor:g}"
            if (spec.name, network, seed) in done:
                continue
            architecture = scale_width(space.load(name), factor)
            short = Trainer(
                architecture, dataset, replace(recipe, epochs=SHORT, seed=seed), threads=1, guard=lane.shared
            )
            before = trained(short)
            rows = []
            for variant in VARIANTS:
                if variant.deep_supervision and architecture.auxiliary:
                    continue
                finishing = variant.of(replace(recipe, epochs=epochs, seed=seed))
                finished = variant.trains(architecture)
                weights = short.weights()
                trainer = Trainer(finished, dataset, finishing, threads=1, weights=weights, guard=lane.shared)
                told = finishing.ohem_probability, variant.deep_supervision
                rows.append((spec.name, network, seed, *told, epochs, before, trained(trainer)))
            with table.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)


def trained(trainer: Trainer) -> str:
    """mIoU in percent at the end of a training."""
    while not trainer.finished:
        trainer.run_epoch()
    return f"{100 * trainer.history[-1].miou:.2f}"


if __name__ == "__main__":
    main()
