"""Several finish recipes: each is tried, the best finishes all networks, and an interrupted run finds the same one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import space
from nas.data import DataSpec, load
from nas.latency.record import Latency
from nas.report import summarize
from nas.report.page import write_summary
from nas.runs.finish_recipe import FinishRecipe, Tried, read_finish_recipe, tried_path, write_finish_recipe
from nas.runs.folder import RunFolder
from nas.runs.labelling import WEIGHTS
from nas.runs.to_finish import to_finish
from nas.runs.trained import CHECKPOINT
from nas.runs.trial import Epoch, Origin, Phase, Trial, append_epoch, read_progress
from nas.search.console import Console
from nas.search.finish.finishing import last_stages
from nas.search.finish.recipes import begin_finish, begin_tries, finish
from nas.search.search import Search, Workers
from nas.search.train.executor import configured
from nas.search.train.stages import JobSource, Turns, unfinished
from nas.search.train.trial_runner import TrialRunner
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores, Variant
from nas.training.weights import load_weights
from space import UserError
from space.scale import scale_width

RECIPES = (Variant(), Variant(learning_rate=0.02), Variant(ema_decay=0.5, deep_supervision=True, epochs=3))
STUDY = Study(
    data=DataSpec(size=(32, 48), train_images=4, validation_images=2),
    budget="10ms",
    recipe=Recipe(optimizer="adamw", learning_rate=0.005, epochs=1, batch_size=2),
    target="null@cpu:1",
    search=SearchPlan(finalists=1, finish_epochs=2, company=("erfnet-encoder",), finish_recipes=RECIPES),
)
NARROW = scale_width(space.load("ndnet45-fcn32"), 0.1)


class KilledError(Exception):
    """Simulates a killed process."""


@pytest.fixture
def begun(tmp_path: Path, invented: Callable[[float], Latency]) -> Callable[[str, Study], Search]:
    """A search with two timed networks: a candidate inside the budget, and a published network over it."""

    def made(name: str, study: Study) -> Search:
        run = RunFolder.create(tmp_path / name, study)
        wide = scale_width(space.load("erfnet-encoder"), 0.2)
        kinds: Sequence[tuple[str, Origin, space.Architecture, float]] = (
            ("narrow", "random", NARROW, 5.0),
            ("erfnet-encoder", "company", wide, 20.0),
        )
        for name, origin, architecture, milliseconds in kinds:
            latency = invented(milliseconds)
            trial = Trial(
                number=1,
                name=name,
                origin=origin,
                architecture=architecture,
                latency=latency,
                feasible=milliseconds < 10,
                budget_milliseconds=10.0,
                parameters=1,
                multiply_adds=int(1e6 * milliseconds),
            )
            run.write_trial(trial)
        return again(run)

    return made


def again(run: RunFolder) -> Search:
    """The search of a run's folder, as in a new process."""
    study = run.study()
    workers = Workers(concurrent=1, threads=1, device="cpu")
    return Search(run=run, study=study, dataset=load(study.data), workers=workers, console=Console(run, study))


def trained(search: Search, stages: Sequence[JobSource], epochs: int = 10**6) -> list[str]:
    """Train all jobs of the stages, in this process and one after the other; return the trained jobs in order.

    Raises: KilledError after so many epochs.
    """
    turns, order = Turns(stages), []
    while not turns.waits() and (job := turns.next()) is not None:
        tries = "" if job.tries is None else f" {job.tries.place}"
        order.append(f"{job.phase} {job.trial.name}{tries}" + (f" by {job.teacher.name}" if job.teacher else ""))
        runner = TrialRunner(config=configured(job, search.run, search.workers))
        while True:
            result = runner.train()
            assert not result["fault"] + result["advice"], result
            if not result["failed"]:
                turns.now.epoch(job, result["epoch"], result["loss"], result.get("miou"))
                epochs -= 1
            if epochs == 0:
                runner.stop()
                raise KilledError
            if result["done"]:
                break
        turns.end(job, result["epoch"], result["failed"])
        runner.stop()
    return order


def whole(epochs: int, students: Sequence[Trial]) -> int:
    """The epochs of the finish without a time limit."""
    return epochs


def to_the_end(search: Search, epochs: int = 10**6) -> list[str]:
    """The steps of a search after all candidates were proposed."""
    return trained(search, [lambda: unfinished(search, search.run.trials()), *last_stages(search, whole)], epochs)


def ended(run: RunFolder) -> tuple[FinishRecipe | None, list[float | None]]:
    """The chosen recipe, and every score of the finish."""
    trials = (*run.trials(), *run.company())
    return read_finish_recipe(run), [each.miou for one in trials for each in run.progress(one, "finish").history]


@pytest.mark.slow
def test_each_recipe_is_tried_and_the_best_finishes_finalists_and_company(begun, capfd) -> None:
    search = begun("run", STUDY)
    run = search.run
    order = to_the_end(search)
    assert order[:2] == ["search narrow", "search erfnet-encoder"]
    assert order[2:] == [f"finish narrow {place}" for place in range(3)] + ["finish narrow", "finish erfnet-encoder"]
    found = read_finish_recipe(run)
    assert found is not None
    assert found.network == NARROW.key
    assert [each.recipe for each in found.tried] == list(RECIPES)
    assert [each.epochs for each in found.tried] == [1, 1, 1]
    scores = [each.miou for each in found.tried]
    trial, company = run.trials()[0], run.company()[0]
    assert scores == [read_progress(tried_path(run, trial, place)).miou for place in range(3)]
    assert found.chosen == scores.index(max(scores))
    assert len(set(scores)) > 1, "they are different trainings"
    epochs = RECIPES[found.chosen].epochs or 2
    for each in (trial, company):
        assert [one.epoch for one in run.progress(each, "finish").history] == list(range(1, epochs + 1))
        weights = load_weights(run.phase_path(each, "finish") / WEIGHTS)
        each.architecture.build(11).load_state_dict(weights)
    text = capfd.readouterr().out
    assert f"recipe  {RECIPES[found.chosen]} finishes all networks; tried  the study's recipe: " in text
    assert " left  ema_decay 0.5, deep_supervision" not in text, "its length is named too"
    assert " left  epochs 3, ema_decay 0.5, deep_supervision\n" in text
    summary = summarize(run)
    assert summary.finish == found
    page = write_summary(run, summary).read_text()
    assert "Finish recipes" in page
    assert "epochs 3, ema_decay 0.5, deep_supervision" in page
    assert to_the_end(again(run)) == [], "nothing is left to do"


def scored(run: RunFolder, trial: Trial, miou: float, phase: Phase = "search") -> None:
    """Record an epoch of a training with some score."""
    scores = Scores(miou=miou, class_iou=(miou,), pixel_accuracy=miou)
    append_epoch(run.phase_path(trial, phase), Epoch(epoch=1, epochs=1, loss=1.0, seconds=1.0, scores=scores))


def asking(*recipes: Variant) -> Study:
    """The study with other finish recipes."""
    return replace(STUDY, search=replace(STUDY.search, finish_recipes=recipes))


@pytest.mark.slow
def test_a_run_killed_after_every_epoch_ends_as_an_undisturbed_one(begun) -> None:
    whole, killed = begun("whole", STUDY), begun("killed", STUDY)
    order = to_the_end(whole)
    assert order
    for _ in range(30):
        try:
            to_the_end(again(killed.run), epochs=1)
            break
        except KilledError:
            continue
    assert ended(killed.run) == ended(whole.run)
    for one, other in zip(whole.run.trials(), killed.run.trials(), strict=True):
        expected = load_weights(whole.run.weights_path(one))
        found = load_weights(killed.run.weights_path(other))
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_a_recipe_that_breaks_is_not_chosen_and_its_network_goes_on(begun, capfd) -> None:
    search = begun("run", asking(Variant(learning_rate=1e30), Variant()))
    to_the_end(search)
    found = read_finish_recipe(search.run)
    assert found is not None
    assert found.chosen == 1
    assert "expected finite numbers" in found.tried[0].failed
    assert not search.run.trials()[0].failed
    assert search.run.is_done(search.run.trials()[0], "finish")
    assert "expected finite numbers" in capfd.readouterr().out


@pytest.mark.slow
def test_a_teacher_is_finished_before_its_students(begun) -> None:
    taught, alone = begun("taught", asking(Variant(distillation=True))), begun("alone", asking(Variant()))
    for search in (taught, alone):
        run = search.run
        trained(search, [lambda search=search, run=run: unfinished(search, [*run.trials(), *run.company()])])
        scored(run, run.company()[0], 0.9)
    assert to_the_end(taught) == ["finish erfnet-encoder", "finish narrow by erfnet-encoder"]
    assert to_the_end(alone) == ["finish narrow", "finish erfnet-encoder"]
    assert read_finish_recipe(alone.run) is None, "there is nothing to keep of the study's recipe alone"
    ours, theirs = (ended(search.run)[1] for search in (taught, alone))
    assert ours[2:] == theirs[2:], "nobody teaches the largest"
    found = read_finish_recipe(taught.run)
    assert found is not None
    assert found.teachers == {NARROW.key: taught.run.company()[0].architecture.key}
    one, other = (load_weights(search.run.weights_path(search.run.trials()[0])) for search in (taught, alone))
    assert any(not torch.equal(one[name], value) for name, value in other.items())


def test_a_teacher_is_larger_and_more_accurate(begun) -> None:
    recipes = (Variant(), Variant(distillation=True))
    for number, (miou, able) in enumerate(((0.2, False), (0.4, True))):
        search = begun(str(number), asking(*recipes))
        run, company = search.run, search.run.company()[0]
        scored(run, run.trials()[0], 0.3)
        scored(run, company, miou)
        names = [each.name for each in begin_tries(search, run.trials())]
        assert names == (["narrow", "erfnet-encoder"] if able else ["narrow"])
        found = read_finish_recipe(run)
        assert found is not None
        assert found.tried[1].teacher == (company.architecture.key if able else "")
        assert found.tried[1].over == (not able)
        assert found.tried[1].outcome == ("-" if able else "no larger network of the run is more accurate")
        assert not found.tried[0].over
        chosen = replace(found, chosen=1)
        write_finish_recipe(run, chosen)
        teachers = begin_finish(search, [*run.trials(), company], whole)
        assert [each.name for each in teachers] == (["erfnet-encoder"] if able else [])
        scored(run, company, 0.1)
        kept = read_finish_recipe(run)
        assert begin_finish(search, [*run.trials(), company], whole) == teachers
        assert read_finish_recipe(run) == kept, "who teaches stays"


def test_a_run_finishes_all_networks_with_the_recipe_of_the_first(begun, capfd) -> None:
    """A run that an earlier version finished in part has kept no recipe; its networks had that of the study."""
    search = begun("run", STUDY)
    run = search.run
    scored(run, run.trials()[0], 0.3)
    scored(run, run.company()[0], 0.3, "finish")
    assert begin_tries(search, run.trials()) == []
    assert read_finish_recipe(run) == FinishRecipe(tried=(Tried(recipe=Variant()),), chosen=0)
    assert "a run keeps those that it began with" in capfd.readouterr().out
    study = asking(Variant(ema_decay=0.5), Variant())
    chosen = FinishRecipe(tried=(Tried(recipe=Variant(ema_decay=0.5)),), chosen=0)
    write_finish_recipe(run, chosen)
    run.write_study(study)
    assert begin_tries(again(run), run.trials()) == []
    assert begin_finish(again(run), run.trials(), whole) == []
    assert read_finish_recipe(run) == chosen


def test_a_time_limit_shortens_the_finish_of_all_networks_alike_until_one_has_begun(begun, capfd) -> None:
    plan = replace(STUDY.search, finish_epochs=6, minutes=5.0, finish_recipes=None)
    search = begun("run", replace(STUDY, search=plan))
    run = search.run
    networks = [*run.trials(), *run.company()]
    for each in networks:
        scored(run, each, 0.3)

    def four(epochs: int, students: Sequence[Trial]) -> int:
        assert (epochs, list(students)) == (6, networks)
        return 4

    def epochs_of_each() -> list[int]:
        jobs = finish(again(run), networks)
        return [job.epochs(run.study()) for job in iter(jobs.next, None)]

    def left() -> tuple[object, ...]:
        found = to_finish(run, run.study(), search.budgets)
        return found.finalists, found.pruned, found.company

    for stage in last_stages(search, four)[:-1]:
        stage()
    assert "the finish has 4 epochs instead of 6: 5 minutes leave no time for more" in capfd.readouterr().out
    assert epochs_of_each() == [4, 4]
    assert left() == ((6,), (6,), {"erfnet-encoder": 6}), "the length is decided when the finish begins"
    assert begin_finish(again(run), networks, whole) == []
    assert epochs_of_each() == [6, 6], "a resumed run has more time"
    assert begin_finish(again(run), networks, four) == []
    checkpoint = run.phase_path(networks[0], "finish") / CHECKPOINT
    checkpoint.parent.mkdir()
    checkpoint.touch()  # as written before the first epoch counts
    assert begin_finish(again(run), networks, whole) == []
    assert "the finish has 4 epochs, as for the networks of this run" in capfd.readouterr().out
    assert left() == ((4,), (4,), {"erfnet-encoder": 4})
    scored(run, networks[0], 0.3, "finish")
    assert epochs_of_each() == [4, 4]
    assert "The time limit left 4 epochs for the finish of each network" in " ".join(summarize(run).notes)


def test_a_file_that_names_no_network_of_the_run_is_refused(begun) -> None:
    search = begun("run", STUDY)
    tried = tuple(Tried(recipe=each, epochs=1) for each in RECIPES)
    write_finish_recipe(search.run, FinishRecipe(tried=tried, network="0123456789ab"))
    with pytest.raises(UserError, match=r"finish.yaml: expected keys of networks in the run, got 0123456789ab"):
        begin_tries(search, search.run.trials())


def test_a_new_run_spells_out_how_finalists_are_finished(tmp_path: Path) -> None:
    asked = replace(STUDY, search=replace(STUDY.search, finish_recipes=None))
    assert asked.search.finishing == (Variant(),)  # as in a run of an earlier version
    assert asked.begun().search.finish_recipes == (Variant(ohem_probability=0.7),)
    run = RunFolder.create(tmp_path / "run", asked.begun())
    assert "ohem_probability: 0.7" in run.study_path.read_text("utf-8")
    assert run.study().search.finishing == (Variant(ohem_probability=0.7),)


@pytest.mark.parametrize(
    "study",
    [
        STUDY,
        replace(STUDY, search=replace(STUDY.search, finish_recipes=(Variant(),))),
        replace(
            STUDY,
            search=replace(STUDY.search, finish_recipes=None),
            recipe=replace(STUDY.recipe, ohem_probability=0.9),
        ),
        replace(STUDY, search=replace(STUDY.search, finish_recipes=None, finish_epochs=0)),
    ],
    ids=["several", "the study's recipe", "hard examples of its own", "nothing is finished"],
)
def test_a_study_with_its_own_finish_recipes_is_left_unchanged(study: Study) -> None:
    assert study.begun() == study
