"""Settings that make the candidates of a run comparable: image size, target and epochs of the finish, which their own
records contain, and the recipe and precisions, which are recorded when the run begins.

A run's study can be edited between two commands. Budgets, the space and the plan may then differ; if one of these
settings did, candidates from before could not be compared with those to come.
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
    """The settings that no record of a candidate contains. The recipe's seed and how often it scores do not matter for
    comparisons, and its initial weights have a record of their own (`nas.runs.initial_weights`): all are left at their
    defaults.
    """

    recipe: Recipe
    precisions: tuple[str, ...] = ()


def keep_terms(run: RunFolder, study: Study) -> bool:
    """Write a study's terms into the run's folder, unless the run has candidates and its terms are there. Returns
    whether it has candidates but had no terms (the file was removed, or the run is of an earlier version): it then gets
    those of the current study.
    """
    begun, kept = bool(run.trials()), (run.root / TERMS).is_file()
    if not (begun and kept):
        write_text(run.root / TERMS, strict.dump(terms_of(study)))
    return begun and not kept


def require_terms(run: RunFolder, study: Study) -> None:
    """Require that the current `study` of a run has the terms that it began with.

    Raises: UserError that names the differences, or when the file is damaged.
    """
    trials = run.trials()
    networks = (*run.company(), *trials)
    others: dict[str, tuple[object, object]] = {
        **dict(_timed_otherwise(networks, study)),
        **_finished_otherwise(run, networks, study),
    }
    file = run.root / TERMS
    if file.is_file() and trials:
        kept = read_record(file, "a record of the settings of a run", Terms)
        before, now = dict(flat(asdict(kept))), dict(flat(asdict(terms_of(study))))
        others |= {
            name: (before.get(name, "none"), now.get(name, "none"))
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        }
    if others:
        words = "; ".join(f"{name}: expected {before}, got {now}" for name, (before, now) in others.items())
        raise UserError(
            f"{run.study_path}: {words}. The run began with other settings, and its candidates could not be compared "
            "with new ones: restore the settings, or begin a new search"
        )


def terms_of(study: Study) -> Terms:
    """The terms of a study."""
    recipe = replace(study.recipe, init=None, seed=Recipe.seed, probe=Recipe.probe, score_every=None)
    return Terms(recipe=recipe, precisions=tuple(sorted(study.precisions)))


def _timed_otherwise(networks: Sequence[Trial], study: Study) -> Iterator[tuple[str, tuple[str, str]]]:
    """Settings of the timings that changed: their names, values in the candidates' records, and values in the study."""
    for trial in networks:
        if trial.latency is None:
            continue
        height, width = study.data.size
        if (trial.latency.height, trial.latency.width) != (height, width):
            yield "data.size", (f"{trial.latency.height}x{trial.latency.width}", f"{height}x{width}")
        chosen = bool(study.precisions)  # each candidate is then timed in its fastest precision
        if runs_as(trial.latency.target, chosen=chosen) != runs_as(study.target, chosen=chosen):
            yield "target", (trial.latency.target, study.target or "none")


def _finished_otherwise(run: RunFolder, networks: Sequence[Trial], study: Study) -> dict[str, tuple[int, int]]:
    """The epochs of finished networks and of those to be finished, if they differ."""
    found = read_finish_recipe(run)
    wanted = study.search.epochs_of(Variant() if found is None else found.recipe)
    finished = (run.progress(trial, "finish").history for trial in networks)
    lengths = {history[-1].epochs for history in finished if history} - {wanted}
    return {"search.finish_epochs": (min(lengths), wanted)} if lengths else {}


def runs_as(text: str, *, chosen: bool) -> Target | None:
    """A target without its host name and GPU number, which may change for the same device; timings record the device
    itself (`nas.search.measure.comparable`). With `chosen`, without its precision too.
    """
    if not text:
        return None
    target = Target.parse(text)
    device = "cuda:0" if target.on_cuda else target.device
    return replace(target, host="", device=device, precision="fp32" if chosen else target.precision)


def flat(values: Mapping[str, Any], scope: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names such as `recipe.epochs`, and their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{scope}{name}.")
        else:
            yield scope + name, value
