"""Contract of samplers: every file in nas/samplers, and every installed sampler of another package, is tested here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nas import samplers
from nas.search.propose.candidates import sampler_of
from nas.search.propose.sampler import Outcome, Sampler
from nas.study import SearchPlan
from space import Architecture, Space, UserError
from space.axes import searched

ENCODERS = {"decoder": ("none",), "detail": ("none",)}  # small architectures are drawn faster
SPACE = Space(ranges={**searched(), **ENCODERS, "stages": (2,), "stage.depth": (1, 2)}, size=(180, 240))
every_sampler = pytest.mark.parametrize("name", samplers.names())


def conversation(name: str, seed: int, steps: int = 9) -> list[str]:
    """The keys that a sampler proposes in so many steps while it gets outcomes of whole and short trainings, failures
    and candidates over the budget. One outcome comes only after the next proposal.
    """
    sampler = sampler_of(SPACE, kind=name, startup=3, seed=seed)
    outcomes = (
        Outcome(miou=0.3, violations={"latency": -0.05}),
        Outcome(miou=None, violations={"latency": 0.4}),
        Outcome(miou=None, violations={"latency": -0.1}),
        Outcome(miou=0.2, fidelity=0.25, violations={"latency": -0.1}),
    )
    keys, waiting = [], []
    for step in range(steps):
        proposal = sampler.propose()
        number, architecture, genotype = proposal.number, proposal.built, proposal.genotype
        keys.append(architecture.key)
        for each in waiting:
            sampler.tell(*each)
        waiting = [(number, outcomes[step % 4])]
        if step != 6:
            sampler.tell(*waiting.pop())
        if step == 4:
            sampler.tell(sampler.enter(genotype), Outcome(miou=0.5, violations={"latency": -0.02}))
        if step == 5:
            sampler.withdraw(sampler.propose().number)
    return keys


@every_sampler
def test_a_sampler_proposes_points_of_the_space_with_their_genotypes(name: str) -> None:
    sampler = sampler_of(SPACE, kind=name, startup=2, seed=0)
    for step in range(6):
        proposal = sampler.propose()
        number, architecture, genotype = proposal.number, proposal.built, proposal.genotype
        assert SPACE.genotype(architecture) == genotype
        assert architecture.build(3) is not None
        sampler.tell(number, Outcome(miou=0.1 * step, violations={"latency": -0.1}))


@every_sampler
def test_the_same_seed_and_the_same_outcomes_propose_the_same(name: str) -> None:
    first = conversation(name, seed=3)
    assert conversation(name, seed=3) == first
    assert conversation(name, seed=4, steps=5)[3:] != first[3:5]


@every_sampler
def test_a_sampler_proposes_another_candidate_with_any_number_of_startup_trials(name: str) -> None:
    for startup in (0, 50):
        sampler = sampler_of(SPACE, kind=name, startup=startup, seed=0)
        proposal = sampler.propose()
        number, architecture = proposal.number, proposal.built
        sampler.tell(number, Outcome(miou=0.2))
        assert sampler.propose().built.key != architecture.key


@every_sampler
def test_a_sampler_proposes_further_candidates_while_others_are_running(name: str) -> None:
    sampler = sampler_of(SPACE, kind=name, startup=2, seed=0)
    for step in range(3):
        number = sampler.propose().number
        sampler.tell(number, Outcome(miou=0.1 * step))
    assert len({sampler.propose().built.key for _ in range(4)}) == 4


@every_sampler
def test_a_sampler_goes_on_after_only_failures_and_short_trainings(name: str) -> None:
    for outcome in (
        Outcome(miou=None),
        Outcome(miou=None, violations={"latency": 1.0}),
        Outcome(miou=0.4, fidelity=0.1),
    ):
        sampler = sampler_of(SPACE, kind=name, startup=1, seed=0)
        keys = set()
        for _ in range(4):
            proposal = sampler.propose()
            number, architecture = proposal.number, proposal.built
            keys.add(architecture.key)
            sampler.tell(number, outcome)
        assert len(keys) == 4


@every_sampler
def test_only_paused_candidates_are_proposed_again_and_new_ones_begin_at_the_lowest_rung(name: str) -> None:
    """With rungs a candidate trains up to the next one; a sampler that resumes nothing trains each to the end."""
    rungs = (0.25, 1.0)
    sampler = sampler_of(SPACE, kind=name, startup=2, seed=0, rungs=rungs)
    reached: dict[str, float] = {}
    for _ in range(12):
        proposal = sampler.propose()
        behind = reached.get(proposal.built.key, 0.0)
        assert behind < 1
        assert proposal.fidelity == (min(each for each in rungs if each > behind) if samplers.resumes(name) else 1.0)
        reached[proposal.built.key] = proposal.fidelity
        sampler.tell(proposal.number, Outcome(miou=proposal.fidelity * 0.01 * len(reached), fidelity=proposal.fidelity))
    assert sampler.begins_at == (rungs[0] if samplers.resumes(name) else 1.0)
    assert 1.0 in reached.values(), "some are trained to the end"
    assert (rungs[0] in reached.values()) == samplers.resumes(name)


@every_sampler
def test_answers_that_lead_nowhere_in_narrow_ranges_are_passed_over(name: str) -> None:
    """Only some blocks can be sums of paths, a question that comes after the question for the block."""
    narrow = Space(ranges={**searched(), "stages": (2,), "stage.depth": (1, 2), "rep": (True,)}, size=(180, 240))
    sampler = sampler_of(narrow, kind=name, startup=3, seed=0)
    for step in range(6):
        proposal = sampler.propose()
        number, architecture, genotype = proposal.number, proposal.built, proposal.genotype
        assert narrow.genotype(architecture) == genotype
        assert architecture.rep
        sampler.tell(number, Outcome(miou=0.1 * step))


@every_sampler
def test_ranges_without_any_architecture_are_named(name: str) -> None:
    sampler = sampler_of(Space(ranges={"stage.rates": ("8",)}, size=(48, 64)), kind=name, startup=0, seed=0)
    with pytest.raises(UserError, match=r"space\.stage\.rates: none of \['8'\] is possible .* add an option"):
        sampler.propose()


@every_sampler
def test_a_study_can_name_any_sampler(name: str) -> None:
    assert SearchPlan(sampler=name).sampler == name


def test_an_unknown_sampler_is_refused_with_the_known_samplers() -> None:
    with pytest.raises(UserError) as refused:
        SearchPlan(sampler="tpee")
    known = ", ".join(samplers.names())
    assert str(refused.value) == f"search.sampler: expected one of {known}; got 'tpee'; did you mean 'tpe'?"


def test_a_sampler_with_the_interface_of_an_earlier_version_is_refused_in_words(tmp_path: Path) -> None:
    """The sampler is installed as a sampler of another package."""
    (tmp_path / "old.py").write_text("def make(seed, startup):\n    return None\n")
    metadata = tmp_path / "old-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: old\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[framebudget.samplers]\nold = old\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from nas import samplers
from space import UserError
try:
    samplers.make("old", seed=0, startup=1, candidates=None)
except UserError as refused:
    print(refused)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "expected make(seed, startup, candidates) of 'old', got make(seed, startup); install" in done.stdout


def test_other_samplers_do_not_load_the_surrogate() -> None:
    code = """
import sys
from nas.search.propose.candidates import sampler_of
from nas.search.propose.sampler import Outcome
from space import Space
sampler = sampler_of(Space(), kind="random", startup=0, seed=0)
sampler.tell(sampler.propose().number, Outcome(miou=0.1))
sampler.withdraw(sampler.propose().number)
print(*(name for name in ("optuna", "nas.surrogate.sampler", "nas.surrogate.gaussian") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["optuna"]


@pytest.mark.share(3)
@every_sampler
def test_finding_samplers_does_not_load_optuna(name: str) -> None:
    code = f"import sys; from nas import samplers; print('{name}' in samplers.names(), 'optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("name", [name for name in samplers.names() if samplers.stateless(name)])
@pytest.mark.parametrize("startup", [2, 50])
def test_a_stateless_sampler_goes_on_alike_after_proposals_were_only_entered(name: str, startup: int) -> None:
    def made() -> Sampler[Architecture]:
        return sampler_of(SPACE, kind=name, startup=startup, seed=5, rungs=(0.25, 1.0))

    first, again = made(), made()
    for step in range(5):
        proposal = first.propose()
        number = again.enter(proposal.genotype, proposal.fidelity)
        if proposal.in_vain == 0:
            assert number == proposal.number
        outcome = Outcome(miou=0.1 * step, fidelity=proposal.fidelity, violations={"latency": -0.1})
        first.tell(proposal.number, outcome)
        again.tell(number, outcome)
    following = [(each.propose().genotype, each.propose().fidelity) for each in (first, again)]
    assert following[0] == following[1]
