from __future__ import annotations

from collections.abc import Callable

import pytest

from nas.latency.record import Latency


@pytest.fixture
def invented() -> Callable[[float], Latency]:
    """The record of an invented measurement at 180x240."""
    return _invented


def _invented(milliseconds: float) -> Latency:
    return Latency(
        p50_milliseconds=milliseconds,
        p90_milliseconds=milliseconds,
        p99_milliseconds=milliseconds,
        ci_low_milliseconds=milliseconds,
        ci_high_milliseconds=milliseconds,
        samples=20,
        ratio=milliseconds / 5,
        ratio_low=milliseconds / 5,
        ratio_high=milliseconds / 5,
        reference_milliseconds=5.0,
        raw_p50_milliseconds=milliseconds,
        target="onnxruntime@cpu:1",
        height=180,
        width=240,
        scope="an invented device",
    )
