"""Finds by a short probe how many trainings may share a GPU, where a study says `trials_per_gpu: auto`.

The training steps of a small network leave most of a GPU idle, so that several trainings in parallel are faster than
one after the other. The probe takes the published network of the study that needs the most memory, and trains it on
random images: once, then twice and four times in parallel, each in a separate process, as in a search.
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

COUNTS = (1, 2, 4)  # trainings in parallel; the first number that does not pay ends the probe
WORTH = 1.15
"""Least speedup for which doubling the number of trainings pays. Each training takes longer then, so that its result is
known later."""
WARM_UP = 3  # training steps before the measurement
SECONDS = 5.0  # duration of the measurement
PATIENCE_SECONDS = 180.0  # time for processes to load and warm up


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Speed and memory of trainings in parallel."""

    images_per_second: float
    """Sum over all trainings."""
    most_bytes: int
    """Memory of the largest training, for its steps and for scoring whole images."""


Paces = Callable[[int], Pace | None]
"""Measures the pace of a number of trainings in parallel; None where one of them fails."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How many trainings share a GPU, and why."""

    count: int
    words: str


def choose(paces: Paces, room: int) -> Sharing:
    """The number of trainings that pays and fits into `room` bytes."""
    alone = paces(1)
    if alone is None:
        return Sharing(count=1, words="the training of the probe failed")
    best, count = alone, 1
    words = [f"{alone.images_per_second:.0f} images/s and {alone.most_bytes / 1e9:.1f} GB alone"]
    for more in COUNTS[1:]:
        if more * best.most_bytes > room:
            words.append(f"{more} do not fit into {room / 1e9:.1f} GB")
            break
        pace = paces(more)
        words.append(
            f"{more} in parallel failed" if pace is None else f"{pace.images_per_second:.0f} images/s with {more}"
        )
        if pace is None or pace.images_per_second < WORTH * best.images_per_second:
            break
        best, count = pace, more
    return Sharing(count=count, words=", ".join(words))


def probe(study: Study, num_classes: int, device: str) -> Sharing:
    """The number that pays for a study's trainings on one GPU of this machine."""
    size = study.data.size

    def needed(name: str) -> int:
        return training_bytes(load(name), study.recipe, size, num_classes)

    largest = load(max(study.search.seeds or published(), key=needed))
    work = _Work(architecture=largest, recipe=study.recipe, size=size, num_classes=num_classes, device=device)
    return choose(lambda count: side_by_side(work, count), int(SHARED * whole_bytes(device)))


@dataclass(frozen=True, kw_only=True)
class _Work:
    """The training of each process."""

    architecture: Architecture
    recipe: Recipe
    size: tuple[int, int]
    num_classes: int
    device: str


def side_by_side(work: _Work, count: int, seconds: float = SECONDS) -> Pace | None:
    """The pace of `count` trainings in parallel, measured for some seconds; None where one of them fails."""
    spawning = multiprocessing.get_context("spawn")  # a GPU cannot be used after a fork
    barrier = spawning.Barrier(count)
    receivers, processes = [], []
    try:
        for _ in range(count):
            receiver, sender = spawning.Pipe(duplex=False)
            process = spawning.Process(target=_train, args=(work, seconds, barrier, sender, os.getpid()), daemon=True)
            process.start()
            sender.close()
            receivers.append(receiver)
            processes.append(process)
        paces = [_received(each) for each in receivers]
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


def _received(connection: Connection) -> Pace | None:
    try:
        pace: Pace | None = connection.recv() if connection.poll(PATIENCE_SECONDS) else None
    except EOFError:  # the process failed
        return None
    return pace


def _train(work: _Work, seconds: float, barrier: Barrier, sender: Connection, parent: int) -> None:
    """Runs in each process: warm up, wait for the others, train, and send the pace."""
    end_with(parent)
    import torch

    from nas.training.compute_mode import device_of, usual_mode
    from nas.training.stepper import Stepper

    torch.set_num_threads(1)
    on = device_of(work.device)
    network = work.architecture.build(work.num_classes, auxiliary=True, training_form=True).train()
    mode, crop = usual_mode(network, on, work.recipe), work.recipe.crop_of(work.size)
    network.to(on, memory_format=mode.memory_format)  # type: ignore[call-overload]
    stepper = Stepper(network, work.recipe, mode, on)
    images = torch.randn(work.recipe.batch_size, 3, *crop).to(on)
    labels = torch.randint(work.num_classes, (work.recipe.batch_size, *crop)).to(on)

    guard = lane.shared_on(work.device)

    def take() -> None:
        with guard():
            float(stepper.take(images, labels, 0, 1))  # waits for the GPU

    def score() -> None:
        count = pictures_at_once(work.architecture, work.recipe, work.size, work.num_classes)
        with guard(), torch.inference_mode():
            network.eval()(torch.randn(count, 3, *work.size).to(on)).argmax(1).cpu()
        network.train()

    for _ in range(WARM_UP):
        take()
    score()
    barrier.wait(PATIENCE_SECONDS)
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        take()
        steps += 1
    rate = steps * len(images) / (time.perf_counter() - begin)
    held = torch.cuda.max_memory_reserved(on) if on.type == "cuda" else resident_bytes()
    sender.send(Pace(images_per_second=rate, most_bytes=held))
    sender.close()
