"""The deadline of a search: the end of proposals, and the work that still fits into the remaining time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.report.going import going_of
from nas.runs.folder import SPENT, RunFolder
from nas.runs.shares import Shares
from nas.runs.spent import Spent, Stopwatch, forget_spent, spent_of
from nas.runs.trial import PROGRESS, Epoch, Measured, Origin, Phase, Progress, Rung, Timed, Trial, append_epoch
from nas.search.console import Console
from nas.search.finish.finishing import _has_room
from nas.search.propose.deadline import Deadline
from nas.search.propose.proposals import Proposals
from nas.search.search import Candidate, Search
from nas.search.train.job import Job
from nas.storage.files import write_text
from nas.study import SearchPlan, Study
from nas.training import Scores, load_recipe
from space import strict

EPOCHS, FINISH = 4, 10


class Clock(Stopwatch):
    """A stopwatch that the test advances."""

    seconds = 0.0

    @property
    def spent(self) -> Spent:
        return replace(super().spent, seconds=self._before.seconds + self.seconds)


def study(minutes: float, **plan: int) -> Study:
    return Study(
        data=DataSpec(name="road_scenes", size=(180, 240), train_images=4, validation_images=2),
        budget="5ms",
        recipe=replace(load_recipe("quick"), epochs=EPOCHS),
        target="onnxruntime@cpu:1",
        space={"stages": (2,), "stage.depth": (1, 2), "decoder": ("none",), "detail": ("none",), "block": ("nonbt",)},
        search=SearchPlan(
            seeds=("fast-scnn",), sampler="random", finalists=2, finish_epochs=FINISH, minutes=minutes,
            **{"random_trials": 1000, "guided_trials": 0} | plan,
        ),
    )  # fmt: skip


def searched(
    search: Search,
    meter: Measures,
    *,
    epoch_seconds: float = 1.0,
    timing_seconds: float = 1.0,
    failing: Callable[[int], str] = lambda _: "",
) -> float:
    """Seconds in which one worker trains all proposals; `failing`: the failure of the training of a number, or none."""
    run = search.run
    with Clock(run) as clock:
        return _searched(search, meter, clock, epoch_seconds, timing_seconds, failing)


def _searched(
    search: Search,
    meter: Measures,
    clock: Clock,
    epoch_seconds: float,
    timing_seconds: float,
    failing: Callable[[int], str],
) -> float:
    run = search.run
    source = Proposals(search, meter, None, Deadline(search, clock, search.workers))
    while not source.waits() and (trial := source.next()) is not None:
        clock.seconds += timing_seconds
        for epoch in range(len(run.progress(trial, "search").history) + 1, trial.until(EPOCHS) + 1):
            clock.seconds += epoch_seconds
            scores = Scores(miou=0.3, class_iou=(0.3,) * 11, pixel_accuracy=0.3)
            append_epoch(
                run.phase_path(trial, "search"),
                Epoch(epoch=epoch, epochs=EPOCHS, loss=1.0, seconds=epoch_seconds, scores=scores),
            )
        source.finished(trial, failed=failing(trial.number))
    return clock.seconds


@pytest.mark.parametrize("epoch_seconds", [pytest.param(2.0, marks=pytest.mark.slow), 5.0])
def test_candidates_leave_time_to_finish_the_best(
    tmp_path: Path,
    search_of: Callable[[RunFolder], Search],
    arithmetic: Measures,
    capsys: pytest.CaptureFixture[str],
    epoch_seconds: float,
) -> None:
    minutes, certifying = 5.0, 20 + 3 * 12
    search = search_of(RunFolder.create(tmp_path / "run", study(minutes)))
    seconds = searched(search, arithmetic, epoch_seconds=epoch_seconds, timing_seconds=15)
    finishing = 2 * FINISH * epoch_seconds
    assert seconds + finishing + certifying < 60 * minutes
    assert seconds + finishing + certifying > 0.7 * 60 * minutes  # most of the time is used
    assert 2 <= len(search.run.trials()) < 20
    assert "no more candidates: the rest of the 5 minutes is needed to finish the best" in capsys.readouterr().out
    ended = [len(search.run.progress(trial, "search").history) for trial in search.run.trials() if trial.feasible]
    assert ended == [EPOCHS] * len(ended)


@pytest.mark.slow
def test_paused_candidates_go_on_to_the_end_when_no_more_are_proposed(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    asked = study(5.0, random_trials=2, guided_trials=1000)
    asked = replace(asked, search=replace(asked.search, sampler="surrogate"))
    search = search_of(RunFolder.create(tmp_path / "run", asked))
    seconds = searched(search, arithmetic, epoch_seconds=2, timing_seconds=5)
    assert seconds + 2 * FINISH * 2 < 60 * 5
    epochs = sorted(len(search.run.progress(trial, "search").history) for trial in search.run.trials())
    assert epochs[0] < EPOCHS  # some paused and do not go on
    assert epochs[-2:] == [EPOCHS, EPOCHS]  # the finalists went on


class Workers:
    """Two workers on an invented clock, which record when candidates begin or go on, and when they end."""

    def __init__(self, search: Search, meter: Measures, clock: Clock, epoch_seconds: float) -> None:
        self.begun: list[tuple[Trial, float]] = []
        self.ended: list[float] = []
        self._search = search
        self._clock = clock
        self._epoch_seconds = epoch_seconds
        self._source = Proposals(search, meter, None, Deadline(search, clock, search.workers))

    def work(self) -> None:
        """Work until nothing is left to do."""
        busy = self._fed([])
        while busy:
            busy.sort(key=lambda each: each[0])
            self._clock.seconds, trial = busy.pop(0)
            if self._train_epoch(trial) < trial.until(EPOCHS):
                busy.append((self._clock.seconds + self._epoch_seconds, trial))
            else:
                self.ended.append(self._clock.seconds)
                self._source.finished(trial, failed="")
            busy = self._fed(busy)

    def _fed(self, busy: list[tuple[float, Trial]]) -> list[tuple[float, Trial]]:
        """The trainings under way, and new ones for free workers, each with the end of its next epoch."""
        while len(busy) < 2 and not self._source.waits() and (trial := self._source.next()) is not None:
            self.begun.append((trial, self._clock.seconds))
            busy.append((self._clock.seconds + self._epoch_seconds, trial))
        return busy

    def _train_epoch(self, trial: Trial) -> int:
        run = self._search.run
        epoch = len(run.progress(trial, "search").history) + 1
        miou = random.Random(trial.architecture.key).random()
        scores = Scores(miou=miou, class_iou=(miou,) * 11, pixel_accuracy=miou)
        append_epoch(
            run.phase_path(trial, "search"),
            Epoch(epoch=epoch, epochs=EPOCHS, loss=1.0, seconds=self._epoch_seconds, scores=scores),
        )
        return epoch


def test_at_the_end_no_worker_idles_and_only_candidates_with_time_for_all_epochs_begin(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    """All draws pause after their first epoch; the best of them go on when no time is left for another draw."""
    asked = study(3.0, guided_trials=1)
    asked = replace(asked, search=replace(asked.search, sampler="surrogate", finish_epochs=0, finalists=1))
    search = search_of(RunFolder.create(tmp_path / "run", asked))
    search = replace(search, workers=replace(search.workers, concurrent=2))
    seconds, limit = 9.0, 60 * 3 - (20 + 3 * 12)
    with Clock(search.run) as clock:
        workers = Workers(search, arithmetic, clock, seconds)
        workers.work()
    trials = search.run.trials()
    assert max(workers.ended) <= limit
    new = [at for trial, at in workers.begun if len(trial.rungs) < 2]
    assert max(new) + EPOCHS * seconds <= limit
    went_on = [trial for trial, _ in workers.begun if len(trial.rungs) > 1]
    assert 2 <= len(went_on) < len(trials) - 1, "others stay paused"
    assert not any(trial.rungs[-1].guided for trial in went_on)
    epochs = sum(len(search.run.progress(trial, "search").history) for trial in trials)
    assert epochs * seconds > 2 * (limit - (EPOCHS - 1) * seconds), "nothing more could have gone on"
    with Clock(search.run) as clock:
        assert spent_of(search.run).closes(asked.search)
        again = Workers(search, arithmetic, clock, seconds)
        again.work()
    assert (again.begun, search.run.trials()) == ([], trials)


def test_a_paused_candidate_goes_on_beside_others_if_it_ends_in_time_or_before_them(trained: Search) -> None:
    run, (whole,) = trained.run, trained.run.trials()
    search = replace(trained, workers=replace(trained.workers, concurrent=2))
    shares = Shares.of(search.study, search.budgets)

    def candidate(number: int, name: str, epochs: Sequence[int], done: int) -> Trial:
        rungs = tuple(
            Rung(epochs=each, number=number + place, budget_milliseconds=5.0) for place, each in enumerate(epochs)
        )
        trial = replace(whole, number=number, architecture=space.load(name), rungs=rungs)
        run.write_trial(trial)
        train(run, trial, "search", done, EPOCHS)
        return trial

    known = [whole, candidate(2, "erfnet-encoder", (), EPOCHS)]
    going = candidate(3, "ndnet29-fcn32", (1, EPOCHS), 1)
    paused = replace(going, rungs=going.rungs[:1])

    def has_room(others: Sequence[Trial], seconds: float) -> bool:
        (run.root / SPENT).unlink(missing_ok=True)
        with Clock(run) as clock:
            clock.seconds = seconds
            return Deadline(search, clock, search.workers).has_room([*known, paused, *others], going, shares)

    left = 300 - (20 + 3 * 12) - FINISH * 5  # of two finalists, side by side
    assert (has_room([], left - 3 * 5), has_room([], left - 3 * 5 + 1)) == (True, False)
    longer, shorter = (candidate(5, "ndnet45-ende", (1, EPOCHS), done) for done in (1, 2))
    assert not has_room([shorter], left), "its two epochs would be over before"
    train(run, longer, "search", 1, EPOCHS)
    assert has_room([longer], left), "whose three epochs take as long"


def test_a_search_has_one_candidate_however_little_time_it_has(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    search = search_of(RunFolder.create(tmp_path / "run", study(0.01)))
    searched(search, arithmetic, epoch_seconds=60, timing_seconds=60)
    assert len(search.run.trials()) == 1


@pytest.mark.slow
def test_a_search_ends_with_its_plan_although_it_has_time_left(
    tmp_path: Path,
    search_of: Callable[[RunFolder], Search],
    arithmetic: Measures,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search = search_of(RunFolder.create(tmp_path / "run", study(600.0, random_trials=2)))
    searched(search, arithmetic, epoch_seconds=1, timing_seconds=1)
    assert [trial.origin for trial in search.run.trials() if trial.feasible] == ["seed", "random", "random"]
    assert "no more candidates" not in capsys.readouterr().out


def test_a_search_past_its_deadline_proposes_nothing_until_it_has_more_minutes(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    """This holds for any time that the finish took or that a kill lost."""
    run = RunFolder.create(tmp_path / "run", study(4.0))
    searched(search_of(run), arithmetic, epoch_seconds=5, timing_seconds=20)
    before = len(run.trials())
    assert spent_of(run).closes(run.study().search)
    (run.root / SPENT).write_text("seconds: 1\nclosed_minutes: 4\n", "utf-8")
    searched(search_of(run), arithmetic)
    assert len(run.trials()) == before
    assert steps_to_come(run) == (
        "train the best 2 candidates for 10 more epochs",
        "time the best network again and certify it",
    )
    run.write_study(replace(run.study(), search=replace(run.study().search, minutes=5.0)))
    (run.root / SPENT).write_text("seconds: 1\nclosed_minutes: 4\n", "utf-8")
    assert "more candidates" in steps_to_come(run)[0]
    searched(search_of(run), arithmetic, epoch_seconds=5, timing_seconds=60)
    assert len(run.trials()) > before


def steps_to_come(run: RunFolder) -> tuple[str, ...]:
    return going_of(run, run.study(), run.trials(), run.company(), answered=False).steps


@pytest.mark.slow
def test_another_candidate_replaces_a_failed_one(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    def broken(number: int) -> str:
        return "a loss of NaN" if number == 1 else ""

    search = search_of(RunFolder.create(tmp_path / "run", study(0.01)))
    searched(search, arithmetic, failing=broken)
    assert [bool(trial.failed) for trial in search.run.trials()] == [True, False]
    endless = search_of(RunFolder.create(tmp_path / "other", study(0.01)))
    searched(endless, arithmetic, failing=lambda _: "a loss of NaN")
    assert len(endless.run.trials()) == 3


@pytest.fixture
def trained(search_of: Callable[[RunFolder], Search], invented: Callable[[float], Latency], tmp_path: Path) -> Search:
    """A search of five minutes with a trained candidate, whose epochs took five seconds each."""
    search = search_of(RunFolder.create(tmp_path / "run", study(5.0)))
    candidate = Candidate(name="seed", origin="seed", architecture=space.load("fast-scnn"), parent="fast-scnn")
    trial = search.trial(1, candidate, invented(4.0))
    search.run.write_trial(trial)
    train(search.run, trial, "search", EPOCHS, EPOCHS)
    return search


def train(run: RunFolder, trial: Trial, phase: Phase, done: int, epochs: int) -> None:
    scores = Scores(miou=0.3, class_iou=(0.3,) * 11, pixel_accuracy=0.3)
    numbers = range(1, done + 1)
    history = tuple(Epoch(epoch=each, epochs=epochs, loss=1.0, seconds=5.0, scores=scores) for each in numbers)
    write_text(run.phase_path(trial, phase) / PROGRESS, strict.dump(Progress(history=history)))


def test_the_forecast_counts_the_time_of_timings_and_finished_trainings(trained: Search) -> None:
    run, (trial,) = trained.run, trained.run.trials()
    shares = Shares.of(trained.study, trained.budgets)

    def passed(seconds: float) -> bool:
        (run.root / SPENT).unlink(missing_ok=True)
        with Clock(run) as clock:
            clock.seconds = seconds
            return Deadline(trained, clock, trained.workers).passed([trial], shares)

    candidate, finalists = 15 + 4 * 5, 2 * FINISH * 5
    left = 300 - (20 + 3 * 12) - candidate - finalists
    assert (passed(left - 1), passed(left + 1)) == (False, True)
    measured = Measured(architecture=trial.architecture, milliseconds=4.0, disturbed=True, seconds=30.0)
    run.write_timed(trial.architecture, Timed(measured=(measured,), in_vain_seconds=10.0))
    left -= 3 * (30 - 12) + 40 - 15
    assert (passed(left - 1), passed(left + 1)) == (False, True)
    train(run, trial, "finish", FINISH, FINISH)
    left += FINISH * 5
    assert (passed(left - 1), passed(left + 1)) == (False, True)


@pytest.mark.parametrize(
    ("every", "scorings"),
    [(None, (1, 1)), (2, (EPOCHS // 2, FINISH // 2))],
    ids=["at the ends of schedules", "every other epoch"],
)
def test_the_forecast_counts_the_scorings_to_come(
    every: int | None, scorings: tuple[int, int], trained: Search
) -> None:
    """A candidate's epochs take five seconds, and three more where they are scored."""
    run, (trial,) = trained.run, trained.run.trials()
    search = replace(trained, study=replace(trained.study, recipe=replace(trained.study.recipe, score_every=every)))
    (*_, last) = run.progress(trial, "search").history
    first = (replace(last, epoch=each, scores=None) for each in range(1, EPOCHS))
    history = (*first, replace(last, seconds=8.0))
    write_text(run.phase_path(trial, "search") / PROGRESS, strict.dump(Progress(history=history)))
    shares = Shares.of(search.study, search.budgets)
    candidate, finalist = 4 * 5 + 3 * scorings[0], FINISH * 5 + 3 * scorings[1]
    certifying = 20 + 3 * 12

    def at(seconds: float) -> tuple[bool, int]:
        (run.root / SPENT).unlink(missing_ok=True)
        with Clock(run) as clock:
            clock.seconds = seconds
            deadline = Deadline(search, clock, search.workers)
            return deadline.passed([trial], shares), deadline.epochs_in_time(FINISH, [trial])

    left = 300 - certifying - (15 + candidate) - 2 * finalist
    assert (at(left - 1)[0], at(left + 1)[0]) == (False, True)
    left = 300 - certifying - finalist
    assert (at(left - 1)[1], at(left + 1)[1]) == (FINISH, FINISH - 1)


@pytest.mark.parametrize(
    ("concurrent", "threads", "seconds"),
    [
        (1, 2, 2 * FINISH * 5),
        (2, 2, FINISH * 5),
        (2, 1, 2 * FINISH * 5),  # half of the threads that the candidate had
        (2, 4, FINISH * 5),  # a gain by more threads is not counted on
    ],
)
def test_the_forecast_counts_the_workers_of_the_finish(
    trained: Search, concurrent: int, threads: int, seconds: float
) -> None:
    search = replace(trained, workers=replace(trained.workers, threads=2))
    finishing = replace(search.workers, concurrent=concurrent, threads=threads)
    shares = Shares.of(search.study, search.budgets)

    def passed(spent: float) -> bool:
        (search.run.root / SPENT).unlink(missing_ok=True)
        with Clock(search.run) as clock:
            clock.seconds = spent
            return Deadline(search, clock, finishing).passed(search.run.trials(), shares)

    left = 300 - (20 + 3 * 12) - (15 + 4 * 5) - seconds
    assert (passed(left - 1), passed(left + 1)) == (False, True)


@pytest.mark.parametrize(("origin", "seconds"), [("seed", 10), ("company", 5)])
def test_a_network_that_was_trained_by_the_workers_of_the_finish_takes_as_long_there(
    trained: Search, origin: Origin, seconds: float
) -> None:
    """They have half of the threads that candidates have."""
    trial = replace(trained.run.trials()[0], origin=origin)
    train(trained.run, trial, "search", EPOCHS, EPOCHS)
    search = replace(trained, workers=replace(trained.workers, threads=2))
    with Clock(search.run) as clock:
        clock.seconds = 300 - (20 + 3 * 12) - (FINISH - 1) * seconds
        deadline = Deadline(search, clock, replace(search.workers, threads=1))
        assert deadline.epochs_in_time(FINISH, [trial]) == FINISH - 1


@pytest.mark.parametrize(
    ("minutes", "spent", "words"),
    [(0, 0, "about 1 min 50 s left"), (4, 170, "about 1 min 00 s left"), (4, 250, "about 1 min 50 s left")],
)
def test_the_time_left_is_that_of_the_remaining_trainings(
    minutes: float,
    spent: float,
    words: str,
    trained: Search,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run was resumed for the last epochs of its two finalists."""
    now = [100.0]
    monkeypatch.setattr("nas.search.console.time.monotonic", lambda: now[0])
    run, (trial,) = trained.run, trained.run.trials()
    plan = replace(trained.study.search, random_trials=0, minutes=minutes)
    run.write_study(replace(trained.study, search=plan))
    (run.root / SPENT).write_text(f"seconds: {spent}\n", "utf-8")
    train(run, trial, "finish", FINISH - 2, FINISH)
    console = Console(run, run.study())
    now[0] += 10
    train(run, trial, "finish", FINISH - 1, FINISH)
    console.epoch(Job(trial=trial, phase="finish"), FINISH - 1, 1.5, 0.3)
    assert words in capsys.readouterr().out, "one epoch of the first, and ten of the other, in ten seconds each"


def test_a_deadline_waits_while_all_workers_train_before_the_first_epoch_is_timed(trained: Search) -> None:
    run, (trial,) = trained.run, trained.run.trials()
    shares = Shares.of(trained.study, trained.budgets)

    def blind(under_way: int) -> bool:
        with Clock(run) as clock:
            return Deadline(trained, clock, trained.workers).is_blind([trial], shares, under_way)

    assert not blind(1)
    train(run, trial, "search", 0, EPOCHS)
    assert (blind(0), blind(1)) == (False, True)


@pytest.mark.slow
def test_all_workers_train_before_the_first_epoch_is_timed(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    search = search_of(RunFolder.create(tmp_path / "run", study(5.0)))
    search = replace(search, workers=replace(search.workers, concurrent=2))
    with Clock(search.run) as clock:
        source = Proposals(search, arithmetic, None, Deadline(search, clock, search.workers))
        begun = []
        for _ in range(2):
            assert not source.waits()
            begun.append(source.next())
        assert source.waits()
        trial = begun[0]
        assert trial is not None
        train(search.run, trial, "search", 1, EPOCHS)
        assert not source.waits()


def test_another_certificate_may_take_the_time_left_beside_those_of_other_budgets(trained: Search) -> None:
    with Clock(trained.run) as clock:
        clock.seconds = 240
        assert _has_room(trained, clock, 0, 60.0)
        assert not spent_of(trained.run).closes(trained.study.search)
        assert not _has_room(trained, clock, 1, 31.0)
        assert spent_of(trained.run).closes(trained.study.search)
    with Clock(trained.run) as again:
        assert _has_room(trained, again, 1, 1000.0), "who goes on asks for it"
    forget_spent(trained.run)
    with Clock(trained.run) as clock:
        clock.seconds = 200
        clock.close(trained.study.search.minutes)  # interrupted while the best are finished
    with Clock(trained.run) as again:
        assert _has_room(trained, again, 0, 99.0)
        assert not _has_room(trained, again, 0, 101.0), "what was left of its time still is"
