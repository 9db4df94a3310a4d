"""Prints the events of a search, one line each, so that a log reads like the screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

from nas.data import Findings
from nas.host.words import counted
from nas.latency.budget import Budget, settling_in
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.certificate import Certificate
from nas.runs.finish_recipe import FinishRecipe
from nas.runs.folder import WINNERS, RunFolder
from nas.runs.shares import Shares
from nas.runs.spent import spent_of
from nas.runs.to_finish import to_finish
from nas.runs.trained import PRETRAINED
from nas.runs.trial import Epoch, Trial, read_progress
from nas.runs.unreached import reachable, unreached
from nas.search.train.job import Job
from nas.study import Study
from nas.terminal import STARVED, ProgressLine, answering, data_table, duration, waiting

PHASES = {"search": "train", "finish": "finish"}


class Console:
    """Prints a run's events, and the time left as forecast from the epochs so far."""

    def __init__(self, run: RunFolder, study: Study) -> None:
        self._run = run
        self._study = study
        self._budgets = study.asked
        self._start = time.monotonic()
        self._seconds_before = spent_of(run).seconds
        self._first_candidate: float | None = None  # a forecast leaves out the timing of published networks before it
        self._lock = threading.Lock()  # one thread reports trainings, another one candidates
        self._epochs_left = float(_epochs_left(run, study))
        self._epochs_done = 0
        self.progress = ProgressLine(tell=lambda words: self.step(f"        {words}"))
        """Progress of long work in this process itself."""

    def asks(self, study: Study) -> None:
        """Replace the study, before anything is trained."""
        self._study, self._budgets = study, study.asked
        self._epochs_left = float(_epochs_left(self._run, study))

    def question(self, target: Target, data: Findings) -> None:
        """Print the question that the search answers, and the data it uses."""
        height, width = self._study.data.size
        images = self._study.data.name
        within = f"each of {self._budgets}" if self._budgets.several else str(self._budgets)
        print(f"Which network is the most accurate that {target} runs within {within} at {height}x{width}?")
        print(f"data {images}, run {self._run.root}\n\n{data_table(data)}\n", flush=True)

    def step(self, text: str) -> None:
        """Print a line with the time since the search began."""
        with self._lock:
            self.progress.clear()
            print(f"{self._clock()}  {text}", flush=True)

    def published(self, trial: Trial) -> None:
        """A published network was timed at its own width."""
        verdict = trial.failed if trial.latency is None else self._standing(trial.latency)
        latency = self._latency(trial, of_budget=not self._budgets.several)  # of several, it was made for none
        self.step(f"time    {trial.name:24} {latency}{self._in_others(trial)}  {verdict}")

    def proposed(self, trial: Trial) -> None:
        """A candidate was measured."""
        if self._first_candidate is None:
            self._first_candidate = time.monotonic()
        verdict = "" if trial.feasible else f"  {trial.failed or 'over the budget'}: not trained"
        sizes = f"{trial.parameters / 1e3:8.1f} k parameters {trial.multiply_adds / 1e9:6.3f} GMAC"
        self.step(f"time    {trial.name:24} {self._latency(trial)}{self._in_others(trial)}  {sizes}{verdict}")
        if not trial.feasible and trial.origin == "seed":  # for other origins, a new candidate takes its place
            self._add_epochs(-self._study.recipe.epochs)

    def goes_on(self, trial: Trial) -> None:
        """A paused candidate resumes its training."""
        epochs = self._study.recipe.epochs
        self.step(f"go on   {trial.name:24} until epoch {trial.until(epochs)}/{epochs}")

    def ends_in_time(self, epochs_left: float) -> None:
        """No more candidates are proposed, so that the search ends in time; `epochs_left` are still to be trained."""
        minutes = counted(self._study.search.minutes, "minute")
        self.step(f"note    no more candidates: the rest of the {minutes} is needed to finish the best")
        self.expects(epochs_left)

    def expects(self, epochs_left: float) -> None:
        """`epochs_left` are still to be trained."""
        with self._lock:
            self._epochs_left = epochs_left

    def gives_up(self, budget: Budget, reason: str, *, others: bool) -> None:
        """No more candidates are proposed for a budget; `others`: whether the search goes on for other budgets."""
        words = f"{budget} is given up, the others go on: {reason}"
        if not others:
            words = f"no more candidates: {reason}; to try again: {self._run.resume} --budget '{budget}'"
        self.step(f"note    {words}")

    def recipe(self, found: FinishRecipe) -> None:
        """The recipe that finishes all networks was chosen among those tried."""
        tried = "; ".join(f"{each.recipe}: {each.outcome}" for each in found.tried)
        self.step(f"recipe  {found.recipe} finishes all networks; tried  {tried}")

    def shortened(self, epochs: int, whole: int) -> None:
        """The finish has fewer epochs than the study asks for."""
        leave = counted(self._study.search.minutes, "minute leaves", "minutes leave")
        self.step(f"note    the finish has {counted(epochs, 'epoch')} instead of {whole}: {leave} no time for more")
        self.expects(epochs / whole * self._epochs_left)

    def finishes_for(self, epochs: int) -> None:
        """The finish goes on with the epochs that a time limit left when it began."""
        as_before = "as for the networks of this run that it began with"
        self.step(f"note    the finish has {counted(epochs, 'epoch')}, {as_before}")

    def timed_again(self, trial: Trial) -> None:
        """A candidate that was over the budget while the machine was busy was timed once more."""
        verdict = "inside, to be trained" if trial.feasible else "still over the budget: not trained"
        self.step(f"again   {trial.name:24} {self._latency(trial)}{self._in_others(trial)}  {verdict}")
        if trial.feasible:
            self._add_epochs(self._study.recipe.epochs)

    def epoch(self, job: Job, epoch: int, loss: float, miou: float | None) -> None:
        """A training finished an epoch; the loss is printed where the epoch was not scored."""
        self._epochs_done += 1
        self._add_epochs(-1)
        begin = self._start if self._first_candidate is None else self._first_candidate
        left = (time.monotonic() - begin) / self._epochs_done * self._epochs_left
        until_limit = 60 * self._study.search.minutes - (self._seconds_before + time.monotonic() - self._start)
        if until_limit > 0:  # else there is no limit, or it has passed
            left = min(left, until_limit)
        recorded = read_progress(job.folder(self._run))
        taken = recorded.pretrained if epoch == 1 else None
        waits = next((_waits(each) for each in recorded.history if each.epoch == epoch), "")
        figure = f"loss {loss:7.3f}" if miou is None else f"mIoU {100 * miou:5.1f} %"
        self.step(
            f"{_phase(job):7} {job.trial.name:24} epoch {epoch}/{self._epochs(job)}  "
            f"{figure}  {self._latency(job.trial)}  {waits}about {duration(max(1.0, left))} left"
            f"{'' if taken is None else f'  {taken} ({PRETRAINED})'}{'' if job.tries is None else f'  {job.variant}'}"
        )

    def under_way(self, job: Job, words: str) -> None:
        """Progress of a training within an epoch."""
        self.step(f"{_phase(job):7} {job.trial.name:24} {words}")

    def ended(self, job: Job, epoch: int, error: str) -> None:
        """A training ended or pauses; a line is printed only if it failed."""
        if error:
            self.step(f"failed  {job.trial.name:24} {error}")
        epochs = job.trial.until(self._epochs(job)) if job.phase == "search" else self._epochs(job)
        self._add_epochs(epoch - epochs)

    @answering()
    def answer(self, table: str, certificate: Certificate, page: Path) -> None:
        """Print the winner beside published networks, its certificate, and where the files are."""
        latency = certificate.latency
        print(f"\n{table}\n")
        print(f"certificate: {certificate.verdict}  {latency} against {certificate.budget}")
        if certificate.verdict == "UNSURE":
            print(f"  {settling_in(certificate.unsure, self._run.root)}")
            print(f"  or, when the machine is quiet, certify again: {self._run.resume} --patience 5min")
        levels = ", ".join(f"{each:.2f}" for each in latency.processes_milliseconds)
        print(
            f"  p90 {latency.p90_milliseconds:.2f} ms, p99 {latency.p99_milliseconds:.2f} ms, {latency.samples} pairs"
            f"{levels and f' in processes of {levels} ms'}"
        )
        print(f"  timed: {latency.scope}")
        print(f"\nwinner  {self._run.winner}\nreport  {page}", flush=True)

    @answering()
    def answers(self, frontier: str, table: str, certificates: Mapping[Budget, Certificate], page: Path) -> None:
        """Print the winner for each budget, the other networks, unsettled verdicts, and where the files are."""
        print(f"\n{table}\n\n{frontier}\n")
        folders = self._run.winners(self._study)
        for budget, certificate in certificates.items():
            if certificate.verdict == "UNSURE":
                print(f"{budget}: {settling_in(certificate.unsure, folders[budget])}")
        print(f"winners {self._run.root / WINNERS}\nreport  {page}", flush=True)

    def _add_epochs(self, count: int) -> None:
        with self._lock:
            self._epochs_left = max(0.0, self._epochs_left + count)

    def _epochs(self, job: Job) -> int:
        return job.epochs(self._study)

    def _standing(self, latency: Latency) -> str:
        """Whether a network at its own width is inside the budget; of several, which is the smallest that it meets."""
        inside = next((budget for budget in self._budgets if budget.admits(latency)), None)
        nearest = self._budgets.largest if inside is None else inside
        words = "over" if inside is None else f"inside {inside}" if self._budgets.several else "inside"
        return f"unsure, perhaps {words}" if nearest.verdict(latency) == "UNSURE" else words

    def _latency(self, trial: Trial, *, of_budget: bool = True) -> str:
        budget = self._budgets.of(trial.budget_milliseconds)
        words = f"of {budget.milliseconds:g} ms" if of_budget else "ms"
        if trial.latency is None:
            return f"      -  {words}"
        noisy = "?" if trial.latency.flagged else " "
        milliseconds = trial.latency.milliseconds(budget.statistic)
        precision = f" in {Target.parse(trial.latency.target).precision}" if self._study.precisions else ""
        return f"{milliseconds:7.2f}{noisy} {words}{precision}"

    def _in_others(self, trial: Trial) -> str:
        """The latencies in the precisions that are not the fastest; empty where only one was timed."""
        if trial.latency is None or not trial.latency.other_precisions:
            return ""
        statistic = self._budgets.largest.statistic
        found = [
            f"{each.precision} {each.milliseconds(statistic):.2f}{'?' if each.flagged else ''}"
            for each in trial.latency.other_precisions
        ]
        return f" ({', '.join(found)})"

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._start)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"


def _phase(job: Job) -> str:
    return PHASES[job.phase] if job.tries is None else "try"


def _waits(epoch: Epoch) -> str:
    """What an epoch waited for, where it waited long enough that the user should act."""
    words = waiting(epoch.waited_for_data, epoch.waited_for_lane, STARVED)
    return f"{words}{words and ', '}"


def _epochs_left(run: RunFolder, study: Study) -> int:
    """The most epochs that a run still has to train: of candidates to come and under way, and of the finish."""
    budgets, trials, whole = reachable(run, study), run.trials(), study.recipe.epochs
    shares = Shares.of(study, budgets, unreached(run))
    to_come = [shares.effort_left(trials, budget) for budget in budgets if budget not in shares.given_up]
    under_way = [
        trial.until(whole) - len(run.progress(trial, "search").history)
        for trial in trials
        if trial.origin != "pruned" and trial.feasible and not (trial.failed or trial.stopped)
    ]
    return sum(max(0, each) for each in (*to_come, *under_way)) + to_finish(run, study, budgets).epochs
