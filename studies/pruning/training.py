r"""How the matrix's networks are trained; and on a GPU, many side by side, what `matrix.py --cut-only` has left.

    python studies/pruning/training.py --camvid ~/camvid --runs runs/pruning --seeds 1 --rate 0.5 \\
        --whole erfnet fplnet ndnet45-ende swiftnet-rn18

trains whole networks that are asked for by `--whole`, and every cut below `--runs` that has no weights yet; give it the
`--rate`, `--epochs` and `--base-epochs` of `matrix.py`. It is the same trainer with the same recipe and random numbers,
also in float32; what was trained is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import space
from nas.data import Dataset, load
from nas.data.dataset import DataSpec
from nas.latency.machine import lane
from nas.training import Recipe, load_recipe
from nas.training.evaluation import evaluate
from nas.training.trainer import Trainer
from nas.training.weights import load_weights, save_weights
from space import Architecture
from space.network import Network

CUT, DESCRIBED, TRAINED, UNFINISHED = "cut.safetensors", "architecture.yaml", "weights.safetensors", "checkpoint.pt"
WHOLE = "whole"
DISTILLED = "distilled"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What every method gets: epochs of whole networks, and of fine-tuning at `rate` times the recipe's."""

    base_epochs: int
    epochs: int
    rate: float

    def whole(self, recipe: Recipe) -> Recipe:
        """Of a whole network."""
        return replace(recipe, epochs=self.base_epochs)

    def tuning(self, recipe: Recipe) -> Recipe:
        """Of a cut network."""
        return replace(recipe, epochs=self.epochs, learning_rate=self.rate * recipe.learning_rate)

    def scratch(self, recipe: Recipe) -> Recipe:
        """Of a small network from scratch: as many epochs as the others get altogether."""
        return replace(recipe, epochs=self.base_epochs + self.epochs)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and for how much networks are trained."""

    dataset: Dataset
    effort: Effort
    device: str = "cpu"

    def whole(self, name: str, recipe: Recipe, folder: Path) -> Network:
        """The whole network of a seed."""
        return self._train(space.load(name), self.effort.whole(recipe), folder)

    def cut(self, recipe: Recipe, folder: Path) -> Network:
        """What a method has left in `folder`: fine-tuned, or from scratch when there is nothing to start from."""
        architecture = space.load(folder / DESCRIBED)
        if not (folder / CUT).is_file():
            return self._train(architecture, self.effort.scratch(recipe), folder)
        teacher = None
        if folder.name.endswith(DISTILLED):
            name = folder.parent.name.rpartition("-")[0]
            teacher = self.whole(name, recipe, folder.parent / WHOLE)
        return self._train(architecture, self.effort.tuning(recipe), folder, load_weights(folder / CUT), teacher)

    def miou(self, network: Network) -> float:
        """On the validation images."""
        threads = torch.get_num_threads()
        found = evaluate(network, self.dataset, device=self.device, threads=threads, guard=lane.shared)
        return found.miou

    def _train(
        self,
        architecture: Architecture,
        recipe: Recipe,
        folder: Path,
        weights: dict[str, torch.Tensor] | None = None,
        teacher: Network | None = None,
    ) -> Network:
        """Train or go on training; the network at the end."""
        network = architecture.build(self.dataset.num_classes)
        finished = folder / TRAINED
        if not finished.is_file():
            trainer = Trainer(
                architecture,
                self.dataset,
                replace(recipe, mixed_precision=False),
                device=self.device,
                weights=weights,
                teacher=teacher,
                threads=torch.get_num_threads(),
                guard=lane.shared,
            )
            checkpoint = folder / UNFINISHED
            folder.mkdir(parents=True, exist_ok=True)
            if checkpoint.is_file():
                trainer.restore(checkpoint)
            while not trainer.finished:
                report = trainer.run_epoch()
                trainer.save(checkpoint)
                print(f"    epoch {report.epoch}/{report.epochs} mIoU {100 * report.miou:.1f} %", flush=True)
            save_weights(finished, trainer.weights(), {"architecture": architecture.key})
            checkpoint.unlink()
        network.load_state_dict(load_weights(finished))
        return network.eval()


def recipe_of(seed: int) -> Recipe:
    """The recipe of all trainings of a seed."""
    return replace(load_recipe("quick"), seed=seed)


def job(place: Place, folder: Path, threads: int) -> str:
    """Train what `folder` holds; a line about it."""
    torch.set_num_threads(threads)
    begun = time.monotonic()
    name, _, seed = folder.parent.name.rpartition("-")
    recipe = recipe_of(int(seed))
    network = place.whole(name, recipe, folder) if folder.name == WHOLE else place.cut(recipe, folder)
    return f"{folder.parent.name}/{folder.name}: mIoU {place.miou(network):.4f}, {time.monotonic() - begun:.0f} s"


def untrained(runs: Path, whole: list[str], seeds: list[int]) -> list[Path]:
    """Folders without weights, those that take longest first."""
    found = [runs / f"{name}-{seed}" / WHOLE for name, seed in itertools.product(whole, seeds)]
    found += [
        described.parent
        for described in sorted(runs.glob(f"*/*/{DESCRIBED}"))
        if described.parent.parent.name.endswith(tuple(f"-{seed}" for seed in seeds))
        and "ours" not in described.parent.name  # `nas prune` trains between its cuts
    ]
    return sorted(
        (folder for folder in found if not (folder / TRAINED).is_file()), key=lambda folder: (folder / CUT).is_file()
    )


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--whole", nargs="*", default=[], help="networks to train whole")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--base-epochs", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning")
    parser.add_argument("--rate", type=float, default=1.0, help="of fine-tuning, times the recipe's")
    parser.add_argument("--size", nargs=2, type=int, default=(120, 160))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--jobs", type=int, default=12, help="side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    options = parser.parse_args()
    place = Place(
        dataset=load(DataSpec(name="camvid", root=options.camvid, size=tuple(options.size))),
        effort=Effort(base_epochs=options.base_epochs, epochs=options.epochs, rate=options.rate),
        device=options.device,
    )
    folders = untrained(options.runs, options.whole, options.seeds)
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(job, place, folder, options.threads) for folder in folders]
        for done in as_completed(jobs):
            print(done.result(), flush=True)


if __name__ == "__main__":
    main()
