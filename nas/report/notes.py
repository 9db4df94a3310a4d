"""What a reader must know before believing a run's figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nas.latency.budget import Budget, settling, settling_in
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.certificate import Certificate
from nas.runs.trial import Pretrained
from nas.study import Study


def winner_notes(winners: Iterable[tuple[Path, Budget, Certificate]], *, of_several: bool) -> tuple[str, ...]:
    """What a reader must know of winners, each with what to call its folder and the budget that is asked for now."""
    found = []
    for folder, budget, certificate in winners:
        winner = f"winner for {budget}" if of_several else "winner"
        if certificate.budget is not None and Budget.parse(certificate.budget) != budget:
            found.append(
                f"The winner was certified for {certificate.budget}; the study now asks for {budget}: not answered yet."
            )
        if certificate.verdict == "UNSURE":
            found.append(f"Whether the {winner} keeps its budget is not settled: {_settling(certificate, folder)}.")
        if certificate.latency.flagged:
            found.append(f"The {winner}'s latency is flagged: {'; '.join(certificate.latency.flagged)}.")
        if not certificate.values_sha256:
            found.append(
                f"The {winner}'s certificate is of an earlier version: whether a figure in it was changed since cannot "
                "be told."
            )
    return tuple(found)


def notes(study: Study, latencies: Sequence[Latency]) -> tuple[str, ...]:
    """What a reader must know of the candidates' latencies, a sentence each."""
    found = []
    flagged = sum(bool(latency.flagged) for latency in latencies)
    if flagged:
        found.append(
            f"{flagged} of {len(latencies)} candidates' latencies are flagged as disturbed; their intervals may be "
            "too narrow."
        )
    conditions = {(str(Target.parse(each.target).of_reference()), each.height, each.width) for each in latencies}
    if len(conditions) > 1:
        kinds = ", ".join(f"{target} at {height}x{width}" for target, height, width in sorted(conditions))
        found.append(f"Latencies of this run were taken under different conditions and do not compare: {kinds}.")
    asked = study.precisions or ((Target.parse(study.target).precision,) if study.target else ())
    others = {Target.parse(latency.target).precision for latency in latencies} - set(asked)
    if asked and others:
        found.append(
            f"Some candidates were timed in {', '.join(sorted(others))}, which the study does not ask for now "
            f"({', '.join(asked)}): they are not timed anew."
        )
    per_gpu = study.search.trials_per_gpu
    if isinstance(per_gpu, int) and per_gpu > 1:
        found.append(f"Up to {per_gpu} trainings share a GPU: their epochs take longer than those of one alone.")
    anchors = {latency.reference_milliseconds for latency in latencies}
    if len(conditions) == 1 and len(anchors) > 1:
        found.append(
            f"The device was anchored {len(anchors)} times during this run; milliseconds from different anchors "
            "differ by what the machine did between them."
        )
    return tuple(found)


def pretrained_notes(begun: Sequence[Pretrained]) -> tuple[str, ...]:
    """How many of the candidates that were to begin with weights of others took none; nothing where all took some."""
    bare = sum(not each.layers for each in begun)
    if not bare:
        return ()
    return (
        f"{bare} of {len(begun)} candidates that were to begin with the weights in init took none of their layers: "
        "they began at random, and their scores are of less training than those of the others.",
    )


def _settling(certificate: Certificate, folder: Path) -> str:
    """What would settle an unsure verdict; older certificates do not say so themselves."""
    assert certificate.budget is not None, "only a budget has a verdict"
    words = certificate.unsure or settling(
        certificate.latency, Budget.parse(certificate.budget), certificate.num_classes
    )
    return settling_in(words, folder)
