"""The description of the timing protocol in a certificate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import space
from nas.latency.record import Latency
from nas.runs.certificate import MODEL, Evidence, certify
from nas.runs.checked_export import FileCheck
from nas.runs.labelling import ARCHITECTURE, WEIGHTS, Labelling

LATENCY = Latency(
    p50_milliseconds=2.0, p90_milliseconds=3.0, p99_milliseconds=4.0, ci_low_milliseconds=1.9,
    ci_high_milliseconds=2.1, samples=40, ratio=0.5, ratio_low=0.4, ratio_high=0.6, reference_milliseconds=4.0,
    raw_p50_milliseconds=2.2, target="torch@cpu:1", height=64, width=96, scope="network",
)  # fmt: skip


def test_the_certificate_names_the_factor_of_its_ratios(tmp_path: Path) -> None:
    labelling = Labelling(classes=("a", "b"), palette=((0, 0, 0),) * 2, size=(64, 96), data="folder")
    check = FileCheck(images=1, max_abs_difference=0.0, tolerance=1.0, same_labels=1.0)
    for name in (ARCHITECTURE, WEIGHTS, MODEL):
        (tmp_path / name).touch()

    def protocol(latency: Latency) -> str:
        evidence = Evidence(latency=latency, scored=None, check=check)
        return certify(space.load("ndnet29-fcn32"), labelling, None, evidence, tmp_path).protocol

    assert "multiplied" not in protocol(LATENCY)
    assert "the ratios are multiplied by 0.957" in protocol(replace(LATENCY, corrected=0.957))
    several = replace(LATENCY, corrected=0.957, processes_milliseconds=(1.9, 2.0, 2.1))
    assert "the median process" in protocol(several)
    assert "its ratios are multiplied by 0.957" in protocol(several)
