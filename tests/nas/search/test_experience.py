"""What a search begins with from trainings elsewhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.runs.earlier import answers_in
from nas.runs.experience import Experience, Lesson, begin_with_experience, read_experience, shipped_text
from nas.runs.folder import EXPERIENCE, RunFolder
from nas.search.proposals import Proposals
from nas.search.sampler import Outcome, Sampler
from nas.search.search import Search
from nas.storage.files import write_text
from nas.study import SearchPlan, Study
from nas.training import Recipe
from space import Architecture, Space, UserError, strict
from space.axes import searched
from space.choices import Ask, Genotype

SIZE = (180, 240)
CLASSES = 11
PLAN = SearchPlan(seeds=(), random_trials=0, guided_trials=3, stop_weak=False)
ASKED = Study(
    data=DataSpec(size=SIZE),
    budget="10ms",
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=4, batch_size=4),
    space={"stages": (2,), "stage.depth": (1,), "block": ("nonbt", "sep")},
    search=PLAN,
)


class Arithmetic:
    """A device on which some hundred million multiply-adds take a millisecond."""

    def __init__(self, invented: Callable[[float], Latency]) -> None:
        self._invented = invented

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        return self._invented(0.1 + space.multiply_adds(architecture, SIZE, CLASSES) / 1e8)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]


@pytest.fixture
def proposed(
    tmp_path: Path, invented: Callable[[float], Latency], search_of: Callable[[RunFolder], Search]
) -> Callable[[Experience | None], list[Genotype]]:
    """The answers of all that a run proposes which begins with these lessons, and trains nothing to a score."""

    def propose(experience: Experience | None) -> list[Genotype]:
        run = RunFolder.claim(tmp_path / "run")
        run.write_study(ASKED)
        if experience is not None:
            write_text(run.root / EXPERIENCE, strict.dump(experience))
        found: list[Genotype] = []
        while True:  # interrupted after each candidate, by which proposals must not change
            source = Proposals(search_of(run), Arithmetic(invented), None)
            if (trial := source.next()) is None:
                return found
            found.append(trial.genotype)
            source.finished(trial, failed="a loss of NaN")

    return propose


def lessons(better: str, count: int = 24) -> Experience:
    """Networks drawn at random, of which those of one block score more."""
    drawn, rng = ASKED.architectures(), random.Random(3)
    genotypes = [genotype_of(drawn, rng) for _ in range(count)]
    return Experience(
        lessons=tuple(
            Lesson(miou=0.3 + 0.2 * (each["block"] == better) + rng.uniform(0, 0.02), genotype=each)
            for each in genotypes
        )
    )


def genotype_of(drawn: Space, rng: random.Random) -> Genotype:
    answers = {}

    def ask(name: str, options: Sequence[space.choices.Choice]) -> space.choices.Choice:
        answers[name] = rng.choice(options)
        return answers[name]

    drawn.choose(ask)
    return answers


def test_every_lesson_that_comes_with_the_package_is_of_what_a_search_looks_at() -> None:
    found = strict.parse(shipped_text(), Experience, EXPERIENCE).lessons
    drawn = Space(ranges=searched(), size=SIZE)
    assert len(found) >= 40
    assert [each for each in found if answers_in(drawn, each.genotype) is None] == []  # a new axis: add its answer
    assert len({tuple(each.genotype.items()) for each in found}) == len(found)
    assert len({each.miou for each in found}) > len(found) / 2


@pytest.mark.parametrize("better", ["nonbt", "sep"])
def test_what_scored_elsewhere_is_proposed_before_anything_is_known_here(
    proposed: Callable[[Experience | None], list[Genotype]], better: str
) -> None:
    assert [each["block"] for each in proposed(lessons(better))] == [better] * PLAN.guided_trials


def test_lessons_outside_of_a_narrow_space_are_left_out(
    proposed: Callable[[Experience | None], list[Genotype]],
) -> None:
    taught = lessons("sep", 4)
    foreign = Lesson(miou=0.9, genotype={**taught.lessons[0].genotype, "block": "fpl"})
    assert proposed(Experience(lessons=(*taught.lessons, foreign))) == proposed(taught)


def test_a_question_with_one_answer_need_not_have_been_asked() -> None:
    drawn = replace(ASKED, space={**ASKED.space, "activation": ("relu",)}).architectures()
    genotype = genotype_of(drawn, random.Random(0))
    before = {name: answer for name, answer in genotype.items() if name != "activation"}
    assert answers_in(drawn, before) == genotype
    assert answers_in(ASKED.architectures(), before) is None


def test_a_run_keeps_what_it_began_with_and_may_want_none(tmp_path: Path) -> None:
    wanting = RunFolder.create(tmp_path / "wanting", ASKED)
    assert read_experience(wanting) == Experience()  # one that an earlier version began
    begin_with_experience(wanting, ASKED)
    assert (wanting.root / EXPERIENCE).read_text("utf-8") == shipped_text()
    without = replace(ASKED, search=replace(PLAN, experience=False))
    run = RunFolder.create(tmp_path / "without", without)
    begin_with_experience(run, without)
    assert read_experience(run) == Experience()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", ASKED)
    write_text(run.root / EXPERIENCE, "lessons: [{miou: 2, genotype: {}}]")
    with pytest.raises(UserError, match=r"experience\.yaml.*miou: expected a share of 0 to 1, got 2"):
        read_experience(run)


class Counted:
    """Questions that count how often candidates are compared."""

    rungs = (1.0,)
    compared = 0

    def choose(self, ask: Ask) -> None:
        ask("place", tuple(range(8)))

    def facts(self, point: Genotype) -> dict[str, float]:
        return {}

    def around(self, best: Sequence[Genotype], rng: random.Random) -> Sequence[Genotype]:
        self.compared += 1
        return [{"place": place} for place in range(8)]


def test_nothing_is_compared_for_what_is_only_entered() -> None:
    from nas import samplers

    questions = Counted()
    sampler = Sampler(
        questions, lambda candidates: samplers.make("surrogate", seed=0, startup=1, candidates=candidates)
    )
    for place in range(4):
        sampler.recall({"place": place}, Outcome(miou=0.1 * place, fidelity=0.25))
    assert questions.compared == 0
    assert sampler.propose().genotype["place"] > 3
    assert questions.compared == 1
