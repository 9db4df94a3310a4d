"""Caveats that a reader must know before trusting a run's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.host.words import counted
from nas.latency.budget import Budget, settling, settling_in
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.certificate import Certificate
from nas.runs.finish_recipe import FinishRecipe
from nas.runs.trial import Pretrained
from nas.study import Study


def winner_notes(winners: Iterable[tuple[Path, Budget, Certificate]], *, of_several: bool) -> tuple[str, ...]:
    """Caveats about the winners, which are given as (folder as it is to be named, current budget, certificate)."""
    found = []
    for folder, budget, certificate in winners:
        winner = f"winner for {budget}" if of_several else "winner"
        if certificate.budget is not None and Budget.parse(certificate.budget) != budget:
            found.append(
                f"The winner was certified for {certificate.budget}; the study now asks for {budget}, which has no "
                "winner yet."
            )
        if certificate.verdict == "UNSURE":
            found.append(f"It is unsure whether the {winner} keeps its budget: {_settling(certificate, folder)}.")
        if certificate.latency.flagged:
            found.append(f"The {winner}'s latency is flagged: {'; '.join(certificate.latency.flagged)}.")
        if not certificate.values_sha256:
            found.append(
                f"The {winner}'s certificate is of an earlier version: whether a figure in it was changed since cannot "
                "be checked."
            )
    return tuple(found)


def notes(study: Study, latencies: Sequence[Latency]) -> tuple[str, ...]:
    """Caveats about the candidates' latencies, a sentence each."""
    found = []
    flagged = sum(bool(latency.flagged) for latency in latencies)
    if flagged:
        candidates = f"of {len(latencies)} candidates' latencies"
        found.append(
            f"{counted(flagged, f'{candidates} is', f'{candidates} are')} flagged as disturbed; flagged intervals may "
            "be too narrow."
        )
    conditions = {(str(Target.parse(each.target).of_reference()), each.height, each.width) for each in latencies}
    if len(conditions) > 1:
        kinds = ", ".join(f"{target} at {height}x{width}" for target, height, width in sorted(conditions))
        found.append(f"Latencies of this run were measured under different conditions and are not comparable: {kinds}.")
    asked = study.precisions or ((Target.parse(study.target).precision,) if study.target else ())
    others = {Target.parse(latency.target).precision for latency in latencies} - set(asked)
    if asked and others:
        found.append(
            f"Some candidates were timed in {', '.join(sorted(others))}, but the study now asks for "
            f"{', '.join(asked)}; they are not timed again."
        )
    per_gpu = study.search.trials_per_gpu
    if isinstance(per_gpu, int) and per_gpu > 1:
        found.append(f"Up to {per_gpu} trainings share a GPU, so their epochs take longer than with a GPU each.")
    anchors = {latency.reference_milliseconds for latency in latencies}
    if len(conditions) == 1 and len(anchors) > 1:
        found.append(
            f"The reference latency of the device was measured {len(anchors)} times during this run; latencies in "
            "milliseconds that rest on different ones also differ by how the machine changed in between."
        )
    return tuple(found)


def shortened_notes(finish: FinishRecipe | None) -> tuple[str, ...]:
    """A caveat about a finish that a time limit has shortened, as a sentence."""
    if finish is None or not finish.epochs:
        return ()
    epochs = counted(finish.epochs, "epoch")
    return (f"The time limit left {epochs} for the finish of each network, fewer than the study asks for.",)


def pretrained_notes(begun: Sequence[Pretrained]) -> tuple[str, ...]:
    """The number of candidates that could use none of the pretrained weights; no note where all used some."""
    bare = sum(not each.layers for each in begun)
    if not bare:
        return ()
    return (
        f"{bare} of {len(begun)} candidates could use no layer of the pretrained weights in init and began with random "
        "weights: such scores are the result of less training than the others.",
    )


def _settling(certificate: Certificate, folder: Path) -> str:
    """How to settle an unsure verdict; older certificates do not contain this text."""
    assert certificate.budget is not None, "only a budget has a verdict"
    words = certificate.unsure or settling(
        certificate.latency, Budget.parse(certificate.budget), certificate.num_classes
    )
    return settling_in(words, folder)
