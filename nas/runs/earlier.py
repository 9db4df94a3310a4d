"""Results that a new run takes over from earlier ones: the scores of their candidates, and latencies of networks.

They are copied into the run's own folder (`earlier.yaml`), so that the earlier runs can be moved or removed. None of
them counts as a candidate of the new run. The sampler learns from them, and networks that were timed under exactly the
same conditions are not timed again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from nas.data.fingerprint import Fingerprint
from nas.host.words import counted
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.data_seen import data_seen
from nas.runs.folder import EARLIER, RunFolder
from nas.runs.initial_weights import initial_weights
from nas.runs.terms import require_terms, terms_of
from nas.runs.trial import Trial
from nas.storage.files import write_text
from nas.storage.records import find_record
from nas.study import Study
from space import Architecture, UserError, strict

MOST_FIDELITY = 0.999
"""Highest fidelity, in whole trainings, of a score of an earlier run: a score of the run's own always counts more."""


@dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A network of an earlier run."""

    run: str
    """Name of the run's folder."""
    architecture: Architecture
    genotype: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """The genotype that is given to the sampler; empty where only the latency is of use."""
    latency: Latency | None = None
    """Its latency; None where it was measured on another target, or could not be measured."""
    miou: float | None = None
    """mIoU after its training as a candidate; None where it was not trained, or the training failed."""
    fidelity: float = MOST_FIDELITY
    """That training as a share of a whole one of the new run, below 1."""
    over: bool | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether it exceeded the budget that it was made for at every width. None where that is unknown, as in files of
    earlier versions.
    """
    drawn_for_milliseconds: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The budget that its width was solved for, if it is a random draw that was trained whole under the conditions of
    the new run (length, target, space); 0 for all others."""

    def __post_init__(self) -> None:
        if not 0 <= self.drawn_for_milliseconds < math.inf:
            raise UserError(f"drawn_for_milliseconds: expected 0 or more, got {self.drawn_for_milliseconds}")
        if not 0 < self.fidelity <= MOST_FIDELITY:
            raise UserError(f"fidelity: expected a share above 0 and at most {MOST_FIDELITY}, got {self.fidelity}")
        if not 0 <= (self.miou or 0) <= 1:
            raise UserError(f"miou: expected a share of 0 to 1, got {self.miou}")


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Everything that was taken over."""

    trials: tuple[EarlierTrial, ...] = ()

    @property
    def latencies(self) -> dict[str, Latency]:
        """Latencies of networks, by their keys."""
        return {each.architecture.key: each.latency for each in self.trials if each.latency is not None}


def read_earlier(run: RunFolder) -> Earlier:
    """What a run took over when it began.

    Raises: UserError when the file is damaged.
    """
    return find_record(run.root / EARLIER, "a record of what a run took over from earlier ones", Earlier) or Earlier()


def write_earlier(run: RunFolder, earlier: Earlier) -> None:
    """Write what a run takes over into its folder."""
    write_text(run.root / EARLIER, strict.dump(earlier))


def not_taken_over(run: RunFolder) -> list[RunFolder]:
    """The earlier runs that a run has yet to take over, because it was interrupted before.

    Raises: UserError when one of them is gone.
    """
    if (run.root / EARLIER).is_file():
        return []
    found = [RunFolder(Path(each)) for each in run.sources()]
    for each in found:
        if not each.study_path.is_file():
            raise UserError(
                f"expected the run {each.root}, which {run.root} has not taken over yet, got no run there; "
                "restore it, or start anew"
            )
    return found


def take_over(run: RunFolder, study: Study, seen: Fingerprint, sources: Sequence[RunFolder]) -> list[str]:
    """Copy the results of earlier runs into the folder of a new one, and return a sentence about each. `seen` is the
    fingerprint of the new run's data.

    Raises: UserError for a run with other data, another size or another recipe, for one without comparable trials, and
    for one whose study was changed since.
    """
    found: list[EarlierTrial] = []
    words = []
    for source in {each.root.resolve(): each for each in sources}.values():  # none twice
        before = source.study()
        require_terms(source, before)  # otherwise its study would not describe its candidates
        _require_comparable(source, before, run, study, seen)
        same_target = _timed_on(before) == _timed_on(study)
        space = study.architectures()
        proposed = [each for each in source.trials() if each.origin in ("seed", "random", "guided")]
        points = [(each, each.answers_in(space)) for each in proposed]
        inside = [replace(each, genotype=point) for each, point in points if point is not None]
        unlike = [each for each, point in points if point is None and each.origin == "seed"]
        alike = same_target and _draws_alike(before, study)
        entries = (_entry(source, before, each, study, same_target, alike) for each in inside)
        useful = [entry for entry in entries if entry is not None]
        timed = [
            EarlierTrial(run=source.root.name, architecture=each.architecture, latency=each.latency)
            for each in (*source.company(), *unlike)
            if same_target and each.latency is not None
        ]
        if not useful:
            raise UserError(
                f"--from: expected a run with trained candidates of this study's space, got {source.root} with none "
                f"among its {len(proposed)}; leave it out"
            )
        scored = sum(each.miou is not None for each in useful)
        reused = counted(sum(each.latency is not None for each in (*useful, *timed)), "latency", "latencies")
        if not same_target:
            reused = f"no latencies: they are for {_words_on(before)}"
        left = len(proposed) - len(useful)
        words.append(
            f"from    {source.root}: {counted(scored, 'trained candidate')}"
            f"{f' ({left} left out, from another space or unfinished)' if left else ''}, {reused}"
        )
        found += (*useful, *timed)
    write_earlier(run, Earlier(trials=tuple(found)))
    return words


def _require_comparable(source: RunFolder, before: Study, run: RunFolder, study: Study, seen: Fingerprint) -> None:
    kept = data_seen(source.root)
    if kept is None:
        raise UserError(
            f"--from: expected a run with a record of its data, got {source.root} of an earlier version; leave it out"
        )
    if difference := kept.fingerprint.difference(seen):
        raise UserError(f"--from: expected a run on the same data, got {source.root}: {difference}; leave it out")
    if before.data.size != study.data.size:
        was, now = (f"{height}x{width}" for height, width in (before.data.size, study.data.size))
        raise UserError(f"--from: expected a run at {now}, got {source.root} at {was}; leave it out")
    theirs, ours = (terms_of(each).recipe for each in (before, study))
    names = [each.name for each in fields(ours) if each.name != "epochs"]
    recipes = [name for name in names if getattr(theirs, name) != getattr(ours, name)]
    if _first_weights(source) != _first_weights(run):
        recipes.append("init")
    if recipes:
        raise UserError(
            f"--from: expected a run with this study's recipe, got {source.root} with another {', '.join(recipes)}; "
            "its scores cannot be compared: leave it out, or use its recipe"
        )


def _first_weights(run: RunFolder) -> str | None:
    """SHA-256 of the initial weights of a run's trainings; None where they begin with random weights."""
    kept = initial_weights(run.root)
    return None if kept is None else kept.sha256


def _timed_on(study: Study) -> tuple[Target | None, frozenset[str]]:
    return Target.parse(study.target) if study.target else None, frozenset(study.precisions)


def _words_on(study: Study) -> str:
    return f"{study.target} in {', '.join(study.precisions)}" if study.precisions else study.target


def _draws_alike(before: Study, study: Study) -> bool:
    """Whether random draws that one study trains whole are also draws under the conditions of the other."""
    return (
        before.recipe.epochs == study.recipe.epochs
        and before.architectures() == study.architectures()
        and before.asked.largest.statistic == study.asked.largest.statistic
    )


def _entry(
    source: RunFolder, before: Study, trial: Trial, study: Study, same_target: bool, alike: bool
) -> EarlierTrial | None:
    """What the new run takes over of a candidate of the study `before`; None if it was neither timed on the same target
    nor trained to the end of a rung.
    """
    history = source.progress(trial, "search").history
    if not trial.stopped:  # it may have been interrupted on the way to its next rung
        ends = [rung.epochs for rung in trial.rungs] or [epoch.epochs for epoch in history[-1:]]
        history = history[: max((end for end in ends if end <= len(history)), default=0)]
    miou = history[-1].miou if history and not trial.failed else None
    ended = miou is not None
    latency = trial.latency if same_target else None
    if not ended and latency is None:
        return None
    share = len(history) / study.recipe.epochs if ended else MOST_FIDELITY
    budget = Budget(milliseconds=trial.budget_milliseconds, statistic=before.asked.largest.statistic)
    over = not (ended or latency is None or budget.admits(latency) or budget.doubts(latency))
    drawn = alike and ended and trial.origin == "random" and len(history) == study.recipe.epochs
    return EarlierTrial(
        run=source.root.name,
        architecture=trial.architecture,
        genotype=dict(trial.genotype),
        latency=latency,
        miou=miou,
        fidelity=min(share, MOST_FIDELITY),
        over=over,
        drawn_for_milliseconds=trial.budget_milliseconds if drawn else 0.0,
    )
