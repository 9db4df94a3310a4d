"""The timed forms of a network, and the choice of the one to keep."""

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
class TimedForm:
    """A form with its latency and scores."""

    form: Form
    latency: Latency
    scored: FormScores | None
    """Scores; None where it is not significantly faster than the form it would replace."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of mIoU that a form may have against PyTorch in float32."""

    miou: float
    """mIoU by PyTorch in float32, as a fraction."""
    points: float
    """Points of mIoU that may be lost."""

    def of(self, scored: FormScores) -> float:
        """Points of mIoU that a form loses; negative where it gains."""
        return 100 * (self.miou - scored.scores.miou)

    def words(self, scored: FormScores) -> str:
        """The points that a form loses, with sign and two decimals; a loss that rounds to zero has no sign."""
        text = f"{self.of(scored):+.2f}"
        return text if float(text) else "0.00"

    def allows(self, scored: FormScores) -> bool:
        """Whether a form loses no more points than allowed."""
        return self.of(scored) <= self.points


def is_faster(one: Latency, other: Latency) -> bool:
    """Whether `one` is significantly faster than `other`: their 95 % intervals do not overlap in milliseconds and,
    where both are ratios to the same reference on the same runtime, as ratios.

    An interval covers the error of the ratio, but not that of the anchor (the latency of the reference). Where a
    machine was busy, or one of two precisions was anchored anew, `one` must be faster by as much as an anchor may be
    off.
    """
    same_reference = reference_of(one) == reference_of(other)
    anew = same_reference and one.reference_milliseconds != other.reference_milliseconds
    margin = FAR_FROM_ANCHOR if one.flagged or other.flagged or anew else 1.0
    if one.ci_high_milliseconds * margin >= other.ci_low_milliseconds:
        return False
    return not same_reference or one.ratio_high < other.ratio_low


def unbeaten(ways: Sequence[Way], latency_of: Callable[[Way], Latency], statistic: Statistic = "p50") -> Way:
    """The best of several ways to run a network: the fastest way of the highest precision that no other precision's
    fastest way significantly beats, by its interval and by the `statistic`.
    """

    def milliseconds(way: Way) -> float:
        return latency_of(way).milliseconds(statistic)

    def precision(way: Way) -> str:
        return Target.parse(latency_of(way).target).precision

    def beats(one: Way, other: Way) -> bool:
        return milliseconds(one) < milliseconds(other) and is_faster(latency_of(one), latency_of(other))

    groups = [[way for way in ways if precision(way) == each] for each in PRECISIONS]  # highest precision first
    fastest = [min(group, key=milliseconds) for group in groups if group]
    return next(way for way in fastest if not any(beats(other, way) for other in fastest))


def reference_of(latency: Latency) -> Target:
    """The target on which a latency's reference network was timed; on a GPU it has the latency's own precision."""
    return Target.parse(latency.target).of_reference()


def fastest_whole(timed_forms: Sequence[TimedForm]) -> TimedForm:
    """The fastest form in full precision, which a lower precision would replace."""
    whole = [timed for timed in timed_forms if timed.form.target.precision == "fp32"]
    return min(whole, key=lambda timed: timed.latency.p50_milliseconds)


def against(timed: TimedForm, whole: TimedForm, loss: Loss) -> str:
    """Why a form cannot be kept; empty for one that is significantly faster than `whole` and accurate enough."""
    if timed is whole:
        return "the form that others would replace"
    if not is_faster(timed.latency, whole.latency):
        return times(timed.latency, whole.latency, str(whole.form))
    if timed.scored is None:
        return "not scored"
    if not loss.allows(timed.scored):
        return f"loses {loss.of(timed.scored):.3f} points of mIoU, {loss.points:g} allowed"
    return ""


def times(one: Latency, other: Latency, name: str) -> str:
    """The ratio of a latency to that of another form, called `name`, in words, and whether it is significant."""
    ratio = one.p50_milliseconds / other.p50_milliseconds
    words = f"takes {ratio:.2f} times as long as {name}"
    if is_faster(one, other) or is_faster(other, one):
        return words
    return f"{words}, not significantly {'slower' if ratio >= 1 else 'faster'}"


def kept(timed_forms: Sequence[TimedForm], loss: Loss) -> TimedForm:
    """The form to keep: the `unbeaten` one of the acceptable forms, or the fastest in full precision where there are
    none.
    """
    whole = fastest_whole(timed_forms)
    good = [timed for timed in timed_forms if timed is not whole and not against(timed, whole, loss)]
    return unbeaten(good or [whole], lambda timed: timed.latency)


class GivenUpError(Exception):
    """A chosen form turned out not to be faster when it was timed once more; the message says why."""

    def __init__(self, latency: Latency, reason: str) -> None:
        super().__init__(reason)
        self.latency = latency


def certified(
    timed_forms: Sequence[TimedForm],
    loss: Loss,
    certify: Callable[[Sequence[TimedForm], TimedForm, Callable[[Latency], None]], Certificate],
    measure: Callable[[Form], Latency],
    said: Callable[[str], None],
) -> tuple[list[TimedForm], TimedForm, Certificate]:
    """All timed forms, the one that is kept, and its certificate.

    `certify` times the chosen form again and passes on the latency before it writes anything; this becomes its
    latency. A form that is not significantly faster this time too is given up for the next best, and finally for
    full precision: even on a busy machine, no form is kept that did not win twice. The form that it would replace is
    timed again first, by `measure`: otherwise, when a machine changes its speed, a form could win against an outdated
    latency.
    """
    found, timed_anew = list(timed_forms), set[Form]()
    while True:
        whole, chosen = fastest_whole(found), kept(found, loss)
        if chosen is not whole and whole.form not in timed_anew:
            timed_anew.add(whole.form)
            again = measure(whole.form)
            said(f"{whole.form}: timed once more, {again}")
            found, _ = timed_again(found, whole, again)
            continue

        def require(latency: Latency, chosen: TimedForm = chosen, whole: TimedForm = whole) -> None:
            reason = "" if chosen is whole else against(replace(chosen, latency=latency), whole, loss)
            if reason:
                raise GivenUpError(latency, reason)

        try:
            certificate = certify(found, chosen, require)
            return *timed_again(found, chosen, certificate.latency), certificate
        except GivenUpError as error:
            said(f"{chosen.form}: timed once more, {error.latency}: {error}")
            found, _ = timed_again(found, chosen, error.latency)


def timed_again(
    timed_forms: Sequence[TimedForm], one: TimedForm, latency: Latency
) -> tuple[list[TimedForm], TimedForm]:
    """All forms with the new latency of one of them, and that form."""
    again = replace(one, latency=latency)
    return [again if each is one else each for each in timed_forms], again


def verdict(timed: TimedForm, chosen: TimedForm, timed_forms: Sequence[TimedForm], loss: Loss) -> str:
    """The verdict on a form: `kept`, or why it was not."""
    if timed is chosen:
        return "kept"
    whole = chosen if chosen.form.target.precision == "fp32" else fastest_whole(timed_forms)
    return against(timed, whole, loss) or times(timed.latency, chosen.latency, str(chosen.form))
