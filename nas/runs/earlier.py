"""What a new run takes over from earlier ones: how their candidates trained, and what their networks took.

It is kept in the run's own folder (`earlier.yaml`), so that the earlier runs need not stay where they were. None of it
counts as a candidate of the new run; it tells the sampler where to look, and networks that were timed under the very
same conditions need not be timed again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from nas.data.fingerprint import Fingerprint
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.beginning import beginning
from nas.runs.data_seen import data_seen
from nas.runs.folder import EARLIER, RunFolder
from nas.runs.terms import require_terms, terms_of
from nas.runs.trial import Trial
from nas.storage.files import write_text
from nas.storage.records import find_record
from nas.study import Study
from space import Architecture, UserError, strict

MOST_FIDELITY = 0.999
"""Of what an earlier run trained, in whole trainings: a score of the run's own always says more."""


@dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A network of an earlier run."""

    run: str
    """The name of its folder."""
    architecture: Architecture
    genotype: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What a sampler is told by; empty where only the latency is of use."""
    latency: Latency | None = None
    """None where it was measured on another target, or could not be."""
    miou: float | None = None
    """After the training as a candidate; None where there was none, or it broke."""
    fidelity: float = MOST_FIDELITY
    """That training as a share of a whole one of the new run, below 1."""
    over: bool | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether it took more than the budget that it was made for, which no width brought it into. None where nobody
    asked: in files of earlier versions, say.
    """
    drawn_for_milliseconds: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of a random draw that was trained whole on the terms of the new run (length, target, space): the budget that its
    width was solved for. 0 of all others."""

    def __post_init__(self) -> None:
        if not 0 <= self.drawn_for_milliseconds < math.inf:
            raise UserError(f"drawn_for_milliseconds: expected 0 or more, got {self.drawn_for_milliseconds}")
        if not 0 < self.fidelity <= MOST_FIDELITY:
            raise UserError(f"fidelity: expected a share above 0 and at most {MOST_FIDELITY}, got {self.fidelity}")
        if not 0 <= (self.miou or 0) <= 1:
            raise UserError(f"miou: expected a share of 0 to 1, got {self.miou}")


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """All that was taken over."""

    trials: tuple[EarlierTrial, ...] = ()

    @property
    def latencies(self) -> dict[str, Latency]:
        """What networks took, by their keys."""
        return {each.architecture.key: each.latency for each in self.trials if each.latency is not None}


def read_earlier(run: RunFolder) -> Earlier:
    """What a run took over when it began.

    Raises: UserError when the file is damaged.
    """
    return find_record(run.root / EARLIER, "what a run took over from earlier ones", Earlier) or Earlier()


def write_earlier(run: RunFolder, earlier: Earlier) -> None:
    """Keep it in the run's folder."""
    write_text(run.root / EARLIER, strict.dump(earlier))


def not_taken_over(run: RunFolder) -> list[RunFolder]:
    """The earlier runs that a run was asked to take over and has not yet: it was interrupted before.

    Raises: UserError when one of them is gone.
    """
    if (run.root / EARLIER).is_file():
        return []
    found = [RunFolder(Path(each)) for each in run.sources()]
    for each in found:
        if not each.study_path.is_file():
            raise UserError(
                f"expected the run {each.root}, which {run.root} has not taken over yet, got no run there; "
                "put it back, or start anew"
            )
    return found


def take_over(run: RunFolder, study: Study, seen: Fingerprint, sources: Sequence[RunFolder]) -> list[str]:
    """Keep in the folder of a new run what earlier ones found out; a sentence on each of them. `seen`: the new run's
    data.

    Raises: UserError for a run of other data, another size or another recipe, for one without comparable trials, and
    for one whose study was changed since.
    """
    found: list[EarlierTrial] = []
    words = []
    for source in {each.root.resolve(): each for each in sources}.values():  # none twice
        before = source.study()
        require_terms(source, before)  # else its study says of its candidates what is not so
        _require_comparable(source, before, run, study, seen)
        same_target = _timed_on(before) == _timed_on(study)
        space = study.architectures()
        proposed = [each for each in source.trials() if each.origin in ("seed", "random", "guided")]
        points = [(each, each.answers_in(space)) for each in proposed]
        inside = [replace(each, genotype=point) for each, point in points if point is not None]
        unlike = [each for each, point in points if point is None and each.origin == "seed"]
        alike = same_target and _draws_alike(before, study)
        entries = (_entry(source, before, each, study, same_target, alike) for each in inside)
        told = [entry for entry in entries if entry is not None]
        timed = [
            EarlierTrial(run=source.root.name, architecture=each.architecture, latency=each.latency)
            for each in (*source.company(), *unlike)
            if same_target and each.latency is not None
        ]
        if not told:
            raise UserError(
                f"--from: expected a run with trained candidates of this study's space, got {source.root} with none of "
                f"{len(proposed)}; leave it out"
            )
        scored = sum(each.miou is not None for each in told)
        latencies = sum(each.latency is not None for each in (*told, *timed))
        left = len(proposed) - len(told)
        words.append(
            f"from    {source.root}: {scored} trained candidates"
            f"{f' ({left} left out, of another space or without an end)' if left else ''}, "
            f"{f'{latencies} latencies' if same_target else f'no latencies, which are of {_words_on(before)}'}"
        )
        found += (*told, *timed)
    write_earlier(run, Earlier(trials=tuple(found)))
    return words


def _require_comparable(source: RunFolder, before: Study, run: RunFolder, study: Study, seen: Fingerprint) -> None:
    kept = data_seen(source.root)
    if kept is None:
        raise UserError(
            f"--from: expected a run that says what its data were, got {source.root} of an earlier version; leave "
            "it out"
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
            "its scores cannot be compared: leave it out, or take its recipe"
        )


def _first_weights(run: RunFolder) -> str | None:
    """What the weights are that its trainings begin with, wherever their file lies; None where they begin at random."""
    kept = beginning(run.root)
    return None if kept is None else kept.sha256


def _timed_on(study: Study) -> tuple[Target | None, frozenset[str]]:
    return Target.parse(study.target) if study.target else None, frozenset(study.precisions)


def _words_on(study: Study) -> str:
    return f"{study.target} in {', '.join(study.precisions)}" if study.precisions else study.target


def _draws_alike(before: Study, study: Study) -> bool:
    """Whether what one draws at random and trains whole is as good a draw of the other."""
    return (
        before.recipe.epochs == study.recipe.epochs
        and before.architectures() == study.architectures()
        and before.asked.largest.statistic == study.asked.largest.statistic
    )


def _entry(
    source: RunFolder, before: Study, trial: Trial, study: Study, same_target: bool, alike: bool
) -> EarlierTrial | None:
    """What a candidate of the study `before` tells; None where it tells nothing: one that was neither timed here nor
    trained to the end of a rung.
    """
    history = source.progress(trial, "search").history
    if not trial.stopped:  # it may have been killed on its way to the next rung
        ends = [rung.epochs for rung in trial.rungs] or [epoch.epochs for epoch in history[-1:]]
        history = history[: max((end for end in ends if end <= len(history)), default=0)]
    ended = bool(history) and not trial.failed
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
        miou=history[-1].scores.miou if ended else None,
        fidelity=min(share, MOST_FIDELITY),
        over=over,
        drawn_for_milliseconds=trial.budget_milliseconds if drawn else 0.0,
    )
