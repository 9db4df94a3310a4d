"""A training learns, and resuming it after any epoch does not change its result."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from nas.data import make_loader
from nas.errors import TrainingError
from nas.training import Recipe, load_recipe
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.evaluation import evaluate
from nas.training.recipe import Boundary
from nas.training.trainer import Trainer
from nas.training.weights import load_weights
from space import Architecture, load, strict
from space.errors import UserError

RECIPE = Recipe(
    optimizer="adamw",
    learning_rate=0.01,
    weight_decay=0.01,
    epochs=4,
    batch_size=4,
    warmup_steps=2,
    crop=(24, 32),
    scale=(0.8, 1.2),
    class_weighting=1.1,
    gradient_clip=5.0,
    batch_norm_batches=2,
    seed=3,
)

GO_ON = """
import json, sys
from pathlib import Path
import space
from nas.data import Dataset, Split
from nas.training import load_recipe
from nas.training.recipe import Boundary
from nas.training.trainer import Trainer
from nas.training.weights import save_weights

folder = Path(sys.argv[1])
values = json.loads((folder / "dataset.json").read_text())
for name in ("train", "validation"):
    paths = values[name]
    values[name] = Split(images=tuple(map(Path, paths["images"])), labels=tuple(map(Path, paths["labels"])))
for name in ("classes", "palette", "label_map", "size"):
    values[name] = tuple(values[name])
architecture = space.load(folder / "architecture.yaml")
trainer = Trainer(architecture, Dataset(**values), load_recipe(folder / "recipe.yaml"), threads=1)
trainer.restore(folder / "checkpoint.pt")
while not trainer.finished:
    trainer.run_epoch()
save_weights(folder / "weights.safetensors", trainer.weights(), {})
"""


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def train(trainer: Trainer, epochs: int) -> Trainer:
    for _ in range(epochs):
        trainer.run_epoch()
    return trainer


@pytest.fixture(scope="module")
def straight(architecture, dataset) -> Trainer:
    """A training of four epochs without a stop."""
    return train(Trainer(architecture, dataset, RECIPE, threads=1), 4)


def test_a_training_pauses_at_a_rung_and_goes_on_with_another_schedule(architecture, dataset, tmp_path) -> None:
    """Each rung ends as a training of so many epochs does, also after being killed and restored in between."""
    rates: list[float] = []

    class Watched(Trainer):
        def run_epoch(self):
            report = super().run_epoch()
            rates.append(self.learning_rate)
            return report

    short = train(Trainer(architecture, dataset, replace(RECIPE, epochs=1), threads=1), 1)
    paused = Watched(architecture, dataset, RECIPE, threads=1, rungs=(1,))
    train(paused, 1)
    assert paused.finished
    assert same(paused.weights(), short.weights()), "as the short schedule ends"
    paused.save(tmp_path / "checkpoint.pt")
    restored = Watched(architecture, dataset, RECIPE, threads=1, rungs=(1, 3))
    restored.restore(tmp_path / "checkpoint.pt")
    assert not restored.finished
    train(restored, 2)
    assert restored.finished
    assert [report.epochs for report in restored.history] == [4, 4, 4], "it is no whole training"
    assert rates[0] < rates[1] > rates[2], "warm again, and annealed again"
    at_once = train(Trainer(architecture, dataset, RECIPE, threads=1, rungs=(1, 3)), 3)
    assert same(restored.weights(), at_once.weights())


def test_a_training_learns(architecture, dataset) -> None:
    recipe = replace(RECIPE, crop=None, scale=(1.0, 1.0), epochs=15, learning_rate=0.03)
    trainer = Trainer(architecture, dataset, recipe, threads=1)
    reports = []
    while not trainer.finished:
        reports.append(trainer.run_epoch())
    assert [report.epoch for report in reports] == list(range(1, 16))
    assert reports[0].epochs == 15
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert reports[-1].scores.miou > 0.6
    assert len(reports[-1].scores.class_iou) == 3
    assert all(report.seconds > 0 for report in reports)
    with pytest.raises(AssertionError, match=r"finished"):
        trainer.run_epoch()


@pytest.mark.share(6)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"optimizer": "sgd", "ema_decay": 0.9, "ohem_probability": 0.7},
        {"optimizer": "adam", "batch_norm_batches": 0, "ema_decay": 0.5},
        {"class_uniform": 0.5, "boundary": Boundary(distances=(3.0, 6.0), weights=(3.0, 2.0, 1.0), focus=0.5)},
    ],
)
def test_a_saved_and_restored_training_ends_with_the_same_bits(architecture, dataset, tmp_path, change) -> None:
    recipe = replace(RECIPE, **change)
    whole = train(Trainer(architecture, dataset, recipe, threads=1), 4)
    train(Trainer(architecture, dataset, recipe, threads=1), 2).save(tmp_path / "checkpoint.pt")
    torch.manual_seed(99)  # other work in the process must not matter
    second = Trainer(architecture, dataset, recipe, threads=1)
    second.restore(tmp_path / "checkpoint.pt")
    assert second.epoch == 2
    assert not second.finished
    train(second, 2)
    assert same(whole.weights(), second.weights())


@pytest.mark.slow
def test_a_training_resumed_in_another_process_ends_with_the_same_bits(
    straight, architecture, dataset, tmp_path
) -> None:
    train(Trainer(architecture, dataset, RECIPE, threads=1), 2).save(tmp_path / "checkpoint.pt")
    (tmp_path / "architecture.yaml").write_text(architecture.to_yaml())
    (tmp_path / "recipe.yaml").write_text(strict.dump(RECIPE))
    (tmp_path / "dataset.json").write_text(json.dumps(strict.plain(dataset), default=str))
    subprocess.run([sys.executable, "-c", GO_ON, str(tmp_path)], check=True)
    assert same(straight.weights(), load_weights(tmp_path / "weights.safetensors"))


@pytest.mark.share(2)
@pytest.mark.parametrize(("name", "recipe_name"), [("fplnet", "fplnet"), ("ndnet45-ende", "ndnet")])
def test_published_networks_train_with_their_recipes(dataset, name, recipe_name) -> None:
    recipe = load_recipe(recipe_name)
    trainer = Trainer(load(name), dataset, recipe, threads=1)
    report = trainer.run_epoch()
    assert report.epochs == recipe.epochs
    assert math.isfinite(report.loss)
    assert trainer.weights().keys() == load(name).build(3).state_dict().keys()


def test_training_leaves_the_global_random_state_alone(architecture, dataset) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(Trainer(architecture, dataset, RECIPE, threads=1), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_differ_and_repeat(straight, architecture, dataset) -> None:
    again = train(Trainer(architecture, dataset, RECIPE, threads=1), 4)
    other = train(Trainer(architecture, dataset, replace(RECIPE, seed=4), threads=1), 4)
    assert same(straight.weights(), again.weights())
    assert not same(straight.weights(), other.weights())


def test_a_checkpoint_holds_no_pickled_objects(straight, tmp_path) -> None:
    straight.save(tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_training_is_refused_with_the_differences(straight, architecture, dataset, tmp_path):
    path = tmp_path / "checkpoint.pt"
    straight.save(path)
    other = Trainer(architecture, dataset, replace(RECIPE, learning_rate=0.5), threads=1)
    with pytest.raises(
        UserError, match=r"another recipe: learning_rate: 0.01 in the checkpoint, learning_rate: 0.5 here"
    ):
        other.restore(path)
    wider = Architecture.from_yaml(architecture.to_yaml().replace("width: 16", "width: 20"))
    with pytest.raises(UserError, match=r"another architecture: key: .*width: 16 in the checkpoint.*width: 20 here"):
        Trainer(wider, dataset, RECIPE, threads=1).restore(path)
    fewer = replace(dataset, train=dataset.validation)
    with pytest.raises(
        UserError, match=r"another data set: training images: 8 in the checkpoint, training images: 4 here"
    ):
        Trainer(architecture, fewer, RECIPE, threads=1).restore(path)
    assert other.epoch == 0


def test_a_checkpoint_of_a_version_with_fewer_keys_in_recipes_can_be_resumed(straight, architecture, dataset, tmp_path):
    path = tmp_path / "checkpoint.pt"
    straight.save(path)
    lines = [line for line in strict.dump(RECIPE).splitlines() if not line.startswith(("ohem_", "ema_"))]
    assert len(lines) == len(strict.dump(RECIPE).splitlines()) - 3
    known = load_checkpoint(path, {})
    save_checkpoint(path, replace(known, identity={**known.identity, "recipe": "\n".join(lines)}))
    later = Trainer(architecture, dataset, RECIPE, threads=1)
    later.restore(path)
    assert same(later.weights(), straight.weights())


def test_the_average_over_the_steps_is_scored_and_kept(architecture, dataset) -> None:
    """It is compared with a training without an average, with known weights after each of its epochs of one step."""
    recipe = replace(RECIPE, batch_size=8, epochs=3, batch_norm_batches=0)
    plain = Trainer(architecture, dataset, recipe, threads=1)
    after = [(plain.run_epoch(), plain.weights())[1] for _ in range(3)]
    trainer = Trainer(architecture, dataset, replace(recipe, ema_decay=0.15), threads=1)
    report = [trainer.run_epoch() for _ in range(3)][-1]
    for name, kept in trainer.weights().items():
        if not kept.is_floating_point():
            assert torch.equal(kept, after[-1][name])
            continue
        wanted = after[0][name]
        for share, each in zip((0.15, 0.15), after[1:], strict=True):  # below (1 + 1) / (10 + 1)
            wanted = share * wanted + (1 - share) * each[name]
        torch.testing.assert_close(kept, wanted, rtol=1e-5, atol=1e-7)
    network = architecture.build(3)
    network.load_state_dict(trainer.weights())
    assert evaluate(network, dataset, batch_size=8).miou == pytest.approx(report.scores.miou, abs=1e-6)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_damaged_checkpoint_is_refused(straight, architecture, dataset, tmp_path, keep) -> None:
    path = tmp_path / "checkpoint.pt"
    straight.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match=r"checkpoint.pt: expected a checkpoint, got something else or a damaged file"):
        Trainer(architecture, dataset, RECIPE, threads=1).restore(path)


def test_a_shortage_of_memory_is_no_damage_of_a_checkpoint(straight, architecture, dataset, tmp_path) -> None:
    straight.save(tmp_path / "checkpoint.pt")
    other = Trainer(architecture, dataset, RECIPE, threads=1)
    other.network.register_load_state_dict_post_hook(lambda *_: torch.empty(2**50, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="allocate"):
        other.restore(tmp_path / "checkpoint.pt")


def test_a_missing_checkpoint_is_named(straight, tmp_path) -> None:
    with pytest.raises(UserError, match=r"nothing.pt: expected a checkpoint, got no such file"):
        straight.restore(tmp_path / "nothing.pt")


def test_a_pickled_checkpoint_is_not_opened(straight, tmp_path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "network": print}, path)
    with pytest.raises(UserError, match=r"evil.pt: expected a checkpoint"):
        straight.restore(path)


def test_trained_weights_are_those_of_the_inference_network(straight, architecture, dataset) -> None:
    network = architecture.build(dataset.num_classes)
    network.load_state_dict(straight.weights())
    assert evaluate(network, dataset, batch_size=3) == evaluate(straight.network, dataset, batch_size=4)
    assert any("auxiliary" in name for name in straight.network.state_dict())


def test_training_can_start_from_weights(straight, architecture, dataset) -> None:
    weights = straight.weights()
    trainer = Trainer(architecture, dataset, RECIPE, threads=1, weights=weights)
    assert same(trainer.weights(), weights)
    name = next(iter(weights))
    with pytest.raises(UserError, match=rf"{name} of shape"):
        Trainer(architecture, dataset, RECIPE, threads=1, weights={**weights, name: torch.zeros(1)})


def test_distillation_brings_the_student_closer_to_its_teacher(straight, architecture, dataset) -> None:
    recipe = replace(RECIPE, epochs=2, seed=11)
    images, _ = next(make_loader(dataset, "validation", batch_size=4, augmentation=None).epoch(0))

    def distance(teacher: torch.nn.Module | None, weight: float) -> float:
        trainer = Trainer(
            architecture, dataset, replace(recipe, distillation_weight=weight), threads=1, teacher=teacher
        )
        train(trainer, 2)
        with torch.no_grad():
            return (trainer.network.eval()(images) - straight.network.eval()(images)).abs().mean().item()

    assert distance(straight.network, 10.0) < distance(None, 10.0) == distance(straight.network, 0.0)


def test_every_trained_or_scored_image_is_counted_once(architecture, dataset) -> None:
    """Smaller last batches count too; images of statistics and of batches made ahead do not."""
    told: list[tuple[str, int]] = []

    def count(images: int) -> None:
        told.append((threading.current_thread().name, images))

    trainer = Trainer(architecture, dataset, replace(RECIPE, batch_size=3), threads=1, count=count)
    trainer.run_epoch()
    assert [images for _, images in told] == [3, 3, 2, 3, 1]  # 8 trained, 4 scored
    assert {name for name, _ in told} == {threading.main_thread().name}


def test_the_guard_is_open_whenever_the_device_works(architecture, dataset) -> None:
    entered, inside, worked = [], [], []

    @contextmanager
    def guard():
        entered.append(1)
        here = threading.current_thread()
        inside.append(here)
        yield
        inside.remove(here)

    trainer = Trainer(architecture, dataset, RECIPE, threads=1, guard=guard)
    created = len(entered)
    assert created  # class pixels are counted a few labels at a time
    for layer in trainer.network.modules():
        layer.register_forward_hook(lambda *_: worked.append(inside.count(threading.main_thread())))
    trainer.run_epoch()
    steps, normalised, scored = 2, 2, 1
    assert len(entered) - created == 2 * (steps + normalised + scored)  # made in one, used in another
    assert worked
    assert set(worked) == {1}
    assert not inside


def test_a_diverging_training_is_an_error(architecture, dataset) -> None:
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=1e30, gradient_clip=None, warmup_steps=0)
    with pytest.raises(UserError, match=r"epoch 1, step 2 of .*expected finite numbers.*lower the learning rate"):
        train(Trainer(architecture, dataset, recipe, threads=1), 4)


def test_logits_with_nan_are_an_error_during_scoring(architecture, dataset) -> None:
    """The loss stays finite: training normalises by the batch, and scoring by statistics beyond float32."""
    state = architecture.build(3).state_dict()
    means = next(name for name in state if name.endswith("running_mean"))
    trainer = Trainer(
        architecture,
        dataset,
        replace(RECIPE, batch_norm_batches=0),
        threads=1,
        weights={**state, means: torch.full_like(state[means], -3e38)},
    )
    with pytest.raises(TrainingError, match=rf"epoch 1 of {architecture.key}: expected finite logits.*lower learning"):
        trainer.run_epoch()


def test_a_missing_device_is_refused(architecture, dataset) -> None:
    with pytest.raises(UserError, match=r"got 'cuda:99' but torch sees \d+ GPUs?; use 'cpu'"):
        Trainer(architecture, dataset, RECIPE, device="cuda:99")
    with pytest.raises(UserError, match=r"expected 'cpu', 'cuda' or 'cuda:0', got 'gpu'"):
        Trainer(architecture, dataset, RECIPE, device="gpu")


@pytest.mark.gpu
def test_mixed_precision_learns_and_resumes_on_a_gpu(architecture, dataset, tmp_path) -> None:
    recipe = replace(RECIPE, crop=None, scale=(1.0, 1.0), epochs=40)
    trainer = train(Trainer(architecture, dataset, recipe, device="cuda"), 20)
    trainer.save(tmp_path / "checkpoint.pt")
    again = Trainer(architecture, dataset, recipe, device="cuda")
    again.restore(tmp_path / "checkpoint.pt")
    assert same(trainer.weights(), again.weights())
    assert train(again, 19).run_epoch().scores.miou > 0.6
