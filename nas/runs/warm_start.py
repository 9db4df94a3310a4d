"""Warm start for the sampler of a new run: scores of networks of the space that were trained on other data.

The package comes with tables of networks with equal latency that were trained alike on CamVid (`studies/search`). Their
scores show which choices tend to be good, but count less than any training of the run itself; the sampler learns how
much less. A run keeps the tables that it began with in its folder, so that it makes the same proposals when it is
resumed with another version of the package. Samplers that rank scores of one kind only get no warm start.
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
class ScoredGenotype:
    """A trained network of a table: its score, and its choices in the space that is searched by default."""

    miou: float
    genotype: Mapping[str, Choice]

    def __post_init__(self) -> None:
        if not 0 <= self.miou <= 1:
            raise UserError(f"miou: expected a share of 0 to 1, got {self.miou}")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Networks that were trained alike and are comparable with each other."""

    trained_on: str
    """Their data, in words."""
    evaluations: tuple[ScoredGenotype, ...]  # the key in files that runs keep

    def __post_init__(self) -> None:
        if not self.evaluations:
            raise UserError("evaluations: expected at least one, got none; leave the table out")

    def inside(self, space: Space) -> Iterator[tuple[Genotype, float]]:
        """Genotypes of the networks inside a space, each with the difference of its mIoU from the table's median."""
        asked, usual = (
            Space(ranges=searched(), size=space.size),
            statistics.median(each.miou for each in self.evaluations),
        )
        for each in self.evaluations:
            if (genotype := space.carried(each.genotype, asked)) is not None:
                yield genotype, each.miou - usual


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Tables whose scores are not comparable across tables: the data, or the latency of the networks, differ."""

    tables: tuple[Table, ...] = ()

    def inside(self, space: Space) -> list[tuple[Genotype, float]]:
        """The networks of all tables inside a space, as from `Table.inside`."""
        return [found for table in self.tables for found in table.inside(space)]

    @property
    def count(self) -> int:
        """Number of networks in all tables."""
        return sum(len(table.evaluations) for table in self.tables)

    @property
    def trained_on(self) -> str:
        """The data of all tables, in words."""
        return ", ".join(dict.fromkeys(table.trained_on for table in self.tables))


def shipped_text() -> str:
    """The tables that come with the package, as YAML."""
    return importlib.resources.files("nas.runs").joinpath(WARM_START).read_text("utf-8")


def keep_warm_start(run: RunFolder, study: Study) -> None:
    """Copy the package's tables into the folder of a run without candidates, if its study and sampler use them."""
    if run.trials():
        return
    if study.search.warm_start and samplers.resumes(study.search.sampler):
        write_text(run.root / WARM_START, shipped_text())
    else:
        (run.root / WARM_START).unlink(missing_ok=True)


def read_warm_start(run: RunFolder) -> WarmStart:
    """The warm start of a run.

    Raises: UserError when the file is damaged.
    """
    return find_record(run.root / WARM_START, "the warm start of a run's sampler", WarmStart) or WarmStart()
