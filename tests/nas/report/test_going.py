"""The progress of a run in its report: counts of candidates, and steps still to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nas.report import summarize, write_report
from nas.report.going import going_words
from nas.runs.finish_recipe import FinishRecipe, Tried, write_finish_recipe
from nas.runs.folder import RunFolder
from nas.storage.files import OWNER
from nas.storage.ownership import owned
from nas.training import Variant
from space import Architecture

CERTIFY = "time the best network again and certify it"


def planned(run: RunFolder, **changes: object) -> None:
    """Change the plan of a run's search."""
    study = run.study()
    run.write_study(replace(study, search=replace(study.search, **changes)))


def test_a_new_run_lists_all_its_steps_as_still_to_come(made) -> None:
    planned(made.run, stop_weak=False)
    going = summarize(made.run).going
    assert (going.trained, going.under_way, going.waiting, going.failed, going.over_budget) == (0, 0, 0, 0, 0)
    assert going.steps == (
        "propose, time and train 7 more candidates",  # two seeds, two random and three guided candidates
        "train the best 2 candidates for 20 more epochs",
        "train 1 published network for as long",
        "prune up to 2 published networks into the budget",
        CERTIFY,
    )


def test_every_trial_is_counted_by_its_status(made, architecture: Callable[[float], Architecture]) -> None:
    planned(made.run, sampler="tpe", random_trials=3)
    made.trial(1, "erfnet x0.10", "seed", architecture(0.10), 9.5, (0.1, 0.2, 0.3), parent="erfnet")
    made.trial(2, "random 1", "random", architecture(0.15), 9.0, (0.1,), stopped=True)
    made.trial(3, "random 2", "random", architecture(0.20), 25.0)
    made.trial(4, "random 2", "random", architecture(0.25), 9.0, (0.1,), failed="a loss of NaN")
    made.trial(5, "random 2", "random", architecture(0.30), 9.0, (0.1, 0.2))
    begun = made.trial(6, "guided 1", "guided", architecture(0.35), 9.0)
    made.trial(7, "guided 2", "guided", architecture(0.40), 9.0)
    owner = made.run.phase_path(begun, "search") / OWNER
    owner.parent.mkdir(parents=True)
    owner.touch()  # a process is at its first epoch
    going = summarize(made.run).going
    assert (going.trained, going.paused, going.under_way, going.waiting) == (2, 1, 2, 1)
    assert (going.failed, going.over_budget) == (1, 1)
    assert going.steps[0] == "propose, time and train 2 more candidates"  # a seed and a guided candidate
    assert going_words(going).startswith(
        "So far: 2 trained (1 of them paused), 2 under way, 1 waiting, 1 failed, 1 over the budget and not "
        "trained. Still to come: propose, time and train 2 more candidates; then train the best 2"
    )


def test_unfinished_trainings_come_first_after_all_candidates_were_proposed(
    made, architecture: Callable[[float], Architecture]
) -> None:
    planned(made.run, seeds=(), random_trials=1, guided_trials=1, finalists=1, company=(), stop_weak=False)
    made.trial(1, "random 1", "random", architecture(0.10), 9.5, (0.1, 0.2, 0.3), (0.3, 0.4, 0.5))
    made.trial(2, "guided 1", "guided", architecture(0.15), 9.0)
    assert summarize(made.run).going.steps == ("train 1 candidate to the end", CERTIFY)


def test_the_rest_of_a_plan_with_rungs_is_given_in_epochs(made, architecture: Callable[[float], Architecture]) -> None:
    study = made.run.study()
    assert study.recipe.epochs == 20
    planned(made.run, seeds=(), random_trials=0, guided_trials=2, finalists=2, finish_epochs=0)
    assert summarize(made.run).going.steps == (
        "train new and paused candidates for 40 epochs (2.0 times a whole training)",
        CERTIFY,
    )
    for number in range(1, 7):  # more candidates than are planned, each for a quarter of a whole training
        factor = 0.05 + 0.05 * number
        made.trial(number, f"guided {number}", "guided", architecture(factor), 9.0, (0.1,) * 5, epochs=20, rungs=(5,))
    assert summarize(made.run).going.steps[0] == (
        "train new and paused candidates for 10 epochs (0.5 times a whole training)"
    )
    made.trial(1, "guided 1", "guided", architecture(0.1), 9.0, (0.1,) * 5, epochs=20, rungs=(5, 15))
    assert summarize(made.run).going.steps == (
        "train 1 candidate to the end of the rung",
        "train the best 2 paused candidates to the end",
        CERTIFY,
    )


def test_a_finished_run_has_no_further_steps_and_its_page_does_not_reload(full: RunFolder) -> None:
    assert summarize(full).going.steps == ()
    page = write_report(full).read_text()
    assert "Still to come" not in page
    assert 'http-equiv="refresh"' not in page


def test_a_changed_budget_means_new_steps(full: RunFolder) -> None:
    full.write_study(replace(full.study(), budget="9.05ms"))
    going = summarize(full).going
    assert going.steps[0] == "train new and paused candidates for 140 epochs (7.0 times a whole training)"
    assert going.steps[-1] == CERTIFY
    page = write_report(full).read_text()
    assert "Still to come: train new and paused candidates for 140 epochs" in page


def test_a_page_reloads_only_while_a_search_works_on_the_run(made) -> None:
    reload = '<meta http-equiv="refresh" content="60">'
    assert reload not in write_report(made.run).read_text()
    with owned(made.run.root):
        assert reload in write_report(made.run).read_text()
    assert reload not in write_report(made.run).read_text()


def test_finish_recipes_still_to_be_tried_are_listed(made, architecture: Callable[[float], Architecture]) -> None:
    recipes = (Variant(), Variant(ema_decay=0.9), Variant(epochs=40))
    planned(made.run, seeds=(), random_trials=1, guided_trials=0, finalists=1, company=(), finish_recipes=recipes)
    made.trial(1, "random 1", "random", architecture(0.10), 9.5, (0.1, 0.2, 0.3))
    assert summarize(made.run).going.steps == (
        "try 3 finish recipes on the best candidate",
        "train the best 1 candidate for 40 more epochs",
        CERTIFY,
    )
    tried = [Tried(recipe=each, epochs=5) for each in recipes]
    tried[1] = replace(tried[1], miou=0.4)
    found = FinishRecipe(tried=tuple(tried), network=architecture(0.10).key)
    write_finish_recipe(made.run, found)
    assert summarize(made.run).going.steps[0] == "try 2 finish recipes on the best candidate"
    scored = tuple(replace(each, miou=0.3) for each in tried)
    write_finish_recipe(made.run, replace(found, tried=scored, chosen=0))
    summary = summarize(made.run)
    assert summary.going.steps == ("train the best 1 candidate for 20 more epochs", CERTIFY)
    assert summary.finish is not None
    assert summary.finish.recipe == Variant()
