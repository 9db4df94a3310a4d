"""A run whose budget was changed: its earlier trainings guide the new proposals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nas.data import DataSpec
from nas.latency.budget import Budget
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.runs.folder import RunFolder
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.search.propose.proposals import Proposals
from nas.search.propose.solving import Solver
from nas.search.search import Candidate, Search
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores
from space.axes import searched
from space.scale import scale_width

ACTIVATIONS = ("relu", "prelu", "relu6")
STUDY = Study(
    data=DataSpec(size=(180, 240)),
    budget="6ms",
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=1, batch_size=4),
    space={  # three points
        **{axis: options[:1] for axis, options in searched().items()},
        "stem.kind": ("cat",),
        "stem.width": (16,),
        "detail": ("none",),
        "context": ("none",),
        "head": ("linear",),
        "factorization": ("none",),
        "stage.stride": (2,),
        "activation": ACTIVATIONS,
    },
    search=SearchPlan(seeds=(), random_trials=0, guided_trials=1),
)


@pytest.fixture
def trained(
    tmp_path: Path, invented: Callable[[float], Latency], search_of: Callable[[RunFolder], Search]
) -> Callable[..., RunFolder]:
    """A run that trained all points of its space for its budget, and scored the `best` higher."""

    def make(best: str, milliseconds: float = 5.9) -> RunFolder:
        run = RunFolder.create(tmp_path / "run", STUDY)
        search, points = search_of(run), STUDY.architectures()
        for number, activation in enumerate(ACTIVATIONS, 1):
            drawn = replace(points.choose(lambda name, options: options[0]), activation=activation)
            architecture, genotype = scale_width(drawn, 2.0), points.genotype(drawn)
            candidate = Candidate(name=activation, origin="guided", architecture=architecture, genotype=genotype)
            trial = search.trial(number, candidate, invented(milliseconds))
            run.write_trial(trial)
            if trial.feasible:
                scores = Scores(miou=0.5 if activation == best else 0.1, class_iou=(0.3,) * 11, pixel_accuracy=0.3)
                append_epoch(
                    run.phase_path(trial, "search"), Epoch(epoch=1, epochs=1, loss=1.0, seconds=1.0, scores=scores)
                )
        return run

    return make


@pytest.fixture
def proposed(
    search_of: Callable[[RunFolder], Search],
    rigid: Callable[[Search, Latency], Solver],
    invented: Callable[[float], Latency],
    arithmetic: Measures,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[RunFolder, str], Trial | None]:
    """The first proposal of a run for a changed budget."""

    def propose(run: RunFolder, budget: str) -> Trial | None:
        run.write_study(STUDY.asking([budget]))
        source = Proposals(search_of(run), arithmetic, None)
        monkeypatch.setattr(source, "_solver", rigid(search_of(run), invented(2.9)))
        return source.next()

    return propose


@pytest.mark.parametrize("best", ACTIVATIONS)
@pytest.mark.parametrize("budget", ["3ms", "12ms"])
def test_the_best_candidate_of_an_earlier_budget_is_proposed_at_the_width_for_the_new_one(
    budget: str, best: str, trained: Callable[..., RunFolder], proposed: Callable[[RunFolder, str], Trial | None]
) -> None:
    run = trained(best)
    found = proposed(run, budget)
    assert found is not None
    (before,) = (trial for trial in run.trials() if trial.name == best)
    assert (found.origin, found.genotype) == ("guided", before.genotype)
    assert found.architecture != before.architecture
    assert found.is_for(Budget.parse(budget))


def test_a_candidate_over_an_earlier_budget_is_not_trained_for_a_larger_one(
    trained: Callable[..., RunFolder], proposed: Callable[[RunFolder, str], Trial | None]
) -> None:
    """Another width of the candidate fills the larger budget."""
    run = trained("relu", milliseconds=7.0)
    found = proposed(run, "12ms")
    assert found is not None
    assert found.number == len(ACTIVATIONS) + 1
