"""Figures and judgements as text for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nas.latency.record import MeasuredTimes, OtherPrecision
from nas.report.agreement import FEWEST_POINTS, Agreement
from nas.report.standings import TrialSummary
from nas.report.summary import Summary
from nas.report.winners import LatencySummary
from nas.runs.certificate import Certificate, ComparedForm
from space import strict


def quantity(count: int) -> str:
    """A parameter count: `2.06 M` or `12.3 k`."""
    return f"{count / 1e6:.2f} M" if count >= 1_000_000 else f"{count / 1e3:.1f} k"


def giga(count: int) -> str:
    """A multiply-add count, in 10^9."""
    return f"{count / 1e9:.2f}"


def half_interval(timing: LatencySummary | MeasuredTimes) -> str:
    """Half the 95 % interval of the median, in milliseconds."""
    return f"{(timing.ci_high_milliseconds - timing.ci_low_milliseconds) / 2:.2f}"


def form_latency(form: ComparedForm) -> str:
    """Median and half interval of a compared form; `-` for one that its runtime refused."""
    low, high = form.ci_low_milliseconds, form.ci_high_milliseconds
    if form.p50_milliseconds is None or low is None or high is None:
        return "-"
    return f"{form.p50_milliseconds:.2f} ±{(high - low) / 2:.2f}"


def latency(timing: LatencySummary, summary: Summary) -> str:
    """Median and half interval, and also the budget's statistic if that is not the median."""
    words = f"{timing.p50_milliseconds:.2f} ±{half_interval(timing)}"
    return words if summary.statistic == "p50" else f"{words}, {summary.statistic} {timing.milliseconds:.2f}"


def in_precision(other: OtherPrecision, summary: Summary) -> str:
    """The latency, as from `latency`, in a precision that is not the network's fastest."""
    words = f"{other.precision} {other.p50_milliseconds:.2f} ±{half_interval(other)}"
    statistic = summary.statistic
    return words if statistic == "p50" else f"{words}, {statistic} {other.milliseconds(statistic):.2f}"


def times_over(timing: LatencySummary, summary: Summary) -> str:
    """A latency over the budget as a multiple of it."""
    times = timing.milliseconds / summary.milliseconds_of(timing.budget)
    return f"{times:.1f}x" if times >= 1.1 else f"{times:.2f}x"


def remarks(candidate: TrialSummary) -> list[str]:
    """Why a candidate failed, its pretrained layers, and why its latency cannot be trusted."""
    failed = [f"{candidate.name}: failed: {candidate.failed}"] if candidate.failed else []
    flags = "; ".join(candidate.timing.flagged)
    pretrained = [] if candidate.pretrained is None else [f"{candidate.name}: {candidate.pretrained}"]
    return failed + pretrained + ([f"{candidate.name}: latency flagged: {flags}"] if flags else [])


def judgement(found: Agreement) -> str:
    """The meaning of a proxy's tau."""
    if found.points < FEWEST_POINTS:
        return f"too few candidates; at least {FEWEST_POINTS} are needed"
    if found.tau is None:
        return "all values are equal"
    agreeing = f"puts about {(1 + found.tau) / 2:.0%} of pairs in the right order"
    return agreeing + ("; few candidates" if found.points < 10 else "")


def certificate_fields(certificate: Certificate) -> dict[str, dict[str, str]]:
    """The fields of a certificate, of its latency and of its environment, without class IoU, files and other forms."""
    plain: Mapping[str, Any] = strict.plain(replace(certificate, compared=()))
    latency = plain["latency"]
    return {
        "certificate": _readable({name: value for name, value in plain.items() if not isinstance(value, dict)}),
        "latency": _readable({name: value for name, value in latency.items() if name != "environment"}),
        "environment": _readable(latency["environment"]),
    }


def _readable(values: Mapping[str, Any]) -> dict[str, str]:
    return {_label(name): _value(value) for name, value in values.items()}


def _label(name: str) -> str:
    words = name.removesuffix("_milliseconds").replace("_", " ")
    return f"{words} (ms)" if name.endswith("_milliseconds") else words


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "none"
    return "none" if value is None else str(value)
