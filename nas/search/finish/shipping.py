"""Certifies a finished trial in the precision in which it was fastest, or in full precision."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.errors import ExportError, TargetError, UnmeasuredError
from nas.latency import MeterOf
from nas.latency.budget import Budget, Verdict
from nas.latency.careful import CarefulMeter
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.latency.several import measure_in_processes
from nas.latency.target import Target
from nas.runs.certificate import Certificate, ComparedForm, Deployed
from nas.runs.trial import Trial
from nas.runs.trial_network import trained_network
from nas.runs.winner import Certification, Finished, write_winner
from nas.search.search import Search

WORST_FIRST: Sequence[Verdict | None] = ("FAIL", "UNSURE", "PASS")


class NoBetterError(Exception):
    """The verdict on a network is no better than that of the present certificate."""

    def __init__(self, latency: Latency) -> None:
        super().__init__(f"{latency} is no better")
        self.latency = latency


def certify_trial(
    search: Search,
    trial: Trial,
    deployed: Deployed | None,
    meter_of: MeterOf,
    budget: Budget,
    folder: Path,
    worthwhile: Sequence[Verdict | None] = WORST_FIRST,
    has_time: Callable[[], bool] = lambda: True,
) -> Certificate:
    """Measure a finished trial again in the form in which it ships, and write it into `folder` if its verdict is a
    `worthwhile` one. `has_time` says whether a latency that leaves the verdict open is measured further.

    A trial that ships in a lower precision (`deployed`) is timed in full precision first. If fp32 is one of the study's
    precisions and passes, and the lower precision is no longer significantly faster, then fp32 is certified instead. If
    fp32 does not pass when it is timed for its own certificate, the lower precision is certified after all.

    Raises: ExportError or UnmeasuredError when the trial cannot be exported or timed; NoBetterError when its verdict is
    not worthwhile. In both cases `folder` is left unchanged.
    """
    from nas.quantization.verdicts import GivenUpError, times

    def is_better(latency: Latency) -> None:
        if budget.verdict(latency) not in worthwhile:
            raise NoBetterError(latency)

    certification = replace(_certification(search, trial, meter_of, budget), require=is_better, has_time=has_time)
    write = functools.partial(_write, search, trial)
    full = None if deployed is None else _in_full_precision(search, trial, certification)
    if deployed is None or full is None:
        return write(folder, certification, deployed)
    forms = _Forms(deployed=deployed, lower_target=certification.target, budget=budget)
    given_up: Latency | UnmeasuredError

    def significantly_faster(lower: Latency) -> None:
        # Only if fp32 passes: else the budget might be missed that the lower precision may meet.
        if forms.prefers_full(full, lower) and budget.verdict(full) == "PASS":
            raise GivenUpError(lower, times(lower, full, str(forms.full_target)))
        is_better(lower)

    def passes(again: Latency) -> None:
        if budget.verdict(again) != "PASS":
            raise GivenUpError(again, over(again, budget))

    require = significantly_faster if "fp32" in search.study.precisions else is_better
    try:
        return write(folder, replace(certification, require=require), deployed, functools.partial(forms.beside, full))
    except GivenUpError as error:
        search.console.step(f"        {forms.lower_target} {error}: certified in full precision")
        instead = functools.partial(forms.instead_of, error.latency)
    try:
        return write(folder, replace(certification, target=forms.full_target, require=passes), None, instead)
    except GivenUpError as error:
        search.console.step(f"        {error.latency} {error}: certified in {forms.lower_target.precision} after all")
        given_up = error.latency
    except UnmeasuredError as error:
        search.console.step(
            f"        {forms.full_target}: left out: {error}: certified in {forms.lower_target.precision} after all"
        )
        given_up = error
    return write(folder, certification, deployed, functools.partial(forms.beside, given_up))


def over(latency: Latency, budget: Budget) -> str:
    """How a latency that does not pass compares with a budget, in words."""
    maybe = budget.verdict(latency) == "UNSURE"
    return f"may be inside {budget}, or over it" if maybe else f"is over {budget}"


def deployed_of(search: Search, trial: Trial) -> Deployed | None:
    """The form in which a trial ships in lower precision; None in full precision, and where it cannot be exported.

    Raises: UnmeasuredError when the runtime refuses that form, or crashes on it.
    """
    from nas.quantization.shipping import deployed_on
    from nas.search.cluster.tasks import deployed_on_timing_node

    target = search.ships_on(trial)
    if target.precision == "fp32":
        return None
    network = trained_network(search.run, trial, search.num_classes)
    dataset, progress = search.dataset, search.console.progress
    try:
        if search.workers.timing_node:
            with progress.over("scored on the node that times", 0):
                return deployed_on_timing_node(target, network, dataset)
        with progress.over("scored", len(dataset.validation)):
            return deployed_on(target, network, dataset, progress.count)
    except ExportError:  # raised again when the network is exported for its certificate
        return None


def warning_of(search: Search, trial: Trial) -> str:
    """A warning about a trial that ships in INT8; empty where there is none."""
    from nas.quantization import shipping

    return shipping.warning_of(search.ships_on(trial), trained_network(search.run, trial, search.num_classes))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Forms:
    """A trial in the lower precision in which it ships, and in full precision, for the certificate's comparison."""

    deployed: Deployed
    lower_target: Target
    budget: Budget

    @property
    def full_target(self) -> Target:
        return replace(self.lower_target, precision="fp32")

    def prefers_full(self, full: Latency, lower: Latency) -> bool:
        """Whether the lower precision is not significantly faster."""
        from nas.quantization.verdicts import unbeaten

        return unbeaten((full, lower), lambda each: each, self.budget.statistic) is full

    def beside(self, full: Latency | UnmeasuredError, lower: Latency) -> tuple[ComparedForm, ...]:
        """Both latencies, or why full precision was not timed, where the lower precision is certified."""
        from nas.quantization.verdicts import times

        if isinstance(full, UnmeasuredError):
            return ComparedForm.refused(str(self.full_target), f"left out: {full}"), self._lower(lower, "kept")
        words = times(full, lower, self.deployed.form)
        if self.prefers_full(full, lower) and self.budget.verdict(full) != "PASS":
            words = f"{words}, and {over(full, self.budget)}"
        return ComparedForm.of(str(self.full_target), full, words), self._lower(lower, "kept")

    def instead_of(self, lower: Latency, full: Latency) -> tuple[ComparedForm, ...]:
        """Both latencies, where full precision is certified."""
        from nas.quantization.verdicts import times

        return (
            ComparedForm.of(str(self.full_target), full, "kept"),
            self._lower(lower, times(lower, full, str(self.full_target))),
        )

    def _lower(self, latency: Latency, verdict: str) -> ComparedForm:
        scores, same_labels = self.deployed.scores, self.deployed.same_labels
        return ComparedForm.of(self.deployed.form, latency, verdict, miou=scores.miou, same_labels=same_labels)


def _in_full_precision(search: Search, trial: Trial, certification: Certification) -> Latency | None:
    """The latency of a trial in full precision; None where it cannot be timed, with a note."""
    full, weights = replace(certification.target, precision="fp32"), search.run.weights_path(trial)
    try:
        with (
            certification.meter_of(full, search.dataset.size, search.num_classes) as meter,
            search.console.progress.over("timed in full precision", 0),
        ):
            return measure_in_processes(
                lambda: meter.measure(trial.architecture, weights=weights, within=certification.within),
                full,
                leaves_open=certification.leaves_open,
            )
    except (TargetError, UnmeasuredError) as error:
        search.console.step(f"        not compared with {full}: {error}")
        return None


def _write(
    search: Search,
    trial: Trial,
    folder: Path,
    certification: Certification,
    deployed: Deployed | None,
    compared: Callable[[Latency], tuple[ComparedForm, ...]] = lambda _: (),
) -> Certificate:
    from nas.runs.labelling import Labelling
    from nas.training.weights import load_weights

    finished = Finished(
        architecture=trial.architecture,
        weights=load_weights(search.run.weights_path(trial)),
        labelling=Labelling.of(search.dataset),
        dataset=search.dataset,
        deployed=deployed,
        compared=compared,
    )
    return write_winner(folder, finished, certification)


def _certification(search: Search, trial: Trial, meter_of: MeterOf, budget: Budget) -> Certification:
    from nas.latency.machine.gpu import training_device
    from nas.search.cluster.tasks import score_on

    workers = search.workers
    return Certification(
        target=search.ships_on(trial),
        budget=budget,
        device=workers.device if workers.joined else training_device(),  # the target may be on another machine
        score=score_on(workers) if workers.joined else None,
        within=min(search.study.latency_within, WITHIN),
        meter_of=lambda target, size, num_classes: _careful(meter_of, target, size, num_classes),
        progress=search.console.progress,
    )


@contextlib.contextmanager
def _careful(meter_of: MeterOf, target: Target, size: tuple[int, int], num_classes: int) -> Iterator[CarefulMeter]:
    with meter_of(target, size, num_classes) as meter:
        yield CarefulMeter(meter=meter)
