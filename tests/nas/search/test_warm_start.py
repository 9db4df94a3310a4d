"""The warm start of a search: scores of networks that were trained on other data."""

from __future__ import annotations

import csv
import functools
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nas import samplers
from nas.data import DataSpec
from nas.latency.meter import Measures
from nas.runs.folder import WARM_START, RunFolder
from nas.runs.warm_start import ScoredGenotype, Table, WarmStart, keep_warm_start, read_warm_start, shipped_text
from nas.search.propose.proposals import Proposals
from nas.search.propose.sampler import Outcome, Sampler
from nas.search.search import Search
from nas.storage.files import write_text
from nas.study import SearchPlan, Study
from nas.training import Recipe
from space import Space, UserError, strict
from space.axes import ranges, searched
from space.choices import Ask, Choice, Genotype

TABLE = Path(__file__).parents[3] / "studies" / "search" / "camvid.csv"
SIZE = (180, 240)
CLASSES = 11
PLAN = SearchPlan(seeds=(), random_trials=0, guided_trials=2, stop_weak=False)
ASKED = Study(
    data=DataSpec(size=SIZE),
    budget="10ms",
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=4, batch_size=4),
    space={"stages": (2,), "stage.depth": (1,), "block": ("nonbt", "sep")},
    search=PLAN,
)


@pytest.fixture
def proposed(
    tmp_path: Path, arithmetic: Measures, search_of: Callable[[RunFolder], Search]
) -> Callable[[WarmStart], list[Genotype]]:
    """The answers of all proposals of a warm-started run without any score of its own."""

    def propose(warm_start: WarmStart) -> list[Genotype]:
        run = RunFolder.claim(tmp_path / "run")
        run.write_study(ASKED)
        write_text(run.root / WARM_START, strict.dump(warm_start))
        found: list[Genotype] = []
        while True:  # interrupted after each candidate, which must not change proposals
            source = Proposals(search_of(run), arithmetic, None)
            if (trial := source.next()) is None:
                return found
            found.append(trial.genotype)
            source.finished(trial, failed="a loss of NaN")

    return propose


def warm_start_of(better: str, count: int = 12, level: float = 0.3, seed: int = 3) -> WarmStart:
    """Scores of networks drawn at random; those of one block score more."""
    rng = random.Random(seed)
    genotypes = [drawn(ASKED.architectures(), rng) for _ in range(count)]
    scored = [
        ScoredGenotype(miou=level + 0.2 * (each["block"] == better) + rng.uniform(0, 0.02), genotype=each)
        for each in genotypes
    ]
    return WarmStart(tables=(Table(trained_on="streets", evaluations=tuple(scored)),))


def drawn(points: Space, rng: random.Random) -> Genotype:
    answers: dict[str, Choice] = {}

    def ask(name: str, options: Sequence[Choice]) -> Choice:
        answers[name] = rng.choice(options)
        return answers[name]

    points.choose(ask)
    return answers


@pytest.fixture(scope="module")
def shipped() -> WarmStart:
    return strict.parse(shipped_text(), WarmStart, WARM_START)


def test_all_networks_of_the_package_are_inside_the_searched_space(shipped: WarmStart) -> None:
    assert shipped.count >= 40
    found = shipped.inside(Space(ranges=searched(), size=SIZE))
    assert len(found) == shipped.count
    for axis, newer in (("block", "inverted"), ("decoder", "steps"), ("detail", "both"), ("label_stride", 2)):
        assert {genotype.get(axis) for genotype, _ in found} > {newer}, "the newer families are among them"


def test_the_networks_of_the_package_are_those_of_the_study(shipped: WarmStart) -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        scores = [float(row["miou_4"]) for row in csv.DictReader(file) if row["miou_4"]]
    assert [100 * each.miou for table in shipped.tables for each in table.evaluations] == pytest.approx(scores)


@pytest.mark.share(3)
@pytest.mark.parametrize("axis", ["head.shuffle", "rep", "norm_momentum"])
def test_an_opened_axis_has_its_usual_value_in_all_networks_of_the_package(shipped: WarmStart, axis: str) -> None:
    (usual,) = searched()[axis]
    other = next(each for each in ranges()[axis] if each != usual)
    opened = Space(ranges={**searched(), axis: (other, usual)}, size=SIZE)
    found = shipped.inside(opened)
    assert len(found) == shipped.count
    assert all(genotype.get(axis, usual) == usual for genotype, _ in found)
    held = Space(ranges={**searched(), axis: (other,)}, size=SIZE)
    assert shipped.inside(held) == []


@pytest.mark.share(2)
@pytest.mark.parametrize("better", ["nonbt", "sep"])
def test_networks_that_scored_well_on_other_data_are_proposed_first(
    proposed: Callable[[WarmStart], list[Genotype]], better: str
) -> None:
    assert [each["block"] for each in proposed(warm_start_of(better))] == [better] * PLAN.guided_trials


def test_networks_outside_a_narrow_space_are_left_out() -> None:
    every = warm_start_of("sep")
    narrow = replace(ASKED, space={**ASKED.space, "block": ("sep",)}).architectures()
    (table,) = every.tables
    inside = [each.miou for each in table.evaluations if each.genotype["block"] == "sep"]
    assert 0 < len(inside) < every.count
    median = statistics.median(each.miou for each in table.evaluations)
    assert [score + median for _, score in every.inside(narrow)] == pytest.approx(inside)


def test_higher_scores_of_an_easier_table_make_its_networks_no_better() -> None:
    """In the easier table the worse block scores more than the better block in the other table."""
    hard, easy = warm_start_of("sep").tables[0], warm_start_of("sep", level=0.7, seed=4).tables[0]
    worst = min(each.miou for each in easy.evaluations)
    assert worst > max(each.miou for each in hard.evaluations)
    found = WarmStart(tables=(hard, easy)).inside(ASKED.architectures())
    scores = {block: [score for genotype, score in found if genotype["block"] == block] for block in ("sep", "nonbt")}
    assert len(scores["sep"]) + len(scores["nonbt"]) == len(hard.evaluations) + len(easy.evaluations)
    assert max(scores["nonbt"]) < min(scores["sep"])


def test_a_run_keeps_the_networks_that_it_began_with(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", ASKED)
    assert read_warm_start(run) == WarmStart()  # a run that an earlier version began
    keep_warm_start(run, ASKED)
    assert (run.root / WARM_START).read_text("utf-8") == shipped_text()


@pytest.mark.parametrize("other", [{"warm_start": False}, {"sampler": "tpe"}, {"sampler": "random"}])
def test_a_search_can_drop_its_warm_start_until_it_has_candidates(tmp_path: Path, other: Mapping[str, object]) -> None:
    run = RunFolder.create(tmp_path / "run", ASKED)
    keep_warm_start(run, ASKED)  # killed, before the first candidate
    keep_warm_start(run, replace(ASKED, search=replace(PLAN, **other)))
    assert read_warm_start(run) == WarmStart()


def test_a_damaged_file_of_a_warm_start_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", ASKED)
    write_text(run.root / WARM_START, "tables: [{trained_on: streets, evaluations: [{miou: 2, genotype: {}}]}]")
    with pytest.raises(UserError, match=r"warm_start\.yaml.*miou: expected a share of 0 to 1, got 2"):
        read_warm_start(run)


class Row:
    """A space with one question, for a place, which counts how often places are compared."""

    rungs = (1.0,)

    def __init__(self, places: int) -> None:
        self.places = range(places)
        self.compared = 0

    def choose(self, ask: Ask) -> None:
        ask("place", tuple(self.places))

    def facts(self, point: Genotype) -> dict[str, float]:
        return {}

    def kind(self, point: Genotype) -> None:
        """All places are of one kind."""

    def around(self, best: Sequence[Genotype], rng: random.Random) -> Sequence[Genotype]:
        self.compared += 1
        return [{"place": place} for place in self.places]


surrogate = functools.partial(samplers.make, "surrogate", seed=0, startup=1)


def test_entering_warm_starts_compares_no_points() -> None:
    questions = Row(8)
    sampler = Sampler(questions, lambda candidates: surrogate(candidates=candidates))
    for place in range(4):
        sampler.warm_start({"place": place}, 0.1 * place)
    assert questions.compared == 0
    assert sampler.propose().genotype["place"] > 3
    assert questions.compared == 1


def test_scores_of_the_search_overrule_larger_contrary_differences_on_other_data() -> None:
    """On other data the far end is better by sixty points; in the search the near end is better by six."""
    sampler = Sampler(Row(60), lambda candidates: surrogate(candidates=candidates))
    for place in range(0, 60, 2):
        sampler.warm_start({"place": place}, 0.2 + 0.01 * place)
    for place in range(5, 60, 6):
        number = sampler.enter({"place": place})
        sampler.tell(number, Outcome(miou=0.4 - 0.001 * place))
    assert sampler.propose().genotype["place"] < 5
