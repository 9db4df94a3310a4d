"""What must not change while the code is moved about: names, sizes and answers of networks, and one search.

`python tests/unchanged/record.py` writes it anew into the files beside this one. That is right only where a change of
results is meant, and then it is said in CHANGELOG.md.
"""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

import space
from space import Architecture, Space
from space.axes import searched
from space.scale import scale_width

FOLDER = Path(__file__).parent
DRAWN = 1000
SEARCHED_NOW = 200
# What there was when it was recorded: with another kind, a seed draws other architectures.
PUBLISHED = (
    "erfnet", "erfnet-encoder", "fplnet", "fplnet-encoder", "ndnet29-fcn32", "ndnet29w-fcn32", "ndnet45-ende",
    "ndnet45-fcn32", "ndnet61-fcn32", "swiftnet-mnv2", "swiftnet-rn18", "swiftnet-rn18-pyramid",
)  # fmt: skip
LATER = {
    "decoder": ("none", "deconv", "cat", "ladder"),
    "head": ("linear", "linear_nobias", "sep", "preact"),
    "head.width": (32, 64),
    "auxiliary": ("none", "linear", "sep"),
    "stem.halvings": (1,),
    "stem.rising": (False,),
    "stem.separable": (False,),
    "stem.image_average": (False,),
    "stage.rates": ("1", "2", "4", "2-4-8-16", "1-2-4-8", "1-2-3-4", "1-2-4-8-16"),
    "stem.bias": (False,),
    "detail": ("none",),
    "context": ("none", "spp"),
    "norm_momentum": (0.1,),
    "head_norm_epsilon": (0.0,),
    "head_norm_momentum": (0.0,),
    "rep": (False,),
    "label_stride": (1,),
    "head.shuffle": (1,),
}
BLOCKS = {"block": ("nonbt", "fpl", "esp", "sep", "inverted"), **LATER, "stage.expansion": (1, 4, 6)}
SEARCHED = {
    "block": ("nonbt", "fpl", "sep"), **LATER, "auxiliary": ("none",), "stages": (2, 3, 4), "stage.expansion": (4,),
}  # fmt: skip
COMPUTED_EVERY = 25  # of the drawn architectures, these are also built and run
CLASSES = 19
SIZE = (64, 96)
NAMES = ("name", "key", "parameters", "multiply_adds", "scaled")
ANSWERS = ("name", "sum", "absolute_sum", "first")
TRIALS = ("name", "key", "milliseconds", "parameters", "mious")

# By TPE, which ranks scores and so proposes the same wherever training rounds differently.
STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 12, validation_images: 4}
budget: 1.5ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.002, epochs: 2, batch_size: 4, score_every: 1}
space:
  {stages: [2], stage.depth: [1, 2], block: [nonbt, fpl, sep], decoder: [none, deconv, cat, ladder],
   head: [linear, linear_nobias, sep, preact], head.width: [32, 64],
   stem.halvings: [1], stem.rising: [false], stem.separable: [false], label_stride: [1], detail: [none],
   context: [none, spp], stage.expansion: [4]}
search:
  {seeds: [ndnet45-fcn32], random_trials: 1, guided_trials: 2, finalists: 1, finish_epochs: 2, finish_recipes: [{}],
   company: [fplnet-encoder], pruned: 1, stop_weak: false, concurrent: 1,
   sampler: tpe, seed: 8}
"""
UNPRUNED = STUDY.replace("pruned: 1", "pruned: 0")
PRUNED = "fplnet-encoder, pruned"


def architectures() -> Iterator[tuple[str, Architecture]]:
    """The published networks; draws of the whole space and of what a search looked at, in turns, as both were when
    it was recorded; and draws of what a search looks at now.
    """
    for name in PUBLISHED:
        yield name, space.load(name)
    spaces = (Space(ranges=BLOCKS, size=(360, 480)), Space(ranges={**searched(), **SEARCHED}, size=(180, 240)))
    for index in range(DRAWN):
        yield f"draw {index}", spaces[index % 2].sample(random.Random(index))
    for index in range(SEARCHED_NOW):
        yield f"searched {index}", Space(ranges=searched(), size=(180, 240)).sample(random.Random(index))


def computed(drawn: Iterable[tuple[str, Architecture]]) -> Iterator[tuple[str, Architecture]]:
    """Those of `architectures` that are small enough to be built and run in a test: all narrowed to a quarter."""
    for index, (name, architecture) in enumerate(drawn):
        if index < len(PUBLISHED) or index % COMPUTED_EVERY == 0:
            yield name, scale_width(architecture, 0.25)


def names(name: str, architecture: Architecture) -> tuple[str, ...]:
    """One architecture's key and sizes, and the key at another width."""
    parameters = space.parameters(architecture, CLASSES)
    multiply_adds = space.multiply_adds(architecture, SIZE, CLASSES)
    return name, architecture.key, str(parameters), str(multiply_adds), scale_width(architecture, 0.7).key


def answers(name: str, architecture: Architecture) -> tuple[str, ...]:
    """What a network with weights of a fixed seed says about a fixed image, in float64."""
    torch.manual_seed(0)
    network = architecture.build(CLASSES).double().eval()
    image = torch.rand(1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(image)
    return name, repr(float(logits.sum())), repr(float(logits.abs().sum())), repr(float(logits[0, 0, 0, 0]))


def search(folder: Path, *, prune: bool = True) -> Iterator[tuple[str, ...]]:
    """A search with a fixed seed on the device that does not exist: every trial, and the winner."""
    (folder / "study.yaml").write_text(STUDY if prune else UNPRUNED)
    command = [sys.executable, "-m", "nas.cli", "search", str(folder / "study.yaml"), "--out", str(folder / "run")]
    done = subprocess.run(command, env=os.environ | {"XDG_CACHE_HOME": str(folder)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    yield from trials(folder / "run")


def trials(folder: Path) -> Iterator[tuple[str, ...]]:
    """Every trial of a finished run, with the published networks that there were, and its winner."""
    from nas.runs.certificate import read_certificate
    from nas.runs.folder import RunFolder

    run = RunFolder.open(folder)
    company = (trial for trial in run.company() if trial.name.partition(",")[0] in PUBLISHED)
    for trial in (*company, *run.trials()):
        epochs = (*run.progress(trial, "search").history, *run.progress(trial, "finish").history)
        yield (
            trial.name,
            trial.architecture.key,
            repr(trial.latency.p50_milliseconds),
            str(trial.parameters),
            " ".join(repr(epoch.scores.miou) for epoch in epochs),
        )
    certificate = read_certificate(run.winner)
    milliseconds = repr(certificate.latency.p50_milliseconds)
    yield "winner", certificate.architecture, milliseconds, str(certificate.parameters), repr(certificate.miou)


def read(file: str) -> list[tuple[str, ...]]:
    """The rows that were written, without the header."""
    with (FOLDER / file).open(newline="", encoding="utf-8") as rows:
        return [tuple(row) for row in csv.reader(rows)][1:]


def write(file: str, header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    """Replace a file beside this one, when all rows are there."""
    found = [header, *rows]
    with (FOLDER / file).open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, lineterminator="\n").writerows(found)


def main() -> None:
    """Record all of it."""
    import tempfile

    torch.set_num_threads(1)
    write("names.csv", NAMES, (names(name, each) for name, each in architectures()))
    write("answers.csv", ANSWERS, (answers(name, each) for name, each in computed(architectures())))
    with tempfile.TemporaryDirectory() as folder:
        write("search.csv", TRIALS, search(Path(folder)))


if __name__ == "__main__":
    main()
