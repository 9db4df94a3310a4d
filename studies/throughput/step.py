"""How long a training step takes: by `nas train`, and by the plain loop that a training script has.

    python studies/throughput/step.py                       # step.csv, of every published network
    python studies/throughput/step.py --networks erfnet --device cuda --size 512x1024 --batch-size 8

The plain loop: float32, plain layout, AdamW updated parameter by parameter, a DataLoader that reads files by Pillow,
the loss read after every step. Both train the same network, with its auxiliary heads, on the same windows of drawn
pictures, by the same loss and with the same clipping, on one core (of a GPU's host too) with one worker. They run epoch
by epoch in turns in one process; the first epoch of each is not counted. A step lasts from one to the next, waiting for
its batch included; medians are compared. With `--probe` ours may take another precision and layout (`probe: true`).
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
from itertools import pairwise
from pathlib import Path

import torch
from loaders import Pictures
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import space
from nas.data import IGNORE, Augmentation, Dataset, DataSpec, class_shares, load
from nas.training import Recipe, load_recipe
from nas.training.loss import class_weights
from nas.training.trainer import Trainer

STEPS = 8  # of an epoch
HEADER = ("network", "plain_milliseconds", "ours_milliseconds", "ratio")


def plain_epochs(
    architecture: space.Architecture, dataset: Dataset, recipe: Recipe, device: str
) -> Iterator[list[float]]:
    """Seconds of each step of an epoch, epoch after epoch."""
    network = architecture.build(dataset.num_classes, auxiliary=True, trained=True).to(device).train()
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
        moments = [time.perf_counter()]
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
            moments.append(time.perf_counter())
        yield durations(moments)


def our_epochs(
    architecture: space.Architecture, dataset: Dataset, recipe: Recipe, device: str
) -> Iterator[list[float]]:
    """The same of a training by `nas train`, without its scoring."""
    moments: list[float] = []
    trainer = Trainer(
        architecture, dataset, recipe, device=device, threads=1, count=lambda _: moments.append(time.perf_counter())
    )
    while not trainer.finished:
        moments[:] = [time.perf_counter()]
        trainer.run_epoch()
        yield durations(moments[: STEPS + 1])


def durations(moments: list[float]) -> list[float]:
    """Of what lies between moments, but for what an epoch begins with."""
    return [after - before for before, after in pairwise(moments[1:])]


def compared(name: str, dataset: Dataset, recipe: Recipe, device: str) -> tuple[str, str, str, str]:
    """A row of the table."""
    loops = [make(space.load(name), dataset, recipe, device) for make in (plain_epochs, our_epochs)]
    for loop in loops:
        next(loop)
    found: list[list[float]] = [[], []]
    for _ in range(recipe.epochs - 1):
        for seconds, loop in zip(found, loops, strict=True):
            seconds += next(loop)
    plain, ours = (1e3 * statistics.median(seconds) for seconds in found)
    return name, f"{plain:.1f}", f"{ours:.1f}", f"{plain / ours:.2f}"


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
