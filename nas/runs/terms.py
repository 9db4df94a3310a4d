"""What makes the candidates of a run compare: the size of the pictures and the target that they were timed at and the
epochs that they were finished for, which their records say, and the recipe and the precisions, which are kept when the
run begins.

A run's study can be changed by hand between two commands. Budgets, the space and the plan may be others from then on;
of these, what was trained and timed before could not be compared with what comes after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nas.latency.target import Target
from nas.runs.finish_recipe import read_finish_recipe
from nas.runs.folder import TERMS, RunFolder
from nas.runs.trial import Trial
from nas.storage.files import write_text
from nas.storage.records import read_record
from nas.study import Study
from nas.training import Recipe, Variant
from space import UserError, strict


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What no record of a candidate says. Trainings compare whatever their seeds were, and where their weights begin is
    kept by itself (`nas.runs.beginning`): of the recipe those are left at their defaults.
    """

    recipe: Recipe
    precisions: tuple[str, ...] = ()


def keep_terms(run: RunFolder, study: Study) -> bool:
    """Keep them in the run's folder, unless they are kept there and it has candidates; whether it has candidates and
    kept none. Where the file was removed, or an earlier version began, they are those of now.
    """
    begun, kept = bool(run.trials()), (run.root / TERMS).is_file()
    if not (begun and kept):
        write_text(run.root / TERMS, strict.dump(terms_of(study)))
    return begun and not kept


def require_terms(run: RunFolder, study: Study) -> None:
    """Hold the `study` that a run has now to what it began with.

    Raises: UserError that names what the study has otherwise, and when the file is damaged.
    """
    trials = run.trials()
    networks = (*run.company(), *trials)
    others: dict[str, tuple[object, object]] = {
        **dict(_timed_otherwise(networks, study)),
        **_finished_otherwise(run, networks, study),
    }
    file = run.root / TERMS
    if file.is_file() and trials:
        kept = read_record(file, "what the candidates of a run are compared by", Terms)
        before, now = dict(flat(asdict(kept))), dict(flat(asdict(terms_of(study))))
        others |= {
            name: (before.get(name, "none"), now.get(name, "none"))
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        }
    if others:
        words = "; ".join(f"{name}: expected {before}, got {now}" for name, (before, now) in others.items())
        raise UserError(
            f"{run.study_path}: {words}. The run began otherwise, and its candidates would not compare with those to "
            "come: put it back, or begin a new search"
        )


def terms_of(study: Study) -> Terms:
    """What a study says of them."""
    recipe = replace(study.recipe, init=None, seed=Recipe.seed, probe=Recipe.probe)
    return Terms(recipe=recipe, precisions=tuple(sorted(study.precisions)))


def _timed_otherwise(networks: Sequence[Trial], study: Study) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names of the study, what the records say instead, and what it says now."""
    for trial in networks:
        if trial.latency is None:
            continue
        height, width = study.data.size
        if (trial.latency.height, trial.latency.width) != (height, width):
            yield "data.size", (f"{trial.latency.height}x{trial.latency.width}", f"{height}x{width}")
        chosen = bool(study.precisions)  # then a candidate is timed in the fastest one
        if runs_as(trial.latency.target, chosen=chosen) != runs_as(study.target, chosen=chosen):
            yield "target", (trial.latency.target, study.target or "none")


def _finished_otherwise(run: RunFolder, networks: Sequence[Trial], study: Study) -> dict[str, tuple[int, int]]:
    """For how many epochs networks are finished already, and for how many others would be."""
    found = read_finish_recipe(run)
    wanted = study.search.epochs_of(Variant() if found is None else found.recipe)
    finished = (run.progress(trial, "finish").history for trial in networks)
    lengths = {history[-1].epochs for history in finished if history} - {wanted}
    return {"search.finish_epochs": (min(lengths), wanted)} if lengths else {}


def runs_as(text: str, *, chosen: bool) -> Target | None:
    """A target without the name of its host and the number of its GPU, which may be called otherwise; which device that
    is, what times it says itself (`nas.search.measure.comparable`). Without its precision too, where that is `chosen`.
    """
    if not text:
        return None
    target = Target.parse(text)
    device = "cuda:0" if target.on_cuda else target.device
    return replace(target, host="", device=device, precision="fp32" if chosen else target.precision)


def flat(values: Mapping[str, Any], scope: str = "") -> Iterator[tuple[str, Any]]:
    """Names such as `recipe.epochs`, and their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{scope}{name}.")
        else:
            yield scope + name, value
