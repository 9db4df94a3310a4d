"""The number of images on which a network's channels are scored at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

import space
from nas.data import DataSpec, load
from nas.prune.plan import PruningPlan
from nas.prune.tuning import FineTuning
from nas.prune.weighing import ANSWERS, SPARE, weighed
from nas.terminal import ProgressLine
from nas.training import load_recipe
from space.count import FLOAT_BYTES, memory
from space.network import Network
from space.scale import scale_width

SIZE = (32, 48)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("free", "importance", "scored", "compared"),
    [
        (3, "taylor", {3, 4}, {2, 3}),
        (0, "fisher", {1}, {2, 3}),
        (10_000, "taylor", {7}, {7}),
    ],
)
def test_images_are_scored_in_batches_that_fit_into_memory(
    free: int, importance: str, scored: set[int], compared: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory for `free` of seven images without gradients, the batches have the given sizes."""
    torch.manual_seed(0)
    network = scale_width(space.load("ndnet29-fcn32"), 0.1).build(11).eval()
    dataset = load(DataSpec(size=SIZE, train_images=7, validation_images=1))
    tuning = FineTuning(dataset=dataset, recipe=replace(load_recipe("quick"), batch_size=7))
    answers = free * ANSWERS * FLOAT_BYTES * 11 * math.prod(SIZE)
    needed = memory(network.architecture, SIZE, 11).inference_bytes(free) + answers if free else 0
    monkeypatch.setattr("nas.host.memory.free_bytes", lambda device: SPARE * needed)
    seen: dict[bool, set[int]] = {True: set(), False: set()}  # batch sizes with and without gradients
    said: list[str] = []
    hook = register_module_forward_pre_hook(
        lambda module, inputs: (
            seen[torch.is_grad_enabled()].add(len(inputs[0])) if isinstance(module, Network) else None
        )
    )
    plan = PruningPlan(epochs=0, importance=importance, depth=False)
    try:
        found = weighed(network, plan, tuning, said.append, ProgressLine(silent=True))
    finally:
        hook.remove()
    assert seen == {True: scored, False: compared}
    few = {"scored on 4 of 7 images": 4 in scored, "compared on 3 of 7 images": free < 7}
    assert [words in "".join(said) for words in few] == list(few.values())
    assert len(said) == sum(few.values())
    assert not found.damage.blocks
