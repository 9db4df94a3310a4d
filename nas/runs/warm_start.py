"""Evaluations that the sampler of a new run is warm-started with: networks of the space, trained on other data.

A table of them comes with the package: networks that take the same time, trained alike on CamVid (`studies/search`).
Their scores say which answers tend to be good, and less than any training of the run itself; how much less, the sampler
finds out. A run keeps the table that it began with in its folder, so that one that goes on proposes the same with any
version of the package. Samplers that rank scores of one kind only are not given any.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass

from nas import samplers
from nas.runs.folder import WARM_START, RunFolder
from nas.storage.files import write_text
from nas.storage.records import find_record
from nas.study import Study
from space import Space, UserError
from space.axes import searched
from space.choices import Choice, Genotype


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How one network trained."""

    miou: float
    genotype: Mapping[str, Choice]
    """Its answers to the questions that a search asks unless told otherwise."""

    def __post_init__(self) -> None:
        if not 0 <= self.miou <= 1:
            raise UserError(f"miou: expected a share of 0 to 1, got {self.miou}")


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Networks that were trained alike, and compare with each other."""

    trained_on: str = ""
    """The data, in words."""
    evaluations: tuple[Evaluation, ...] = ()

    def inside(self, space: Space) -> list[tuple[Genotype, float]]:
        """Answers and mIoU of those that are points of a space."""
        asked = Space(ranges=searched(), size=space.size)
        found = [(space.carried(each.genotype, asked), each.miou) for each in self.evaluations]
        return [(genotype, miou) for genotype, miou in found if genotype is not None]


def shipped_text() -> str:
    """The table that comes with the package, as YAML."""
    return importlib.resources.files("nas.runs").joinpath(WARM_START).read_text("utf-8")


def keep_warm_start(run: RunFolder, study: Study) -> None:
    """Keep what comes with the package in the folder of a run that has no candidates yet, where it wants that."""
    if run.trials():
        return
    if study.search.warm_start and samplers.resumes(study.search.sampler):
        write_text(run.root / WARM_START, shipped_text())
    else:
        (run.root / WARM_START).unlink(missing_ok=True)


def read_warm_start(run: RunFolder) -> WarmStart:
    """What a run began with.

    Raises: UserError when the file is damaged.
    """
    return (
        find_record(run.root / WARM_START, "what the sampler of a run was warm-started with", WarmStart) or WarmStart()
    )
