"""The correction of ratios of small networks on a slow machine, compared with recordings of a shared machine."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from nas.latency.protocol.anchor import FAR_FROM_ANCHOR
from nas.latency.protocol.interleaving import BLOCKS
from nas.latency.protocol.quiet import quiet_median, quiet_ratio
from nas.latency.protocol.slowing import LARGE, SLOPE, correction

STUDIES = Path(__file__).parents[3] / "studies" / "latency"


def scattered(pairs: np.ndarray, blocks: int) -> tuple[float, float]:
    """Standard deviation of the logarithm of the ratio of so many blocks, as taken and corrected.

    `pairs` (blocks, 2) of the network and the reference, in milliseconds.
    """
    anchored, found = float(np.median(pairs[:, 1])), []
    for start in range(0, len(pairs) - blocks + 1, blocks):
        candidate, reference = (pairs[start : start + blocks, place, None] for place in (0, 1))
        ratio = quiet_ratio(candidate, reference)
        found.append((ratio, ratio * correction(ratio, quiet_median(reference), anchored)))
    taken, corrected = np.std(np.log(found), axis=0)
    return float(taken), float(corrected)


def test_small_networks_scatter_less_than_uncorrected_in_measurements_of_eight_blocks() -> None:
    blocks = defaultdict(list)
    with (STUDIES / "quiet.csv").open() as file:
        for row in csv.DictReader(file):
            blocks[row["network"]].append([float(row[f"{who}_milliseconds"]) for who in ("candidate", "reference")])
    small = [name for name, pairs in blocks.items() if np.median(np.divide(*np.transpose(pairs))) < LARGE / 1.2]
    assert len(small) == 5
    for name, pairs in blocks.items():
        taken, corrected = scattered(np.asarray(pairs), BLOCKS)
        assert corrected < taken if name in small else corrected == pytest.approx(taken, rel=0.02), name


def test_small_networks_scatter_less_over_minutes_of_another_day() -> None:
    with (STUDIES / "wandering.csv").open() as file:
        header, *rows = csv.reader(file)
    times = np.asarray(rows, dtype=np.float64)[:, 1:]
    for place, name in enumerate(header[1::2]):
        taken, corrected = scattered(times[:, 2 * place : 2 * place + 2], 1)
        assert corrected < taken if not name.startswith("erfnet") else corrected == taken, name


def test_the_correction_is_limited_to_the_observed_slowdown() -> None:
    assert correction(1.0, 5.0, 5.0) == correction(LARGE, 6.0, 5.0) == correction(9.0, 6.0, 5.0) == 1.0
    assert correction(0.1, 1.1, 1.0) == pytest.approx(1.1 ** (1 - SLOPE))
    assert correction(1.0, 9.0, 1.0) == pytest.approx(FAR_FROM_ANCHOR ** (1 - SLOPE))
    assert correction(1.0, 1.0, 9.0) == pytest.approx(FAR_FROM_ANCHOR ** (SLOPE - 1))
