"""Candidates and latencies that a new run takes over from earlier runs, and runs that cannot be compared."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import space
from nas.data import DataSpec
from nas.data.fingerprint import Fingerprint
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.runs.data_seen import hold_to_data
from nas.runs.earlier import MOST_FIDELITY, Earlier, not_taken_over, read_earlier, take_over, write_earlier
from nas.runs.folder import EARLIER, RunFolder
from nas.runs.initial_weights import hold_to_initial_weights
from nas.runs.trial import Epoch, Rung, append_epoch, forget_epochs
from nas.search.measure.remembered import RememberedTiming
from nas.search.propose.candidates import sampler_of
from nas.search.propose.guidance import Guidance
from nas.search.propose.proposals import Proposals
from nas.search.propose.sampler import Outcome
from nas.search.search import Search
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores
from space import Architecture, UserError

SIZE = (180, 240)
CLASSES = 11
SEEN = Fingerprint(
    classes=("road", "car"), train_images="a", train_labels="b", validation_images="c", validation_labels="d"
)
ASKED = Study(
    data=DataSpec(size=SIZE),
    budget="10ms",
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=4, batch_size=4),
    space={"stages": (3,), "stage.depth": (3, 8)},
    search=SearchPlan(seeds=("ndnet29-fcn32",), random_trials=3, guided_trials=1, stop_weak=False),
)


class Arithmetic:
    """A device on which some hundred million multiply-adds take a millisecond; it counts what it times."""

    def __init__(self, invented: Callable[[float], Latency], **conditions: Any) -> None:
        self._invented = invented
        self._conditions = conditions
        self.timed: list[str] = []

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        self.timed.append(architecture.key)
        milliseconds = 0.1 + space.multiply_adds(architecture, SIZE, CLASSES) / 1e8
        return replace(self._invented(milliseconds), **self._conditions)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]

    def kept_table(self) -> None:
        return None

    def left_out(self) -> tuple[str, ...]:
        return ()

    def halt(self) -> None:
        raise AssertionError("nothing is measured by another thread")


@pytest.fixture(scope="module")
def proposals(
    invented: Callable[[float], Latency], search_of: Callable[[RunFolder], Search]
) -> Callable[[RunFolder], Proposals]:
    return lambda run: Proposals(search_of(run), Arithmetic(invented), None)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, proposals: Callable[[RunFolder], Proposals]) -> RunFolder:
    """A run with a whole training, a shorter one and one that broke; tests must not change it."""
    run = RunFolder.create(tmp_path_factory.mktemp("earlier") / "night", ASKED)
    hold_to_data(run.root, SEEN, root=None, begun=False)
    source = proposals(run)
    for epochs, failed in ((4, ""), (1, ""), (1, "a loss of NaN")):
        trial = source.next()
        assert trial is not None
        scores = Scores(miou=0.1 * trial.number, class_iou=(0.3,) * CLASSES, pixel_accuracy=0.3)
        for number in range(1, epochs + 1):
            epoch = Epoch(epoch=number, epochs=4, loss=1.0, seconds=1.0, scores=scores)
            append_epoch(run.phase_path(trial, "search"), epoch)
        source.finished(trial, failed=failed)
        if epochs < 4 and not failed:
            run.write_trial(replace(trial, stopped=True))
    source.next()  # a candidate whose training has not begun
    return run


@pytest.fixture
def new(tmp_path: Path) -> Callable[..., RunFolder]:
    """A new run of the same study, except for some fields."""

    def make(**other: Any) -> RunFolder:
        return RunFolder.create(tmp_path / "new", replace(ASKED, **other))

    return make


def test_trained_candidates_and_latencies_are_taken_over(earlier: RunFolder, new: Callable[..., RunFolder]) -> None:
    run = new(recipe=replace(ASKED.recipe, epochs=8, seed=3, probe=True))
    (words,) = take_over(run, run.study(), SEEN, [earlier])
    assert words == f"from    {earlier.root}: 2 trained candidates, 4 latencies"
    before = {trial.architecture.key: trial for trial in earlier.trials()}
    found = read_earlier(run).trials
    assert {each.architecture.key for each in found} == set(before)
    for each in found:
        trial = before[each.architecture.key]
        assert (each.run, each.latency) == ("night", trial.latency)
        assert each.genotype == dict(trial.genotype)
    scored = {each.fidelity: each.miou for each in found if each.miou is not None}
    assert scored == {4 / 8: pytest.approx(0.1), 1 / 8: pytest.approx(0.2)}


def test_trainings_of_earlier_runs_rank_below_equally_long_own_ones(
    earlier: RunFolder, new: Callable[..., RunFolder]
) -> None:
    run = new()
    take_over(run, run.study(), SEEN, [earlier])
    assert max(each.fidelity for each in read_earlier(run).trials) == MOST_FIDELITY < 1


@pytest.mark.parametrize(("done", "fidelity"), [(1, None), (2, 2 / 4), (3, 2 / 4), (4, MOST_FIDELITY)])
def test_a_candidate_killed_on_its_way_to_a_rung_counts_with_its_last_rung(
    done: int, fidelity: float | None, earlier: RunFolder, new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    source = RunFolder(shutil.copytree(earlier.root, tmp_path / "night"))
    whole = source.trials()[0]
    rungs = tuple(Rung(epochs=epochs, number=1, budget_milliseconds=10.0) for epochs in (2, 4))
    source.write_trial(replace(whole, rungs=rungs))
    forget_epochs(source.phase_path(whole, "search"), after=done)
    run = new()
    take_over(run, run.study(), SEEN, [source])
    (found,) = (each for each in read_earlier(run).trials if each.architecture == whole.architecture)
    assert found.miou == (None if fidelity is None else pytest.approx(0.1))
    assert found.fidelity == (fidelity or MOST_FIDELITY)


def test_only_a_candidate_over_its_budget_at_every_width_counts_as_over_it(
    earlier: RunFolder, new: Callable[..., RunFolder], tmp_path: Path, invented: Callable[[float], Latency]
) -> None:
    source = RunFolder(shutil.copytree(earlier.root, tmp_path / "night"))
    untrained = source.trials()[-1]
    busy = replace(invented(11.0), ci_low_milliseconds=9.0, flagged=("a busy machine",))
    for latency, over in ((invented(9.0), False), (invented(11.0), True), (busy, False)):
        source.write_trial(replace(untrained, latency=latency))
        run = RunFolder.create(tmp_path / str(len(list(tmp_path.iterdir()))), replace(ASKED, budget="5ms"))
        take_over(run, run.study(), SEEN, [source])
        found = {each.architecture.key: each for each in read_earlier(run).trials}
        assert found.pop(untrained.architecture.key).over == over
        assert not any(each.over for each in found.values())


@pytest.mark.parametrize(("over", "told"), [(False, False), (True, True), (None, True)])
def test_timed_candidates_over_the_budget_reach_the_sampler_as_in_earlier_versions(
    over: bool | None,
    told: bool,
    earlier: RunFolder,
    new: Callable[..., RunFolder],
    proposals: Callable[[RunFolder], Proposals],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = new(budget="5ms")
    take_over(run, run.study(), SEEN, [earlier])
    untrained = next(each for each in read_earlier(run).trials if each.miou is None)
    write_earlier(run, Earlier(trials=(replace(untrained, over=over),)))
    recalled: list[object] = []
    monkeypatch.setattr(Guidance, "add_earlier", lambda *known: recalled.append(known))
    proposals(run)
    assert bool(recalled) == told


def test_a_random_draw_counts_as_random_only_after_a_whole_training_on_the_same_terms(
    earlier: RunFolder, new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    source = RunFolder(shutil.copytree(earlier.root, tmp_path / "night"))
    whole = source.trials()[0]
    for origin, study, drawn_for in (
        ("seed", ASKED, 0.0),
        ("random", ASKED, whole.budget_milliseconds),
        ("random", replace(ASKED, budget="5ms"), whole.budget_milliseconds),
        ("random", replace(ASKED, recipe=replace(ASKED.recipe, epochs=8)), 0.0),
        ("random", replace(ASKED, space={**ASKED.space, "stage.depth": (3, 8, 12)}), 0.0),
        ("random", replace(ASKED, target="onnxruntime@cpu:2"), 0.0),
    ):
        source.write_trial(replace(whole, origin=origin))
        run = RunFolder.create(tmp_path / str(len(list(tmp_path.iterdir()))), study)
        take_over(run, study, SEEN, [source])
        found = {each.drawn_for_milliseconds for each in read_earlier(run).trials}
        assert found - {0.0} == {drawn_for} - {0.0}, (origin, study)


def test_only_the_latency_is_taken_over_of_a_seed_outside_the_space(
    earlier: RunFolder, new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    source = RunFolder(shutil.copytree(earlier.root, tmp_path / "night"))
    seed = source.trials()[0]
    source.write_trial(replace(seed, parent="rdrnet-s"))
    run = new()
    (words,) = take_over(run, run.study(), SEEN, [source])
    assert words.endswith("1 trained candidate (1 left out, from another space or unfinished), 4 latencies")
    (found,) = (each for each in read_earlier(run).trials if each.architecture == seed.architecture)
    assert (found.latency, found.miou, found.genotype) == (seed.latency, None, {})


def test_trainings_on_another_target_count_but_latencies_do_not(
    earlier: RunFolder, new: Callable[..., RunFolder], proposals: Callable[[RunFolder], Proposals]
) -> None:
    run = new(target="onnxruntime@cpu:2")
    (words,) = take_over(run, run.study(), SEEN, [earlier])
    assert "2 trained candidates (2 left out" in words
    assert words.endswith("no latencies: they are for onnxruntime@cpu:1")
    assert read_earlier(run).latencies == {}
    proposals(run)


def test_the_order_of_precisions_in_a_study_does_not_matter(
    earlier: RunFolder, new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    source = RunFolder(shutil.copytree(earlier.root, tmp_path / "night"))
    before = replace(ASKED, precisions=("fp32", "int8"))
    source.write_study(before)
    run = new(precisions=("int8", "fp32"))
    (words,) = take_over(run, run.study(), SEEN, [source])
    assert words.endswith("4 latencies")
    other = RunFolder.create(tmp_path / "other", replace(ASKED, precisions=("int8",)))
    (words,) = take_over(other, other.study(), SEEN, [source])
    assert words.endswith("no latencies: they are for onnxruntime@cpu:1 in fp32, int8")


def test_the_sampler_knows_earlier_candidates_and_the_plan_does_not_count_them(
    earlier: RunFolder, new: Callable[..., RunFolder], proposals: Callable[[RunFolder], Proposals]
) -> None:
    run = new(search=replace(ASKED.search, random_trials=0, sampler="surrogate"))
    take_over(run, run.study(), SEEN, [earlier])
    given = []
    source = proposals(run)
    while (trial := source.next()) is not None:
        given.append(trial)
        source.finished(trial, failed="a loss of NaN")
    assert [trial.origin for trial in given] == ["seed", "guided"]
    assert [trial.number for trial in run.trials()] == [1, 2]  # none of the earlier run


@pytest.mark.slow
def test_a_resumed_run_knows_earlier_candidates_although_their_run_is_gone(
    earlier: RunFolder, new: Callable[..., RunFolder], proposals: Callable[[RunFolder], Proposals], tmp_path: Path
) -> None:
    run = new(search=replace(ASKED.search, seeds=(), random_trials=0, guided_trials=2))
    take_over(run, run.study(), SEEN, [earlier])
    twin = RunFolder.create(tmp_path / "twin", run.study())
    (twin.root / EARLIER).write_bytes((run.root / EARLIER).read_bytes())
    whole = proposals(twin)
    expected = []
    while (trial := whole.next()) is not None:
        expected.append(trial.architecture.key)
        whole.finished(trial, failed="a loss of NaN")
    found = []
    for _ in range(2):  # begins anew for each
        source = proposals(run)
        trial = source.next()
        assert trial is not None
        found.append(trial.architecture.key)
        source.finished(trial, failed="a loss of NaN")
    assert found == expected


def test_a_run_goes_on_although_its_narrowed_space_lacks_earlier_candidates(
    earlier: RunFolder, new: Callable[..., RunFolder], proposals: Callable[[RunFolder], Proposals]
) -> None:
    run = new(search=replace(ASKED.search, seeds=(), random_trials=0, guided_trials=1, sampler="surrogate"))
    take_over(run, run.study(), SEEN, [earlier])
    run.write_study(replace(run.study(), space={"stages": (2,)}))
    trial = proposals(run).next()
    assert trial is not None
    assert len(trial.architecture.stages) == 2


def test_candidates_of_an_earlier_run_can_be_proposed_again() -> None:
    """An earlier candidate guides the sampler, but becomes a candidate only by a training of this run."""
    narrow = replace(ASKED, space={**ASKED.space, "block": ("nonbt",), "activation": ("relu",)}).architectures()
    sampler = sampler_of(narrow, kind="surrogate", startup=1, seed=0)
    point = sampler_of(narrow, kind="random", startup=0, seed=1).propose().genotype
    other = sampler_of(narrow, kind="random", startup=0, seed=2).propose().genotype
    sampler.add_earlier(point, Outcome(miou=0.9, fidelity=MOST_FIDELITY))
    sampler.add_earlier(other, Outcome(miou=0.1, fidelity=MOST_FIDELITY))
    proposed = [sampler.propose() for _ in range(3)]  # the sampler knows earlier candidates and repeats none of its own
    assert len({tuple(sorted(each.genotype.items())) for each in proposed}) == 3


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"data": DataSpec(size=(64, 96))}, "expected a run at 64x96, got .* at 180x240"),
        ({"recipe": replace(ASKED.recipe, learning_rate=0.1)}, "with another learning_rate; its scores"),
        ({"space": {"stages": (2,)}}, "trained candidates of this study's space, got .* with none among its 4"),
    ],
)
def test_earlier_runs_that_cannot_be_compared_are_refused(
    earlier: RunFolder, new: Callable[..., RunFolder], other: dict[str, Any], expected: str
) -> None:
    run = new(**other)
    with pytest.raises(UserError, match=expected):
        take_over(run, run.study(), SEEN, [earlier])
    assert read_earlier(run).trials == ()


def test_initial_weights_are_compared_by_content_and_not_by_file_name(earlier: RunFolder, tmp_path: Path) -> None:
    """The new run has the same weights in another file, other weights in a file of the same name, or none."""
    source = RunFolder.open(shutil.copytree(earlier.root, tmp_path / "earlier"))
    files = {}
    for place, value in (("here", 1.0), ("elsewhere", 1.0), ("others", 2.0)):
        files[place] = tmp_path / place / "w.pth"
        files[place].parent.mkdir()
        torch.save({"stem.weight": torch.tensor([value])}, files[place])
    hold_to_initial_weights(source.root, str(files["here"]), begun=True, trained=False)
    for place, file in (*files.items(), ("none", None)):
        init = None if file is None else str(file)
        run = RunFolder.create(tmp_path / "new" / place, replace(ASKED, recipe=replace(ASKED.recipe, init=init)))
        hold_to_initial_weights(run.root, init, begun=True, trained=False)
        if place in ("here", "elsewhere"):
            assert take_over(run, run.study(), SEEN, [source])
        else:
            with pytest.raises(UserError, match="with another init; its scores"):
                take_over(run, run.study(), SEEN, [source])


def test_earlier_runs_on_other_data_are_refused(earlier: RunFolder, new: Callable[..., RunFolder]) -> None:
    run = new()
    with pytest.raises(UserError, match=r"expected a run on the same data, got .*: the train labels have changed"):
        take_over(run, run.study(), replace(SEEN, train_labels="other"), [earlier])


def test_impossible_uses_of_from_are_refused_in_one_line(
    nas: Callable[..., Any], earlier: RunFolder, tmp_path: Path
) -> None:
    said = nas("search", "--resume", earlier.root, "--from", earlier.root).refusal()
    assert "--from is for new runs" in said
    assert "expected a run's folder" in nas("search", "--budget", "9ms", "--from", tmp_path / "none").refusal()
    data = DataSpec(size=(48, 64), train_images=4, validation_images=2)
    (tmp_path / "study.yaml").write_text(replace(ASKED, data=data).to_yaml())
    words = (tmp_path / "study.yaml", "--from", earlier.root, "--out", tmp_path / "out")
    assert "expected a run on the same data" in nas("search", *words).refusal()
    assert not (tmp_path / "out").exists()


def test_a_run_interrupted_before_taking_earlier_runs_over_does_so_when_resumed(
    earlier: RunFolder, tmp_path: Path
) -> None:
    RunFolder.create(tmp_path / "new", ASKED, earlier=[earlier])
    run = RunFolder.open(tmp_path / "new")  # before the data were read
    (source,) = not_taken_over(run)
    assert source.root == earlier.root.resolve()
    take_over(run, run.study(), SEEN, [source])
    assert not_taken_over(run) == []
    run.withdraw()
    assert not_taken_over(RunFolder.create(run.root, ASKED)) == [], "another run in the same folder"


def test_an_earlier_run_missing_before_it_was_taken_over_is_named(tmp_path: Path) -> None:
    source = RunFolder.create(tmp_path / "gone", ASKED)
    run = RunFolder.create(tmp_path / "new", ASKED, earlier=[source])
    source.withdraw()
    with pytest.raises(UserError, match=r"expected the run .*gone, which .*new has not taken over yet"):
        not_taken_over(run)


def test_a_run_resumed_before_taking_earlier_runs_over_compares_the_data(
    nas: Callable[..., Any], earlier: RunFolder, tmp_path: Path
) -> None:
    data = DataSpec(size=(48, 64), train_images=4, validation_images=2)
    run = RunFolder.create(tmp_path / "new", replace(ASKED, data=data), earlier=[earlier])
    said = nas("search", "--resume", run.root).refusal()
    assert f"expected a run on the same data, got {earlier.root.resolve()}" in said


def test_networks_measured_under_the_same_conditions_are_not_measured_again(
    invented: Callable[[float], Latency],
) -> None:
    small, large = space.load("ndnet29-fcn32"), space.load("ndnet45-fcn32")
    known = {each.key: Arithmetic(invented).measure(each) for each in (small, large)}
    device = Arithmetic(invented)
    timing = RememberedTiming(device, known)
    assert timing.measure(small) == known[small.key]
    assert device.timed == [small.key]  # conditions are known only after the first measurement
    assert timing.measure_together([large, small]) == [known[large.key], known[small.key]]
    assert device.timed == [small.key]
    timing.measure(small, weights=Path("some"))  # a finished network is always measured
    assert device.timed == [small.key] * 2


@pytest.mark.parametrize(
    "other",
    [{"environment": {"cpu": "another"}}, {"reference_milliseconds": 6.0}, {"target": "onnxruntime@cpu:2"}],
    ids=lambda other: next(iter(other)),
)
def test_networks_measured_under_other_conditions_are_measured_again(
    invented: Callable[[float], Latency], other: dict[str, Any]
) -> None:
    small, large = space.load("ndnet29-fcn32"), space.load("ndnet45-fcn32")
    device = Arithmetic(invented, **other)
    timing = RememberedTiming(device, {large.key: Arithmetic(invented).measure(large)})
    timing.measure_together([small])
    timing.measure_together([large])
    assert device.timed == [small.key, large.key]


@pytest.mark.parametrize("other", [{"flagged": ("a busy machine",)}, {"ci_low_milliseconds": 0.01}], ids=str)
def test_disturbed_and_unsure_measurements_are_taken_again(
    invented: Callable[[float], Latency], other: dict[str, Any]
) -> None:
    small, large = space.load("ndnet29-fcn32"), space.load("ndnet45-fcn32")
    device = Arithmetic(invented)
    timing = RememberedTiming(device, {large.key: replace(Arithmetic(invented).measure(large), **other)})
    timing.measure_together([small, large])
    timing.measure_together([large])
    assert device.timed == [small.key, large.key, large.key]
