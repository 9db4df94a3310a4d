"""What trainings of other searches found out about networks of the space, which a new run begins with.

A table of them comes with the package: networks that take the same time, trained alike, on data of their own
(`studies/search`). Scores on other data say which answers tend to be good, and less than any training of the run
itself; how much less, the sampler finds out. A run keeps the table that it began with in its folder, so that one that
goes on proposes the same with any version of the package.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass

from nas.runs.folder import EXPERIENCE, RunFolder
from nas.storage.files import read_text, write_text
from nas.study import Study
from space import UserError, strict
from space.choices import Choice


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How one network trained elsewhere."""

    miou: float
    genotype: Mapping[str, Choice]
    """Its answers to the questions of the space, at the width that filled a budget."""

    def __post_init__(self) -> None:
        if not 0 <= self.miou <= 1:
            raise UserError(f"miou: expected a share of 0 to 1, got {self.miou}")


@dataclass(frozen=True, kw_only=True)
class Experience:
    """Networks that were trained alike and compare with each other."""

    lessons: tuple[Lesson, ...] = ()


def shipped_text() -> str:
    """The table that comes with the package, as YAML."""
    return importlib.resources.files("nas.runs").joinpath(EXPERIENCE).read_text("utf-8")


def begin_with_experience(run: RunFolder, study: Study) -> None:
    """Keep what comes with the package in the folder of a run that has no candidates yet, where its study wants it."""
    if study.search.experience and not run.trials():
        write_text(run.root / EXPERIENCE, shipped_text())


def read_experience(run: RunFolder) -> Experience:
    """What a run began with.

    Raises: UserError when the file is damaged.
    """
    file = run.root / EXPERIENCE
    if not file.is_file():
        return Experience()
    return strict.parse(read_text(file, "what a run began with from other searches"), Experience, str(file))
