"""How long a training step takes: by `nas train`, and by the plain loop that a training script has.

    python studies/throughput/step.py                       # step.csv, of every published network
    python studies/throughput/step.py --networks erfnet --device cuda --size 512x1024 --batch-size 8

The plain loop: float32, plain layout, AdamW updated parameter by parameter, a DataLoader that reads files by Pillow,
the loss read after every step. `nas train` comes as it is and with `--probe`. All train the same network, with its
auxiliary heads, on the same windows of drawn pictures, by the same loss and with the same clipping, on one core (of a
GPU's host too) with one worker. They run epoch by epoch in turns in one process; the first epoch of each is not
counted. The steps of an epoch but the first are timed together, to the end of what is queued on a GPU, waiting for
batches included; medians of epochs are compared.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from loaders import Pictures
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import space
from nas.data import IGNORE, Augmentation, Dataset, DataSpec, class_shares, load
from nas.training import Recipe, load_recipe
from nas.training.compute_mode import ComputeMode
from nas.training.loss import class_weights
from nas.training.probe import fastest_mode
from nas.training.trainer import Trainer

STEPS = 8  # of an epoch
HEADER = ("network", "plain_milliseconds", "ours_milliseconds", "ratio", "probed_milliseconds", "probed_ratio", "mode")


def plain_epochs(architecture: space.Architecture, dataset: Dataset, recipe: Recipe, device: str) -> Iterator[float]:
    """Seconds of a step, epoch after epoch."""
    network = architecture.build(dataset.num_classes, auxiliary=True, training_form=True).to(device).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=False, fused=False
    )
    weights = class_weights(class_shares(dataset).tolist(), recipe.class_weighting).to(device)
    varied = {"flip": recipe.flip, "brightness": recipe.brightness, "contrast": recipe.contrast}
    pictures = Pictures(dataset, Augmentation(crop=dataset.size, scale=recipe.scale, **varied), "Pillow")
    loader = DataLoader(
        pictures, recipe.batch_size, shuffle=True, num_workers=1, persistent_workers=True, pin_memory=device != "cpu"
    )

    def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE)

    while True:
        watch = Watch(device)
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            main, *auxiliary = network.outputs(images)
            loss = loss_of(main, labels)
            for logits, weight in zip(auxiliary, network.auxiliary_weights, strict=True):
                loss = loss + weight * loss_of(logits, labels)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
            optimizer.step()
            loss.item()
            watch.step()
        yield watch.seconds()


class Ours:
    """A training by `nas train`."""

    def __init__(
        self,
        architecture: space.Architecture,
        dataset: Dataset,
        recipe: Recipe,
        device: str,
        mode: ComputeMode | None = None,
    ) -> None:
        self._watch = Watch(device)
        self._trainer = Trainer(
            architecture,
            dataset,
            recipe,
            device=device,
            threads=1,
            count=lambda _: self._watch.step(),
            compute_mode=mode,
        )

    def epochs(self) -> Iterator[float]:
        """Seconds of a step, epoch after epoch, without scoring."""
        while not self._trainer.finished:
            self._watch.begin()
            self._trainer.run_epoch()
            yield self._watch.seconds()


class Watch:
    """Times the steps of an epoch but the first; what comes behind the last, as scoring does, does not count."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device != "cpu"
        self.begin()

    def begin(self) -> None:
        self._steps, self._moments = 0, []

    def step(self) -> None:
        """Another step was taken, or queued."""
        self._steps += 1
        if self._steps in (1, STEPS):
            if self._on_gpu:
                torch.cuda.synchronize()
            self._moments.append(time.perf_counter())

    def seconds(self) -> float:
        first, last = self._moments
        return (last - first) / (STEPS - 1)


def compared(name: str, dataset: Dataset, recipe: Recipe, device: str) -> tuple[str, ...]:
    """A row of the table."""
    architecture = space.load(name)
    mode = fastest_mode(architecture, recipe, dataset.size, dataset.num_classes, device=device)
    usual, probed = (Ours(architecture, dataset, recipe, device, each) for each in (None, mode))
    loops = [plain_epochs(architecture, dataset, recipe, device), usual.epochs(), probed.epochs()]
    for loop in loops:
        next(loop)
    found: list[list[float]] = [[] for _ in loops]
    for _ in range(recipe.epochs - 1):
        for seconds, loop in zip(found, loops, strict=True):
            seconds.append(next(loop))
    plain, *ours = (1e3 * statistics.median(seconds) for seconds in found)
    numbers = [number for each in ours for number in (f"{each:.1f}", f"{plain / each:.2f}")]
    return name, f"{plain:.1f}", *numbers, str(mode)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=space.published())
    parser.add_argument("--size", default="176x240")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("step.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore")  # that Pillow's pixels are not to be written, which nobody does
    size = tuple(map(int, options.size.split("x")))
    images = STEPS * options.batch_size
    dataset = load(DataSpec(name="road_scenes", size=size, train_images=images, validation_images=1))
    recipe = replace(load_recipe("quick"), epochs=options.rounds + 1, batch_size=options.batch_size)
    rows = []
    for name in options.networks:
        rows.append(compared(name, dataset, recipe, options.device))
        print(dict(zip(HEADER, rows[-1], strict=True)), flush=True)
        with options.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


if __name__ == "__main__":
    main()
