"""What makes the candidates of a run compare: the size of the pictures, the recipe and the target, as it began.

A run's study can be changed by hand between two commands. Budgets, the space and the plan may be others from then on;
of these, what was trained and timed before could not be compared with what comes after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nas.runs.folder import TERMS, RunFolder
from nas.storage.files import read_text, write_text
from nas.study import Study
from nas.training import Recipe
from space import UserError, strict


@dataclass(frozen=True, kw_only=True)
class Terms:
    """As a study has them."""

    size: tuple[int, int]
    """Height and width at which networks see the pictures."""
    recipe: Recipe
    """Without the file that weights come from, which is kept as `nas.runs.beginning` has it."""
    target: str
    precisions: tuple[str, ...] = ()


def keep_terms(run: RunFolder, study: Study) -> None:
    """Keep them in the run's folder, unless they are kept there and something was timed or trained by them."""
    if not ((run.root / TERMS).is_file() and _begun(run)):
        write_text(run.root / TERMS, strict.dump(_terms_of(study)))


def require_terms(run: RunFolder, study: Study) -> None:
    """Hold a run that has begun to those that are kept there, if any are: earlier versions kept none.

    Raises: UserError that names what the study has otherwise, and when the file is damaged.
    """
    file = run.root / TERMS
    if not (file.is_file() and _begun(run)):
        return
    kept = strict.parse(read_text(file, "what the candidates of a run are compared by"), Terms, str(file))
    before, now = dict(_flat(asdict(kept))), dict(_flat(asdict(_terms_of(study))))
    others = [f"{name} is {now[name]}, and was {before[name]}" for name in now if now[name] != before[name]]
    if others:
        raise UserError(
            f"{run.study_path}: {', '.join(others)} when the run began, so that its candidates would not compare with "
            f"those to come; put it back, or begin a new search with --from {run.root}"
        )


def _begun(run: RunFolder) -> bool:
    return bool(run.trials() or run.company())


def _terms_of(study: Study) -> Terms:
    return Terms(
        size=study.data.size,
        recipe=replace(study.recipe, init=None),
        target=study.target,
        precisions=study.precisions,
    )


def _flat(values: Mapping[str, Any], scope: str = "") -> Iterator[tuple[str, Any]]:
    """Names such as `recipe.epochs`, and their values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{scope}{name}.")
        else:
            yield scope + name, value
