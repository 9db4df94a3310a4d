"""Evaluations that the sampler of a new run is warm-started with: networks of the space, trained on other data.

Tables of them come with the package: networks that take the same time, trained alike on CamVid (`studies/search`).
Their scores say which answers tend to be good, and less than any training of the run itself; how much less, the sampler
finds out. A run keeps the tables that it began with in its folder, so that one that goes on proposes the same with any
version of the package. Samplers that rank scores of one kind only are not given any.
"""

from __future__ import annotations

import importlib.resources
import statistics
from collections.abc import Iterator, Mapping
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
class Table:
    """Networks that were trained alike, and compare with each other."""

    trained_on: str
    """The data, in words."""
    evaluations: tuple[Evaluation, ...]

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise UserError("evaluations: expected at least one, got none; leave the table out")

    def inside(self, space: Space) -> Iterator[tuple[Genotype, float]]:
        """Answers of those that are points of a space, and how far their mIoU is above the median of the table."""
        asked, usual = (
            Space(ranges=searched(), size=space.size),
            statistics.median(each.miou for each in self.evaluations),
        )
        for each in self.evaluations:
            if (genotype := space.carried(each.genotype, asked)) is not None:
                yield genotype, each.miou - usual


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Tables, of which each has a level of its own: other data, or networks that take another time."""

    tables: tuple[Table, ...] = ()

    def inside(self, space: Space) -> list[tuple[Genotype, float]]:
        """See `Table.inside`; of all tables."""
        return [found for table in self.tables for found in table.inside(space)]

    @property
    def count(self) -> int:
        """Of the evaluations in all tables."""
        return sum(len(table.evaluations) for table in self.tables)

    @property
    def trained_on(self) -> str:
        """The data of all tables, in words."""
        return ", ".join(dict.fromkeys(table.trained_on for table in self.tables))


def shipped_text() -> str:
    """The tables that come with the package, as YAML."""
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
