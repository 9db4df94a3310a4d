"""The knowledge of guided proposals, with a real sampler on eight places in a row: the farther, the better."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import optuna
import pytest

import space
from nas import samplers
from nas.latency.budget import Budget, Budgets
from nas.latency.record import Latency
from nas.runs.earlier import EarlierTrial
from nas.runs.steps import Step
from nas.runs.trial import Origin, Trial
from nas.runs.unreached import Unreached
from nas.search.propose.guidance import Guidance
from nas.search.propose.sampler import Outcome, Sampler
from nas.surrogate.candidates import Candidates
from space import Architecture
from space.choices import Ask, Genotype
from space.errors import ArchitectureError

TEN = Budget.parse("10ms")
PLACES = range(8)
PUBLISHED = ("erfnet", "erfnet-encoder", "fplnet", "swiftnet-rn18")
Make = Callable[[int, Origin, Genotype], Trial]


class Row:
    """A space with one question, for a place; the sampler compares every place."""

    rungs = (1.0,)

    def __init__(self) -> None:
        self.compared = 0

    def facts(self, point: Genotype) -> dict[str, float]:
        return {}

    def kind(self, point: Genotype) -> None:
        """All places are of one kind."""

    def choose(self, ask: Ask) -> Architecture:
        ask("place", tuple(PLACES))
        return space.load(PUBLISHED[0])

    def around(self, best: Sequence[Genotype], rng: random.Random) -> Sequence[Genotype]:
        self.compared += 1
        return [{"place": place} for place in PLACES]


@pytest.fixture
def trial(invented: Callable[[float], Latency]) -> Make:
    def make(number: int, origin: Origin, genotype: Genotype) -> Trial:
        return Trial(
            number=number,
            name=f"trial {number}",
            origin=origin,
            architecture=space.load(PUBLISHED[number - 1]),
            latency=invented(9),
            feasible=True,
            budget_milliseconds=10,
            parameters=1,
            multiply_adds=1,
            genotype=genotype,
        )

    return make


class Stairs(Row):
    """The same places, with two rungs, so that trainings can pause."""

    rungs = (0.25, 1.0)


def guidance_of(row: Row, *budgets: str, startup: int = 2, outside: int | None = None) -> Guidance:
    def trained(step: Step) -> Outcome:
        return Outcome(miou=0.1 * float(step.trial.genotype["place"]))

    sampler = Sampler(row, functools.partial(surrogate, startup=startup), stateless=True)
    asked = Budgets.parse(budgets or ["10ms"])

    def point(each: Trial) -> Genotype | None:
        return None if each.genotype["place"] == outside else each.genotype

    return Guidance(sampler, asked, apart=asked.several, ahead=0, epochs=2, trained=trained, point=point)


def surrogate(candidates: Candidates, startup: int = 2) -> optuna.samplers.BaseSampler:
    return samplers.make("surrogate", seed=0, startup=startup, candidates=candidates)


def next_places(guidance: Guidance, trials: list[Trial], count: int) -> list[object]:
    return [guidance.propose(trials, len(trials) + 1, TEN).genotype["place"] for _ in range(count)]


def test_entering_a_candidate_compares_no_points(trial: Make) -> None:
    row = Row()
    sampler = Sampler(row, surrogate)
    for place in PLACES[:4]:
        sampler.tell(sampler.enter({"place": place}), Outcome(miou=0.1 * place))
    assert row.compared == 0
    sampler.propose()
    assert row.compared == 1


def test_proposals_of_another_sampler_cost_no_places(trial: Make) -> None:
    """Such a trial cannot be repeated. The places proposed instead, here all places, were never trained."""
    guidance = guidance_of(Row())
    trials = [trial(number, "random", {"place": number - 1}) for number in (1, 2)]
    trials.append(trial(3, "guided", {"place": 2, "of another kind": 1}))
    guidance.replay(trials, {})
    assert sorted(next_places(guidance, trials, 5)) == [3, 4, 5, 6, 7]


def test_a_candidate_outside_the_space_is_ignored(trial: Make) -> None:
    guidance = guidance_of(Row(), outside=7)
    trials = [trial(number, "random", {"place": place}) for number, place in ((1, 2), (2, 7), (3, 4))]
    guidance.replay(trials, {})
    assert 7 in next_places(guidance, trials, 3), "nobody was told that it is trained"
    with pytest.raises(ArchitectureError, match=r"space\.place: 8 is not among \[0, 1, 2"):
        Sampler(Row(), surrogate).enter({"place": 8})


def test_a_resumed_sampler_proposes_the_same_as_an_uninterrupted_one(trial: Make) -> None:
    """The first proposal led to a known candidate, which neither sampler proposes again."""
    whole = guidance_of(Row())
    trials = [trial(number, "random", {"place": number - 1}) for number in (1, 2)]
    known = whole.propose(trials, 3, TEN)
    whole.reject_duplicate(known.number)
    proposal = whole.propose(trials, 3, TEN)
    trials.append(trial(3, "guided", proposal.genotype))
    whole.record_step(proposal.number, 3)
    again = guidance_of(Row())
    again.replay(trials, {})
    expected = next_places(whole, trials, 4)
    assert next_places(again, trials, 4) == expected
    assert known.genotype["place"] not in expected
    assert len(set(expected)) == 4


def test_a_stateless_sampler_repeats_only_steps_with_draws_in_vain(trial: Make) -> None:
    """The step after two draws in vain is repeated, and the step after none only entered."""
    whole = guidance_of(Row())
    trials = [trial(number, "random", {"place": number - 1}) for number in (1, 2)]
    for number, in_vain in ((3, 0), (4, 2)):
        for _ in range(in_vain):
            whole.reject_duplicate(whole.propose(trials, number, TEN).number)
        proposal = whole.propose(trials, number, TEN)
        trials.append(replace(trial(number, "guided", proposal.genotype), in_vain=whole.in_vain))
        whole.record_step(proposal.number, number)
    assert [each.in_vain for each in trials] == [None, None, 0, 2]
    row = Row()
    again = guidance_of(row)
    again.replay(trials, {})
    assert row.compared == 3  # for the step with draws in vain
    expected = next_places(whole, trials, 3)
    assert next_places(again, trials, 3) == expected
    assert len({*expected}) == 3

    row = Row()
    earlier = guidance_of(row)
    earlier.replay([replace(each, in_vain=None) for each in trials], {})  # as in trials of an earlier version
    assert row.compared == 4
    assert next_places(earlier, trials, 3) == expected


def test_draws_before_a_budget_was_given_up_are_repeated(trial: Make) -> None:
    """These draws led to no candidate, but later random draws depend on their number."""
    twenty = Budget.parse("20ms")
    whole = guidance_of(Row(), "10ms", "20ms", startup=9)
    trials = [trial(number, "random", {"place": number - 1}) for number in (1, 2)]
    for _ in range(3):
        whole.reject_duplicate(whole.propose(trials, 3, twenty).number)
    given_up = Unreached(budget="20ms", reason="", searched=True, number=3, repeats=whole.pop_duplicates())
    assert given_up.repeats == 3
    proposal = whole.propose(trials, 3, TEN)
    trials.append(trial(3, "guided", proposal.genotype))
    whole.record_step(proposal.number, 3)
    expected = next_places(whole, trials, 6)
    for known in (trials, trials[:2]):
        again = guidance_of(Row(), "10ms", "20ms", startup=9)
        again.replay(known, {twenty: given_up})
        assert again.pop_duplicates() == 0
        if known is not trials:
            proposal = again.propose(known, 3, TEN)
            assert dict(proposal.genotype) == dict(trials[2].genotype)
            again.record_step(proposal.number, 3)
        assert next_places(again, trials, 6) == expected


def test_a_point_trained_at_a_width_over_the_budget_can_be_proposed_at_another_width() -> None:
    """The score is that of an earlier run for a larger budget, or on a faster target. Points over the budget at every
    width are not proposed.
    """
    guidance = guidance_of(Row())
    known = EarlierTrial(run="", architecture=space.load(PUBLISHED[0]))
    for place in (1, 3, 5, 6):
        guidance.add_earlier(replace(known, genotype={"place": place}, miou=0.1 * place), 12.0)
    guidance.add_earlier(replace(known, genotype={"place": 7}), 12.0)
    assert next_places(guidance, [], 1) == [6]


def begun(startup: int) -> tuple[Sampler[Architecture], dict[int, int]]:
    """A sampler, and its numbers of the short trainings under way at all places, in random order."""
    sampler = Sampler(
        Stairs(), lambda candidates: samplers.make("surrogate", seed=0, startup=startup, candidates=candidates)
    )
    return sampler, {place: sampler.enter({"place": place}, 0.25) for place in (3, 0, 6, 7, 1, 5, 2, 4)}


def pause(sampler: Sampler[Architecture], numbers: dict[int, int]) -> None:
    for place, number in numbers.items():
        sampler.tell(number, Outcome(miou=0.1 * place, fidelity=0.25))


def test_the_best_paused_candidate_goes_on() -> None:
    sampler, numbers = begun(startup=1)
    pause(sampler, numbers)
    proposal = sampler.propose()
    assert (proposal.genotype["place"], proposal.fidelity) == (max(PLACES), 1.0)
    assert sampler.propose().genotype != proposal.genotype, "it is under way"


def test_a_candidate_drawn_again_during_its_training_can_go_on_once_paused() -> None:
    sampler, numbers = begun(startup=len(PLACES))
    drawn = [sampler.propose() for _ in range(40)]  # at random, since no outcome is known
    for each in drawn:
        sampler.withdraw(each.number)
    assert {each.genotype["place"] for each in drawn} == set(PLACES)
    pause(sampler, numbers)
    proposal = sampler.propose()
    assert (proposal.genotype["place"], proposal.fidelity) == (max(PLACES), 1.0)


def test_a_candidate_paused_at_a_rung_that_is_then_left_out_can_go_on() -> None:
    """Short trainings rank six places in reverse order."""
    sampler, numbers = begun(startup=1)
    pause(sampler, numbers)
    *known, last_but_one, last = PLACES
    for place in known:
        sampler.tell(sampler.enter({"place": place}), Outcome(miou=1 - 0.1 * place))
    proposals = [sampler.propose() for _ in range(2)]
    assert {(each.genotype["place"], each.fidelity) for each in proposals} == {(last_but_one, 1.0), (last, 1.0)}


def test_short_trainings_for_another_budget_make_no_candidate_go_on() -> None:
    """The only candidate that paused for 10 ms is the worst."""
    sampler = Sampler(Stairs(), surrogate)

    def trained(place: int, fidelity: float, budget: float) -> None:
        sampler.tell(
            sampler.enter({"place": place}, fidelity, budget), Outcome(miou=0.1 * (1 + place), fidelity=fidelity)
        )

    trained(4, 1.0, 10.0)
    trained(0, 0.25, 10.0)
    for place in (1, 3, 5, 7):
        trained(place, 0.25, 20.0)
    assert sampler.propose(10.0).genotype["place"] == max(PLACES)
    goes_on = sampler.propose(20.0)
    assert (goes_on.genotype["place"], goes_on.fidelity) == (7, 1.0), "no training for 20 ms has gone on"
