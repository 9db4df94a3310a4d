"""What was found of each form of a network, and which one is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nas.latency.protocol.anchor import FAR_FROM_ANCHOR
from nas.latency.record import Latency, Statistic
from nas.latency.target import PRECISIONS, Target
from nas.quantization.forms import Form
from nas.quantization.scoring import FormScores
from nas.runs.certificate import Certificate

Way = TypeVar("Way")


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """A form with what was measured and scored."""

    form: Form
    latency: Latency
    scored: FormScores | None
    """None where it is not surely faster than what it would replace."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How many points of mIoU a form may lose against PyTorch in float32."""

    miou: float
    """Of PyTorch in float32, as a fraction."""
    points: float

    def of(self, scored: FormScores) -> float:
        """Points that a form loses; less than zero where it gains."""
        return 100 * (self.miou - scored.scores.miou)

    def words(self, scored: FormScores) -> str:
        """The same with sign and two decimals; what rounds to nothing has no sign."""
        text = f"{self.of(scored):+.2f}"
        return text if float(text) else "0.00"

    def allows(self, scored: FormScores) -> bool:
        """Whether that is as good as asked."""
        return self.of(scored) <= self.points


def is_faster(one: Latency, other: Latency) -> bool:
    """Whether `one` is surely the faster of two: their 95 % intervals do not meet, in milliseconds and, where both are
    ratios to the same reference on the same runtime, as ratios.

    An interval is that of a ratio. What the anchor behind it adds shows where a machine was busy, or where one of two
    precisions was anchored anew: then it has to be as much faster as an anchor may be off.
    """
    same_reference = reference_of(one) == reference_of(other)
    anew = same_reference and one.reference_milliseconds != other.reference_milliseconds
    margin = FAR_FROM_ANCHOR if one.flagged or other.flagged or anew else 1.0
    if one.ci_high_milliseconds * margin >= other.ci_low_milliseconds:
        return False
    return not same_reference or one.ratio_high < other.ratio_low


def unbeaten(ways: Sequence[Way], latency_of: Callable[[Way], Latency], statistic: Statistic = "p50") -> Way:
    """Of ways to run one network the fastest in the highest precision which the fastest in no other surely beats, in
    its interval and in the statistic that counts.
    """

    def milliseconds(way: Way) -> float:
        return latency_of(way).milliseconds(statistic)

    def precision(way: Way) -> str:
        return Target.parse(latency_of(way).target).precision

    def beats(one: Way, other: Way) -> bool:
        return milliseconds(one) < milliseconds(other) and is_faster(latency_of(one), latency_of(other))

    groups = [[way for way in ways if precision(way) == each] for each in PRECISIONS]  # the highest first
    fastest = [min(group, key=milliseconds) for group in groups if group]
    return next(way for way in fastest if not any(beats(other, way) for other in fastest))


def reference_of(latency: Latency) -> Target:
    """Where the reference was timed that a latency is a ratio to: on a GPU in the precision of its own."""
    return Target.parse(latency.target).of_reference()


def fastest_whole(outcomes: Sequence[Outcome]) -> Outcome:
    """What lower precision would replace: the fastest form in full precision."""
    whole = [outcome for outcome in outcomes if outcome.form.target.precision == "fp32"]
    return min(whole, key=lambda outcome: outcome.latency.p50_milliseconds)


def against(outcome: Outcome, whole: Outcome, loss: Loss) -> str:
    """Why a form is not kept, or empty when it may be: it is surely faster than `whole`, and as good as asked."""
    if outcome is whole:
        return "what the others would replace"
    if not is_faster(outcome.latency, whole.latency):
        return times(outcome.latency, whole.latency, str(whole.form))
    if outcome.scored is None:
        return "not scored"
    if not loss.allows(outcome.scored):
        return f"loses {loss.of(outcome.scored):.3f} points of mIoU, {loss.points:g} allowed"
    return ""


def times(one: Latency, other: Latency, name: str) -> str:
    """How many times as long as the other form, of that name, one takes, in words, and whether that is sure."""
    ratio = one.p50_milliseconds / other.p50_milliseconds
    words = f"takes {ratio:.2f} times as long as {name}"
    if is_faster(one, other) or is_faster(other, one):
        return words
    return f"{words}, which is not surely {'slower' if ratio >= 1 else 'faster'}"


def kept(outcomes: Sequence[Outcome], loss: Loss) -> Outcome:
    """Of the forms that nothing speaks against, the one that is `unbeaten`; the fastest in full precision where there
    is none.
    """
    whole = fastest_whole(outcomes)
    good = [outcome for outcome in outcomes if outcome is not whole and not against(outcome, whole, loss)]
    return unbeaten(good or [whole], lambda outcome: outcome.latency)


class GivenUpError(Exception):
    """A form that was chosen is not the faster one when it is timed once more; says why."""

    def __init__(self, latency: Latency, reason: str) -> None:
        super().__init__(reason)
        self.latency = latency


def certified(
    outcomes: Sequence[Outcome],
    loss: Loss,
    certify: Callable[[Sequence[Outcome], Outcome, Callable[[Latency], None]], Certificate],
    measure: Callable[[Form], Latency],
    said: Callable[[str], None],
) -> tuple[list[Outcome], Outcome, Certificate]:
    """Every outcome as it is known in the end, the form that is kept, and its certificate.

    `certify` times the form that is chosen among the others anew, and tells the latency before it writes anything; that
    is the latency of its outcome from then on. A form that is not surely faster then too is given up for the next best,
    and in the end for full precision: whatever a busy machine does, nothing is kept that did not win twice. What it
    would replace is timed anew too, by `measure`, before that: between two levels of a machine a form would else win
    against a time that is past.
    """
    found, timed_anew = list(outcomes), set[Form]()
    while True:
        whole, chosen = fastest_whole(found), kept(found, loss)
        if chosen is not whole and whole.form not in timed_anew:
            timed_anew.add(whole.form)
            again = measure(whole.form)
            said(f"{whole.form}: timed once more, {again}")
            found, _ = timed_again(found, whole, again)
            continue

        def require(latency: Latency, chosen: Outcome = chosen, whole: Outcome = whole) -> None:
            reason = "" if chosen is whole else against(replace(chosen, latency=latency), whole, loss)
            if reason:
                raise GivenUpError(latency, reason)

        try:
            certificate = certify(found, chosen, require)
            return *timed_again(found, chosen, certificate.latency), certificate
        except GivenUpError as error:
            said(f"{chosen.form}: timed once more, {error.latency}: {error}")
            found, _ = timed_again(found, chosen, error.latency)


def timed_again(outcomes: Sequence[Outcome], one: Outcome, latency: Latency) -> tuple[list[Outcome], Outcome]:
    """All outcomes, and that one, with the latency that it turned out to have."""
    again = replace(one, latency=latency)
    return [again if each is one else each for each in outcomes], again


def verdict(outcome: Outcome, chosen: Outcome, outcomes: Sequence[Outcome], loss: Loss) -> str:
    """What became of a form, in words: `kept`, or why it was not."""
    if outcome is chosen:
        return "kept"
    whole = chosen if chosen.form.target.precision == "fp32" else fastest_whole(outcomes)
    return against(outcome, whole, loss) or times(outcome.latency, chosen.latency, str(chosen.form))
