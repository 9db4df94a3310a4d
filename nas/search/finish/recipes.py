"""Chooses the recipe that finishes a search's networks: several are tried on the best finalist, the best finishes all.

A try is a short finish with its own schedule, from the same weights and on the same images as the finish. The teacher
of each network is recorded before any distillation begins, so that a resumed run has the same teachers. In a search
with a time limit, the finish is shortened to the epochs that the limit leaves, for all networks alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.runs.finish_recipe import (
    FinishRecipe,
    Tried,
    finish_has_begun,
    read_finish_recipe,
    tried_path,
    write_finish_recipe,
)
from nas.runs.folder import FINISH, RunFolder
from nas.runs.trial import Trial, read_progress
from nas.search.finish.cutting import parent_of
from nas.search.search import Search
from nas.search.train.executor import Jobs
from nas.search.train.job import Job, Try
from nas.search.train.stages import keep_end
from nas.training import Variant
from space.errors import UserError

InTime = Callable[[int, Sequence[Trial]], int]
"""Maps the epochs of a finish and the networks to be finished to the epochs that the time limit leaves for each."""


def begin_tries(search: Search, finalists: Sequence[Trial]) -> list[Trial]:
    """Record the recipes that the run may finish with, unless they are recorded already. Returns the networks that the
    tries need: the best finalist and its teacher; none where there is nothing to try.
    """
    run, asked = search.run, search.study.search.finishing
    found = read_finish_recipe(run)
    if found is None and asked == (Variant(),):
        return []
    if found is None:
        found = _first(search, finalists)
        write_finish_recipe(run, found)
    if tuple(each.recipe for each in found.tried) != asked:
        search.console.step(
            "note    finish_recipes have changed, but a run keeps those that it began with, so that its networks "
            "compare"
        )
    if found.chosen is not None:
        return []
    keys = dict.fromkeys((found.network, *(each.teacher for each in found.tried if each.teacher)))
    return [_named(run, key) for key in keys]


def tries(search: Search) -> Jobs:
    """Trainings for the recipes that are not tried yet."""
    run = search.run
    found = read_finish_recipe(run)
    if found is None or found.chosen is not None:
        return Jobs(next=lambda: None, epoch=search.console.epoch, end=search.console.ended)
    student = _named(run, found.network)
    for place, each in enumerate(found.tried):
        if not each.over:
            _keep_end(run, student, place)  # the try may have ended just before the run was interrupted
    waiting = [(place, each) for place, each in enumerate(_kept(run).tried) if not each.over]
    jobs = iter(
        [
            Job(
                trial=student,
                phase="finish",
                variant=each.recipe,
                tries=Try(place=place, epochs=each.epochs),
                teacher=_named(run, each.teacher) if each.teacher else None,
            )
            for place, each in waiting
        ]
    )

    def end(job: Job, epoch: int, error: str) -> None:
        assert job.tries is not None, "only tries are trained in this stage"
        _keep_end(run, student, job.tries.place, error)
        search.console.ended(job, epoch, error)

    return Jobs(next=lambda: next(jobs, None), epoch=search.console.epoch, end=end)


def begin_finish(search: Search, students: Sequence[Trial], in_time: InTime) -> list[Trial]:
    """Record the recipe that scored best, the epochs that a time limit leaves for it and, if it uses distillation, the
    teacher of each student. Returns the teachers.
    """
    run = search.run
    found = read_finish_recipe(run)
    if found is not None and found.chosen is None:
        found = replace(found, chosen=found.best)
        write_finish_recipe(run, found)
        search.console.recipe(found)
    found = _shortened(search, found, students, in_time)
    if found is None or not found.recipe.distillation:
        return []
    begun = [each for each in students if run.progress(each, "finish").history]  # these keep what was decided then
    new = [each for each in students if each not in begun and each.architecture.key not in found.teachers]
    teachers = {each.architecture.key: teacher for each in new if (teacher := _teacher_of(run, each)) is not None}
    if teachers:
        known = {key: each.architecture.key for key, each in teachers.items()}
        found = replace(found, teachers={**found.teachers, **known})
        write_finish_recipe(run, found)
    keys = dict.fromkeys(
        found.teachers[each.architecture.key] for each in students if each.architecture.key in found.teachers
    )
    return [_named(run, key) for key in keys]


def _shortened(
    search: Search, found: FinishRecipe | None, students: Sequence[Trial], in_time: InTime
) -> FinishRecipe | None:
    """Record the epochs of the finish if a time limit leaves fewer than the recipe has. Once a network of the run is
    being finished, the others are finished for as many epochs.
    """
    run, plan = search.run, search.study.search
    if finish_has_begun(run):
        if found is not None and found.epochs and not all(run.progress(each, "finish").done for each in students):
            search.console.finishes_for(found.epochs)
        return found
    chosen = FinishRecipe(tried=(Tried(recipe=Variant()),), chosen=0) if found is None else replace(found, epochs=0)
    whole = plan.epochs_of(chosen.recipe)
    epochs = in_time(whole, students)
    if epochs < whole:
        chosen = replace(chosen, epochs=epochs)
        search.console.shortened(epochs, whole)
    elif found is None:
        return None
    if chosen != found:
        write_finish_recipe(run, chosen)
    return chosen


def finish(search: Search, trials: Sequence[Trial]) -> Jobs:
    """Finish those of `trials` that are not finished yet, or whose weights are damaged, with the run's recipe; teachers
    before their students.
    """
    run, found = search.run, read_finish_recipe(search.run)
    variant = Variant() if found is None else found.recipe
    unfinished = [trial for trial in trials if not trial.failed and not run.is_done(trial, "finish")]
    waiting = [
        Job(trial=each, phase="finish", variant=variant, teacher=_taught_by(run, found, each)) for each in unfinished
    ]
    # A published network that is also a candidate, at its own width, occurs twice.
    not_over = Counter(each.architecture.key for each in unfinished)

    def ready() -> Job | None:
        found = (each for each in waiting if each.teacher is None or not not_over[each.teacher.architecture.key])
        return next(found, None)

    def next_job() -> Job | None:
        job = ready()
        if job is not None:
            waiting.remove(job)
        return job

    def end(job: Job, epoch: int, error: str) -> None:
        not_over[job.trial.architecture.key] -= 1
        keep_end(search, job, epoch, error)

    def waits() -> bool:
        return bool(waiting) and ready() is None

    return Jobs(next=next_job, epoch=search.console.epoch, end=end, waits=waits)


def _first(search: Search, finalists: Sequence[Trial]) -> FinishRecipe:
    """The finish recipes that a run begins with: the study's recipe alone, if networks were finished before recipes
    were recorded; else the one that the plan names, or the several to try.
    """
    run, plan = search.run, search.study.search
    begun = finish_has_begun(run)
    if begun or len(plan.finishing) == 1:
        return FinishRecipe(tried=(Tried(recipe=Variant() if begun else plan.finishing[0]),), chosen=0)
    best = max(finalists, key=lambda each: run.progress(each, "search").miou or 0.0)
    teacher = _teacher_of(run, best)

    def tried(recipe: Variant, epochs: int) -> Tried:
        if not recipe.distillation:
            return Tried(recipe=recipe, epochs=epochs)
        if teacher is None:
            return Tried(recipe=recipe, epochs=epochs, failed="no larger network of the run is more accurate")
        return Tried(recipe=recipe, epochs=epochs, teacher=teacher.architecture.key)

    pairs = zip(plan.finishing, plan.tried_epochs, strict=True)
    return FinishRecipe(tried=tuple(tried(recipe, epochs) for recipe, epochs in pairs), network=best.architecture.key)


def _teacher_of(run: RunFolder, student: Trial) -> Trial | None:
    """The most accurate network that is larger and more accurate than the student before its finish, was trained as
    long, and has the same label stride; None if there is none.
    """
    own = run.progress(student, "search").miou or 0.0
    able = [
        (miou, each)
        for each in _networks(run)
        if run.progress(each, "search").done
        and each.multiply_adds > student.multiply_adds
        and each.architecture.label_stride == student.architecture.label_stride
        and (miou := run.progress(each, "search").miou or 0.0) > own
    ]
    return max(able, key=lambda pair: pair[0])[1] if able else None


def _taught_by(run: RunFolder, found: FinishRecipe | None, trial: Trial) -> Trial | None:
    if trial.origin == "pruned":
        return parent_of(run, trial)
    teacher = "" if found is None else found.teachers.get(trial.architecture.key, "")
    return _named(run, teacher) if teacher else None


def _networks(run: RunFolder) -> list[Trial]:
    return [each for each in (*run.company(), *run.trials()) if each.origin != "pruned"]


def _named(run: RunFolder, key: str) -> Trial:
    """The network with this key; of two, the one that was trained.

    Raises: UserError when there is none.
    """
    found = [each for each in _networks(run) if each.architecture.key == key]
    if not found:
        raise UserError(
            f"{run.root / FINISH}: expected keys of networks in the run, got {key}; "
            "bring its folder back, or remove the file"
        )
    return max(found, key=lambda each: run.progress(each, "search").done)


def _kept(run: RunFolder) -> FinishRecipe:
    found = read_finish_recipe(run)
    assert found is not None, "the recipes were recorded before any was tried"
    return found


def _keep_end(run: RunFolder, student: Trial, place: int, error: str = "") -> None:
    """Record the result of trying a recipe, if the try is over."""
    found, progress = _kept(run), read_progress(tried_path(run, student, place))
    if not (error or progress.done):
        return
    ended = replace(found.tried[place], failed=error) if error else replace(found.tried[place], miou=progress.miou)
    write_finish_recipe(run, replace(found, tried=(*found.tried[:place], ended, *found.tried[place + 1 :])))
