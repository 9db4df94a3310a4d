"""How many trainings may share a GPU: found by a short probe, where a study says `trials_per_gpu: auto`.

A small network's steps leave most of a GPU idle, and then several trainings side by side get further than one after the
other. The probe trains the published network of the study that needs the most memory on invented pictures, first alone,
then two and four times side by side, each in a process of its own, as a search does.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from nas.host.parent import end_with
from nas.host.room import SHARED, resident_bytes, whole_bytes
from nas.latency.machine import lane
from nas.study import Study
from nas.training.recipe import Recipe
from nas.training.room import pictures_at_once, training_bytes
from space import Architecture, load, published

COUNTS = (1, 2, 4)  # side by side, of which the first that is not worth it ends the probe
WORTH = 1.15
"""So many times the images of half as many trainings make twice as many worth it: each takes longer, and what it ends
with is known later."""
WARM_UP = 3  # steps
SECONDS = 5.0  # of steps that count
PATIENCE_SECONDS = 180.0  # for processes to load and warm up


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How trainings do side by side."""

    images_per_second: float
    """Of all together."""
    most_bytes: int
    """That one of them holds, for steps and to score whole pictures."""


Paces = Callable[[int], Pace | None]
"""How so many do; None where they do not get through."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How many trainings share a GPU, and why."""

    count: int
    words: str


def choose(paces: Paces, room: int) -> Sharing:
    """As many as are worth it and fit into `room` bytes."""
    alone = paces(1)
    if alone is None:
        return Sharing(count=1, words="the probe's training does not get through")
    best, count = alone, 1
    words = [f"{alone.images_per_second:.0f} images/s and {alone.most_bytes / 1e9:.1f} GB alone"]
    for more in COUNTS[1:]:
        if more * best.most_bytes > room:
            words.append(f"{more} do not fit into {room / 1e9:.1f} GB")
            break
        pace = paces(more)
        words.append(f"{more} together do not run" if pace is None else f"{pace.images_per_second:.0f} by {more}")
        if pace is None or pace.images_per_second < WORTH * best.images_per_second:
            break
        best, count = pace, more
    return Sharing(count=count, words=", ".join(words))


def probe(study: Study, num_classes: int, device: str) -> Sharing:
    """What is worth it for a study's trainings on one GPU of this machine."""
    size = study.data.size

    def needed(name: str) -> int:
        return training_bytes(load(name), study.recipe, size, num_classes)

    largest = load(max(study.search.seeds or published(), key=needed))
    work = _Work(architecture=largest, recipe=study.recipe, size=size, num_classes=num_classes, device=device)
    return choose(lambda count: side_by_side(work, count), int(SHARED * whole_bytes(device)))


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What each process trains."""

    architecture: Architecture
    recipe: Recipe
    size: tuple[int, int]
    num_classes: int
    device: str


def side_by_side(work: _Work, count: int, seconds: float = SECONDS) -> Pace | None:
    """How `count` trainings do side by side for some seconds; None where one of them breaks."""
    spawning = multiprocessing.get_context("spawn")  # a GPU cannot be used after a fork
    together = spawning.Barrier(count)
    heard, processes = [], []
    try:
        for _ in range(count):
            hears, says = spawning.Pipe(duplex=False)
            process = spawning.Process(target=_train, args=(work, seconds, together, says, os.getpid()), daemon=True)
            process.start()
            says.close()
            heard.append(hears)
            processes.append(process)
        paces = [_heard(each) for each in heard]
    finally:
        for process in processes:
            process.kill()
            process.join()
    found = [each for each in paces if each is not None]
    if len(found) < count:
        return None
    return Pace(
        images_per_second=sum(each.images_per_second for each in found),
        most_bytes=max(each.most_bytes for each in found),
    )


def _heard(connection: Connection) -> Pace | None:
    try:
        pace: Pace | None = connection.recv() if connection.poll(PATIENCE_SECONDS) else None
    except EOFError:  # it broke
        return None
    return pace


def _train(work: _Work, seconds: float, together: Barrier, says: Connection, parent: int) -> None:
    """What each process does."""
    end_with(parent)
    import torch

    from nas.training.form import device_of, usual_form
    from nas.training.step import Step

    torch.set_num_threads(1)
    on = device_of(work.device)
    network = work.architecture.build(work.num_classes, auxiliary=True, training_form=True).train()
    form, crop = usual_form(network, on, work.recipe), work.recipe.crop_of(work.size)
    network.to(on, memory_format=form.memory_format)  # type: ignore[call-overload]
    step = Step(network, work.recipe, form, on)
    images = torch.randn(work.recipe.batch_size, 3, *crop).to(on)
    labels = torch.randint(work.num_classes, (work.recipe.batch_size, *crop)).to(on)

    guard = lane.shared_on(work.device)

    def take() -> None:
        with guard():
            float(step.take(images, labels, 0, 1))  # waits for the GPU

    def score() -> None:
        count = pictures_at_once(work.architecture, work.recipe, work.size, work.num_classes)
        with guard(), torch.inference_mode():
            network.eval()(torch.randn(count, 3, *work.size).to(on)).argmax(1).cpu()
        network.train()

    for _ in range(WARM_UP):
        take()
    score()
    together.wait(PATIENCE_SECONDS)
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        take()
        steps += 1
    rate = steps * len(images) / (time.perf_counter() - begin)
    held = torch.cuda.max_memory_reserved(on) if on.type == "cuda" else resident_bytes()
    says.send(Pace(images_per_second=rate, most_bytes=held))
    says.close()
