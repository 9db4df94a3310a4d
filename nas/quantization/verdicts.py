"""What was found of each form of a network, and which one is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.latency.record import Latency
from nas.quantization.forms import Form
from nas.quantization.scoring import FormScores


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """A form with what was measured and scored."""

    form: Form
    latency: Latency
    scored: FormScores | None
    """None where it was too slow to be looked at."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How many points of mIoU a form may lose against PyTorch in float32."""

    miou: float
    """Of PyTorch in float32, as a fraction."""
    points: float

    def of(self, scored: FormScores) -> float:
        """Points that a form loses; less than zero where it gains."""
        return 100 * (self.miou - scored.scores.miou)

    def allows(self, scored: FormScores) -> bool:
        """Whether that is as good as asked."""
        return self.of(scored) <= self.points


def is_faster(one: Latency, other: Latency) -> bool:
    """Whether `one` is surely the faster of two: their 95 % intervals do not meet."""
    return one.ci_high_milliseconds < other.ci_low_milliseconds


def fastest_whole(outcomes: Sequence[Outcome]) -> Outcome:
    """What lower precision would replace: the fastest form in full precision."""
    whole = [outcome for outcome in outcomes if outcome.form.target.precision == "fp32"]
    return min(whole, key=lambda outcome: outcome.latency.p50_milliseconds)


def against(outcome: Outcome, whole: Outcome, loss: Loss) -> str:
    """Why a form is not kept, or empty when it may be: it is surely faster than `whole`, and as good as asked."""
    if outcome is whole:
        return "what the others would replace"
    if not is_faster(outcome.latency, whole.latency):
        ratio = outcome.latency.p50_milliseconds / whole.latency.p50_milliseconds
        return f"takes {ratio:.2f} times as long as {whole.form}" if ratio >= 1 else f"not surely faster ({ratio:.2f})"
    if outcome.scored is None or not loss.allows(outcome.scored):
        lost = "too many" if outcome.scored is None else f"{loss.of(outcome.scored):.1f}"
        return f"loses {lost} points of mIoU, {loss.points:g} allowed"
    return ""


def kept(outcomes: Sequence[Outcome], loss: Loss) -> Outcome:
    """The fastest form that nothing speaks against; the fastest in full precision where there is no other."""
    whole = fastest_whole(outcomes)
    good = [outcome for outcome in outcomes if outcome is not whole and not against(outcome, whole, loss)]
    return min(good, key=lambda outcome: outcome.latency.p50_milliseconds, default=whole)
