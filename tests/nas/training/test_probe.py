"""The compute mode of a training: modes of a device, the choice of a probe, and the kept mode."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

import space
from nas.runs import epochs
from nas.runs.epochs import commit_epoch, go_on, held_mode
from nas.runs.trained import COMPUTE_MODE
from nas.storage.files import write_text
from nas.training import Recipe, compute_mode, load_recipe
from nas.training.compute_mode import ComputeMode, modes_of, usual_mode
from nas.training.probe import ROUNDS, fastest_mode, step_seconds
from nas.training.trainer import Trainer
from space import strict
from space.errors import ArchitectureError, UserError
from space.paths import ReparameterizedConv
from space.scale import scale_width

RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, epochs=2, batch_size=4, crop=(24, 32), probe=True)
CPU = torch.device("cpu")
PLAIN = ComputeMode(device="cpu", precision="fp32", layout="plain")


def held(folder, architecture, dataset, recipe=RECIPE):
    return held_mode(folder, architecture, dataset, recipe, device="cpu", threads=1, guard=nullcontext)


def test_bfloat16_is_probed_only_if_the_processor_has_it_and_the_recipe_allows_it(architecture, monkeypatch) -> None:
    network = architecture.build(3)

    def found(recipe: Recipe) -> list[tuple[str, str]]:
        return [(each.precision, each.layout) for each in modes_of(network, CPU, recipe)]

    full = [("fp32", "channels_last"), ("fp32", "plain")]
    monkeypatch.setattr(compute_mode, "has_bf16", lambda: False)
    assert found(RECIPE) == full
    monkeypatch.setattr(compute_mode, "has_bf16", lambda: True)
    assert found(RECIPE) == [*full, ("bf16", "channels_last"), ("bf16", "plain")]
    assert found(replace(RECIPE, mixed_precision=False)) == full


def test_a_probe_gives_a_mode_of_the_device_and_leaves_random_numbers_alone(architecture, dataset) -> None:
    entered = []

    def guard():
        entered.append(1)
        return nullcontext()

    before = torch.get_rng_state()
    found = fastest_mode(architecture, RECIPE, dataset.size, 3, guard=guard)
    assert found in modes_of(architecture.build(3), CPU, RECIPE)
    assert len(entered) >= 4, "each mode warms up, and is timed"
    torch.set_rng_state(before)
    fastest_mode(architecture, RECIPE, dataset.size, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("probe", [False, True])
def test_a_timed_step_has_all_parts_of_a_training_step(probe) -> None:
    recipe = replace(load_recipe("quick"), batch_size=2, crop=None, probe=probe)
    rdrnet = scale_width(space.load("rdrnet-s-simple"), 0.05)
    network = rdrnet.build(3, auxiliary=True, training_form=True)
    ran: list[type] = []
    handle = register_module_forward_hook(lambda module, read, given: ran.append(type(module)))
    try:
        assert step_seconds(rdrnet, recipe, (64, 64), 3) > 0
    finally:
        handle.remove()
    expected = [type(module) for module in network.modules()]
    steps = ROUNDS * (len(modes_of(network, CPU, recipe)) if probe else 1)
    assert ran.count(ReparameterizedConv) == steps * expected.count(ReparameterizedConv) > 0
    assert ran.count(torch.nn.BatchNorm2d) == steps * expected.count(torch.nn.BatchNorm2d)
    assert len(network.auxiliary_weights) > 0


def test_a_step_is_timed_in_the_mode_in_which_it_trains(architecture, dataset) -> None:
    recipe, network = replace(RECIPE, probe=False), architecture.build(3)
    layout = usual_mode(network, CPU, recipe).memory_format
    assert layout == torch.channels_last
    first = next(type(module) for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    seen: list[bool] = []

    def see(module, read, given) -> None:
        if type(module) is first:
            seen.append(read[0].is_contiguous(memory_format=layout))

    handle = register_module_forward_hook(see)
    try:
        step_seconds(architecture, recipe, dataset.size, 3)
    finally:
        handle.remove()
    assert seen
    assert all(seen)


def test_a_mode_is_found_before_the_first_step_and_a_kept_mode_counts(architecture, dataset, tmp_path) -> None:
    assert held(tmp_path, architecture, dataset, replace(RECIPE, probe=False)) is None
    assert not (tmp_path / COMPUTE_MODE).exists()
    found = held(tmp_path, architecture, dataset)
    assert strict.parse((tmp_path / COMPUTE_MODE).read_text(), ComputeMode, COMPUTE_MODE) == found
    other = replace(found, layout="plain" if found.layout == "channels_last" else "channels_last")
    write_text(tmp_path / COMPUTE_MODE, strict.dump(other))
    assert held(tmp_path, architecture, dataset) == other
    write_text(tmp_path / COMPUTE_MODE, strict.dump(replace(other, device="cuda")))
    assert held(tmp_path, architecture, dataset).device == "cpu", "the folder came from another device"
    write_text(tmp_path / COMPUTE_MODE, "layout: upside down\n")
    with pytest.raises(UserError, match=COMPUTE_MODE):
        held(tmp_path, architecture, dataset)


def test_a_probe_is_announced_and_does_not_begin_without_memory_for_a_step(
    architecture, dataset, tmp_path, monkeypatch
):
    said: list[str] = []
    began: list[str] = []

    def found(*arguments, **options) -> ComputeMode:
        began.extend(said)
        return PLAIN

    monkeypatch.setattr(epochs, "fastest_mode", found)

    def held_with(recipe: Recipe) -> ComputeMode | None:
        return held_mode(
            tmp_path, architecture, dataset, recipe, device="cpu", threads=1, guard=nullcontext, said=said.append
        )

    with pytest.raises(ArchitectureError, match="in batches of 100000000, which needs"):
        held_with(replace(RECIPE, batch_size=100_000_000))
    assert (said, began) == ([], [])
    assert held_with(RECIPE) == PLAIN
    assert began == ["probes precisions and memory layouts with a few steps of each"]
    assert held_with(RECIPE) == PLAIN
    assert len(said) == 1, "what is kept needs no probe"


@pytest.mark.share(2)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_goes_on_in_its_mode_with_the_same_bits(precision, architecture, dataset, tmp_path) -> None:
    """Any processor can compute in bfloat16, if slowly."""
    kept = replace(PLAIN, precision=precision)

    def make() -> Trainer:
        return Trainer(architecture, dataset, RECIPE, threads=1, compute_mode=kept)

    whole = make()
    while not whole.finished:
        whole.run_epoch()
    first = make()
    first.run_epoch()
    commit_epoch(tmp_path, first)
    second = go_on(make, tmp_path)
    assert second.epoch == 1
    second.run_epoch()
    assert all(torch.equal(each, second.weights()[name]) for name, each in whole.weights().items())
    usual = Trainer(architecture, dataset, RECIPE, threads=1)
    assert usual.compute_mode == ComputeMode(device="cpu", precision="fp32", layout="channels_last")
    usual.run_epoch()
    difference = abs(usual.history[0].loss - whole.history[0].loss)
    assert difference < (1e-4 if precision == "fp32" else 0.1)
    assert (difference > 1e-6) == (precision == "bf16")
