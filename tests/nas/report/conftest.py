"""A run's folder made by hand: real values and files, invented measurements and learning curves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import space
from nas.data import DataSpec, load
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.runs.certificate import Certificate
from nas.runs.folder import RunFolder
from nas.runs.labelling import Labelling, metadata
from nas.runs.trial import Epoch, Origin, Phase, Progress, Rung, Trial
from nas.runs.unreached import give_up
from nas.storage.files import write_text
from nas.study import SearchPlan, Study
from nas.training import Scores, load_recipe
from nas.training.weights import save_weights
from space import Architecture, strict
from space.scale import scale_width

SIZE = (64, 96)
CLASSES = ("ground", "wall <b>", "sky")
TARGET = "onnxruntime@cpu:1"


def latency_of(milliseconds: float, flagged: tuple[str, ...] = ()) -> Latency:
    return Latency(
        p50_milliseconds=milliseconds,
        p90_milliseconds=milliseconds * 1.1,
        p99_milliseconds=milliseconds * 1.2,
        ci_low_milliseconds=milliseconds * 0.99,
        ci_high_milliseconds=milliseconds * 1.01,
        samples=40,
        ratio=milliseconds / 5,
        ratio_low=milliseconds * 0.99 / 5,
        ratio_high=milliseconds * 1.01 / 5,
        reference_milliseconds=5.0,
        raw_p50_milliseconds=milliseconds,
        target=TARGET,
        height=SIZE[0],
        width=SIZE[1],
        scope="network and arg-max",
        flagged=flagged,
        environment={"cpu": "an invented one"},
    )


def scores_of(miou: float) -> Scores:
    return Scores(miou=miou, class_iou=(miou, None, miou), pixel_accuracy=miou)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A run's folder, and functions that fill it."""

    run: RunFolder

    def trial(
        self,
        number: int,
        name: str,
        origin: Origin,
        architecture: Architecture,
        milliseconds: float,
        search: Sequence[float | None] = (),
        finish: Sequence[float | None] = (),
        *,
        epochs: int = 3,
        flagged: tuple[str, ...] = (),
        stopped: bool = False,
        failed: str = "",
        parent: str = "",
        rungs: Sequence[int] = (),
        budget: float = 10.0,
        encoder: int = 0,
    ) -> Trial:
        """Write a trial with the mIoU of its epochs, None where one was not scored; the search phase has `epochs` of
        them, the finish as many. The first `encoder` of the search phase train the encoder alone.
        """
        trial = Trial(
            number=number,
            name=name,
            origin=origin,
            architecture=architecture,
            latency=latency_of(milliseconds, flagged),
            feasible=milliseconds <= budget,
            budget_milliseconds=budget,
            parameters=space.parameters(architecture, 3),
            multiply_adds=space.multiply_adds(architecture, SIZE, 3),
            genotype={"block": "nonbt"},
            stopped=stopped,
            failed=failed,
            parent=parent,
            rungs=tuple(Rung(epochs=each, number=number, budget_milliseconds=budget) for each in rungs),
        )
        self.run.write_trial(trial)
        phases: tuple[tuple[Phase, Sequence[float | None]], ...] = (("search", search), ("finish", finish))
        for phase, mious in phases:
            if mious:
                history = tuple(
                    Epoch(
                        epoch=index,
                        epochs=epochs,
                        loss=1.0,
                        seconds=2.0,
                        scores=None if miou is None else scores_of(miou),
                        encoder=phase == "search" and index <= encoder,
                    )
                    for index, miou in enumerate(mious, 1)
                )
                write_text(self.run.phase_path(trial, phase) / "progress.yaml", strict.dump(Progress(history=history)))
        return trial

    def winner(self, architecture: Architecture, milliseconds: float, miou: float, *, budget: str = "10ms") -> None:
        """Write a certified winner with untrained weights."""
        study = self.run.study()
        dataset, folder = load(study.data), self.run.winners(study).get(Budget.parse(budget), self.run.winner)
        write_text(folder / "architecture.yaml", architecture.to_yaml())
        weights = architecture.build(dataset.num_classes).state_dict()
        save_weights(folder / "weights.safetensors", weights, metadata(architecture, Labelling.of(dataset)))
        certificate = Certificate(
            architecture=architecture.key,
            certified="2020-01-01T00:00:00+00:00",
            version="0",
            budget=budget,
            passed=milliseconds <= Budget.parse(budget).milliseconds,
            latency=latency_of(milliseconds),
            precision="fp32",
            protocol="invented",
            miou=miou,
            pixel_accuracy=0.9,
            class_iou=dict(zip(dataset.classes, (0.75, None, 0.25), strict=True)),
            scored="not at all",
            data=dataset.name,
            validation_images=len(dataset.validation),
            num_classes=dataset.num_classes,
            input_mean=(0.5, 0.5, 0.5),
            input_std=(0.2, 0.2, 0.2),
            parameters=space.parameters(architecture, dataset.num_classes),
            multiply_adds=space.multiply_adds(architecture, SIZE, dataset.num_classes),
            onnx_images=1,
            onnx_max_abs_difference=1e-6,
            onnx_tolerance=1e-3,
            onnx_same_labels=1.0,
            sha256={"model.onnx": "00"},
        )
        write_text(folder / "certificate.yaml", strict.dump(certificate))


def narrow(factor: float) -> Architecture:
    return scale_width(space.load("ndnet29-fcn32"), factor)


@pytest.fixture
def architecture() -> Callable[[float], Architecture]:
    """A tiny architecture of a width factor; each factor gives another key."""
    return narrow


@pytest.fixture
def latency() -> Callable[[float], Latency]:
    """An invented latency of some milliseconds."""
    return latency_of


def data_in(folder: Path) -> Path:
    root = folder / "data"
    random = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 4)):
        for index in range(count):
            for kind, pixels in (
                ("images", random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)),
                ("labels", random.integers(0, 3, SIZE, dtype=np.uint8)),
            ):
                file = root / split / kind / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def study_of(data: Path) -> Study:
    return Study(
        data=DataSpec(name="folder", root=str(data), size=SIZE),
        budget="10ms",
        recipe=load_recipe("quick"),
        target=TARGET,
        search=SearchPlan(seeds=("erfnet", "ndnet29-fcn32"), random_trials=2, guided_trials=3, company=("erfnet",)),
    )


def made_in(folder: Path, study: Study) -> Made:
    return Made(run=RunFolder.create(folder / "run <i>1", study))


def frontier_of(study: Study) -> Study:
    plan = replace(study.search, seeds=("ndnet29-fcn32",), random_trials=1, guided_trials=1, finalists=1)
    return replace(study, budget="", budgets=("10ms", "5ms", "1ms"), search=plan)


@pytest.fixture
def short() -> Callable[[RunFolder], RunFolder]:
    """A run in which a whole training has three epochs, as trials made by hand have."""

    def with_three_epochs(run: RunFolder) -> RunFolder:
        study = run.study()
        run.write_study(replace(study, recipe=replace(study.recipe, epochs=3)))
        return run

    return with_three_epochs


def copied(whole: RunFolder, made: Made) -> RunFolder:
    """A copy of a run's folder without the study, which names the folder of the data."""
    ignore = shutil.ignore_patterns("study.yaml")
    shutil.copytree(whole.root, made.run.root, ignore=ignore, dirs_exist_ok=True)
    return made.run


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A `folder` data set with four validation pictures."""
    return data_in(tmp_path)


@pytest.fixture
def study(tiny_data: Path) -> Study:
    """A study on the tiny data set."""
    return study_of(tiny_data)


@pytest.fixture
def made(tmp_path: Path, study: Study) -> Made:
    """A run's folder in which nothing has happened yet."""
    return made_in(tmp_path, study)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with every origin and every status; tests must not change it."""
    folder = tmp_path_factory.mktemp("whole")
    made = made_in(folder, study_of(data_in(folder)))
    made.trial(1, "seed <script>alert(1)</script>", "seed", narrow(0.10), 9.5, (0.1, 0.2, 0.31), (0.4, 0.5, 0.55))
    made.trial(2, "random 1", "random", narrow(0.15), 9.0, (0.1, 0.2, 0.33))
    made.trial(3, "random 2", "random", narrow(0.20), 9.1, (0.1, 0.25), stopped=True)
    made.trial(4, "random 3", "random", narrow(0.25), 25.0)
    made.trial(5, "guided 1", "guided", narrow(0.30), 9.8, (0.2, 0.3, 0.35), (0.5, 0.55, 0.60))
    made.trial(
        6, "guided 2", "guided", narrow(0.35), 9.7, (0.2,), failed="loss of nan", flagged=("a noisy & busy host",)
    )
    made.trial(7, "guided 3", "guided", narrow(0.40), 9.6, (0.2, 0.3))
    made.trial(
        1, "erfnet", "company", scale_width(space.load("erfnet-encoder"), 0.1), 30.0, (0.1, 0.2, 0.3), (0.5,) * 3
    )
    made.winner(narrow(0.30), 9.77, 0.6012)
    return made.run


@pytest.fixture
def full(whole: RunFolder, made: Made) -> RunFolder:
    """A finished run with every origin and every status."""
    return copied(whole, made)


@pytest.fixture(scope="session")
def whole_frontier(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run for three budgets, one of which no network reaches; tests must not change it."""
    folder = tmp_path_factory.mktemp("frontier")
    made = made_in(folder, frontier_of(study_of(data_in(folder))))
    run = made.run
    give_up(run, Budget.parse("1ms"), "the narrowest networks take 2.00 ms", searched=False)
    made.trial(1, "small seed", "seed", narrow(0.10), 4.8, (0.2, 0.3, 0.4), (0.4,) * 3, parent="x", budget=5.0)
    made.trial(2, "large seed", "seed", narrow(0.15), 9.7, (0.2, 0.3, 0.5), (0.6,) * 3, parent="x")
    made.trial(3, "random 1", "random", narrow(0.20), 4.6, (0.1, 0.2, 0.3), budget=5.0)
    made.trial(4, "random 2", "random", narrow(0.25), 9.4, (0.1, 0.2, 0.45))
    made.trial(5, "guided 1", "guided", narrow(0.30), 4.7, (0.1, 0.3, 0.35), (0.5,) * 3, budget=5.0)
    made.trial(6, "guided 2", "guided", narrow(0.35), 9.5, (0.1, 0.3, 0.40))
    made.trial(1, "slow", "company", narrow(0.40), 30.0)
    made.winner(narrow(0.30), 4.75, 0.51, budget="5ms")
    made.winner(narrow(0.15), 9.75, 0.61, budget="10ms")
    return run


@pytest.fixture
def frontier(whole_frontier: RunFolder, made: Made) -> RunFolder:
    """A finished run for three budgets, one of which no network reaches."""
    made.run.write_study(frontier_of(made.run.study()))
    return copied(whole_frontier, made)


@pytest.fixture(scope="session")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Two runs of one study, whose second winner has 10 points more in the search phase; tests must not change them."""
    folder = tmp_path_factory.mktemp("seeds")
    study, found = study_of(data_in(folder)), []
    for seed, miou in ((0, 0.4), (1, 0.5)):
        plan = replace(study.search, seed=seed)
        made = Made(run=RunFolder.create(folder / f"seed{seed}", replace(study, search=plan)))
        made.trial(1, "erfnet x0.1", "seed", narrow(0.10), 9.5, (0.1, 0.2, 0.3), (0.3, 0.3, 0.35))
        made.trial(2, "regseg x0.1", "seed", narrow(0.12), 9.5, (0.1, 0.2, 0.2))
        made.trial(3, "random 1", "random", narrow(0.15), 9.0, (0.1,), rungs=(2, 3))
        made.trial(4, "guided 1", "guided", narrow(0.20), 9.0, (0.1, 0.3, miou), (0.5, 0.5, 0.6), rungs=(2, 3))
        made.trial(1, "slow", "company", narrow(0.30), 30.0, (0.3,) * 3, (0.9,) * 3)
        made.trial(1, "fast", "company", narrow(0.05), 3.0, (0.3,) * 3, (0.2, 0.2, 0.45))
        made.winner(narrow(0.20), 9.0, 0.6)
        found.append(made.run)
    return found
