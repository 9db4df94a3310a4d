"""Runs with changed but readable values in their files: a search, a report and a resumption work or refuse in words.

Trainings and timings are simulated. The changes are seeded.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

import space
from nas.data import DataSpec
from nas.data.fingerprint import Fingerprint
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.report import summarize
from nas.runs.consistency import require_consistent
from nas.runs.data_seen import hold_to_data
from nas.runs.earlier import take_over
from nas.runs.folder import RunFolder
from nas.runs.table import hold_to_table
from nas.runs.trial import Epoch, Phase, Trial, append_epoch
from nas.runs.trial_network import trained_network
from nas.runs.unreached import give_up
from nas.search.engine import _measure_published, _require_reachable
from nas.search.finish.cutting import parent_of
from nas.search.finish.finishing import all_finalists, last_stages
from nas.search.measure.narrowest import Narrowest
from nas.search.propose.proposals import Proposals
from nas.search.search import Candidate, Search
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores
from space import Architecture, UserError
from space.scale import scale_width

pytestmark = pytest.mark.slow

CHANGES = 20
SIZE, EPOCHS, FINISH = (180, 240), 4, 2
CLASSES = tuple(f"class {index}" for index in range(11))
STUDY = Study(
    data=DataSpec(size=SIZE),
    budget="",
    budgets=("1ms", "3ms", "6ms"),
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=EPOCHS, batch_size=4),
    space={"stages": (2,), "stage.depth": (1, 2)},
    search=SearchPlan(
        seeds=("swiftnet-rn18",), random_trials=2, guided_trials=2, finish_epochs=FINISH, company=("ndnet29-fcn32",)
    ),
)
SEEN = Fingerprint(
    classes=CLASSES, train_images="0", train_labels="1", validation_images="2", validation_labels="3"
)  # of data that do not exist
TABLE = LatencyTable(
    target="onnxruntime@cpu:1", height=SIZE[0], width=SIZE[1], milliseconds={"conv 3x3 multiply_adds": 1e-8},
    unit_milliseconds={"multiply_adds": 1e-8}, networks=100, seconds=1.0, error=0.1, environment={},
)  # fmt: skip
WORDS = ("", "x", "erfnet", "ndnet29-fcn32", "seed", "company", "pruned", "nonbt", "6ms", "10ms", "3ms p90", "p99")
SearchOf = Callable[[RunFolder], Search]


class Arithmetic:
    """A device on which a hundred million multiply-adds take a millisecond."""

    def __init__(self, invented: Callable[[float], Latency]) -> None:
        self._invented = invented

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        return self._invented(0.4 + space.multiply_adds(architecture, SIZE, 11) / 1e8)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]


def train(run: RunFolder, trial: Trial, phase: Phase, until: int, epochs: int) -> None:
    """Record invented epochs of a training."""
    for number in range(len(run.progress(trial, phase).history) + 1, until + 1):
        miou = 0.05 * number + trial.multiply_adds % 97 / 1000
        scores = Scores(miou=miou, class_iou=(miou,) * 11, pixel_accuracy=miou)
        epoch = Epoch(epoch=number, epochs=epochs, loss=1.0, seconds=1.0, scores=scores)
        append_epoch(run.phase_path(trial, phase), epoch)


def go_on(search: Search, meter: Arithmetic, most: int = 100) -> None:
    """All steps of a search that need no weights, with at most `most` trainings of candidates."""
    run, epochs = search.run, search.study.recipe.epochs
    require_consistent(run, search.study)
    _require_reachable(search, Narrowest(meter, search.quick, search.console.progress))
    table = hold_to_table(run, lambda: TABLE)
    _measure_published(search, meter, table)
    proposals = Proposals(search, meter, table)
    for _ in range(most):
        if proposals.waits() or (trial := proposals.next()) is None:
            break
        train(run, trial, "search", trial.until(epochs), epochs)
        proposals.finished(trial, failed="")
    for trial in all_finalists(search):
        train(run, trial, "finish", FINISH, FINISH)
    for stage in last_stages(search, lambda epochs, networks: epochs):
        stage()
    for trial in run.trials():
        if trial.origin == "pruned":
            with suppress(UserError):  # there are no weights
                trained_network(run, parent_of(run, trial), 11)


def cut(search: Search, meter: Arithmetic) -> None:
    """Record a pruned published network."""
    name = "ndnet29-fcn32"
    candidate = Candidate(
        name=f"{name}, pruned", origin="pruned", architecture=scale_width(space.load(name), 0.2), parent=name
    )
    search.run.write_trial(search.trial(search.run.next_number(), candidate, meter.measure(candidate.architecture)))


@pytest.fixture(scope="module")
def meter(invented: Callable[[float], Latency]) -> Arithmetic:
    return Arithmetic(invented)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, meter: Arithmetic, search_of: SearchOf) -> RunFolder:
    """A run for three budgets that has given up one of them and has taken another run over."""
    folder = tmp_path_factory.mktemp("runs")
    first = RunFolder.create(folder / "first", STUDY)
    hold_to_data(first.root, SEEN, root=None, begun=False)
    go_on(search_of(first), meter)
    run = RunFolder.create(folder / "second", STUDY, earlier=[first])
    hold_to_data(run.root, SEEN, root=None, begun=False)
    give_up(run, Budget.parse("1ms"), "nothing is that fast", searched=False)
    take_over(run, run.study(), SEEN, [first])
    go_on(search_of(run), meter, most=5)
    cut(search_of(run), meter)
    return run


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value inside a value, with its path."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key), inner
        yield from places(inner, (*path, key))


def other(value: Any, rng: random.Random) -> Any:
    """Another value, mostly of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        kind = type(value)
        return kind(rng.choice((0, 1, 2, 3, 6, 9, 100, value + 1, value - 1, value * 2, value * 10, value / 10)))
    if isinstance(value, str):
        return rng.choice((*WORDS, f"{value}x"))
    if isinstance(value, list):
        return rng.choice(([], value[1:], value[:-1], [*value, *value[-1:]], value[::-1]))
    if isinstance(value, dict):
        left_out = rng.choice([*value, ""])
        return {key: inner for key, inner in value.items() if key != left_out}
    return rng.choice((0.5, 3, "x"))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = changed(value[path[0]], path[1:], new)
    return copied


def change(root: Path, rng: random.Random) -> str:
    """Change a value in one of a run's files, or replace the file by another of its kind; return a description."""
    files: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.yaml")):
        files.setdefault(file.name, []).append(file)
    alike = files[rng.choice(sorted(files))]
    file = rng.choice(alike)
    if rng.random() < 0.1:
        one = rng.choice(alike)
        file.write_bytes(one.read_bytes())
        return f"{file.relative_to(root)} is {one.relative_to(root)}"
    text = yaml.load(file.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    by_name: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}  # so that frequent values do not dominate
    for path, value in places(text):
        by_name.setdefault(".".join(str(each) for each in path if not isinstance(each, int)), []).append((path, value))
    path, value = rng.choice(by_name[rng.choice(sorted(by_name))])
    new = other(value, rng)
    file.write_text(yaml.safe_dump(changed(text, path, new), sort_keys=False), "utf-8")
    return f"{file.relative_to(root)}: {path}: {str(value)[:60]} is {str(new)[:60]}"


def test_a_run_with_contradicting_files_goes_on_or_is_refused_in_words(
    ended: RunFolder, meter: Arithmetic, search_of: SearchOf, tmp_path: Path
) -> None:
    refused = 0
    for seed in range(CHANGES):
        rng, run, new = random.Random(seed), RunFolder(tmp_path / "run"), tmp_path / "new"
        for folder in (run.root, new):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ended.root, run.root)
        done = change(run.root, rng)

        def taken_over(run: RunFolder = run, new: Path = new) -> None:
            other = RunFolder.create(new, STUDY, earlier=[run])
            take_over(other, STUDY, SEEN, [run])
            go_on(search_of(other), meter, most=1)

        for use in (lambda run=run: summarize(run), lambda run=run: go_on(search_of(run), meter, most=3), taken_over):
            try:
                use()
            except UserError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{seed}: {done}") from error
    assert 0 < refused < 3 * CHANGES
