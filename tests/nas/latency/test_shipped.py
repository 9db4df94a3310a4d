"""The latency tables of the package, compared with leaderboards that were measured on a CPU."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

import space
from nas.latency import parse_target, runtimes
from nas.latency.estimates.shipped import TABLES, shipped_table
from nas.surrogate.agreement import kendall_tau

LEADERBOARDS = Path(__file__).parents[3] / "studies" / "latency" / "leaderboard"
SIZE = (360, 480)
CLASSES = 11


@pytest.mark.parametrize("file", sorted(TABLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_shipped_table_estimates_published_networks_at_another_size(file: Path) -> None:
    runtime, _, precision = file.stem.partition("-")
    target = parse_target(f"{runtime}:{precision or 'fp32'}@cpu:1")
    assert target.runtime in runtimes.names()
    ratios, references = defaultdict(list), []
    with (LEADERBOARDS / f"{file.stem}-1-{SIZE[0]}x{SIZE[1]}" / "blocks.csv").open() as lines:
        for row in csv.DictReader(lines):
            references.append(float(row["reference_milliseconds"]))
            ratios[row["network"]].append(float(row["candidate_milliseconds"]) / references[-1])
    table = shipped_table(target, SIZE, statistics.median(references))
    assert table is not None
    found = {name: table.estimate(space.load(name), CLASSES) for name in ratios}
    measured = {name: statistics.median(each) * statistics.median(references) for name, each in ratios.items()}
    assert len(found) >= 10
    assert statistics.fmean(abs(found[name] / measured[name] - 1) for name in found) < max(0.1, 1.5 * table.error)
    tau = kendall_tau([(found[name], measured[name]) for name in found])
    assert tau is not None
    assert tau > 0.9


def test_a_shipped_table_follows_the_reference_and_covers_no_other_targets() -> None:
    target = parse_target("onnxruntime@cpu:1")
    slow, fast = (shipped_table(target, SIZE, milliseconds) for milliseconds in (40.0, 10.0))
    assert slow is not None
    assert fast is not None
    network = space.load("ndnet45-ende")
    assert slow.estimate(network, CLASSES) == pytest.approx(4 * fast.estimate(network, CLASSES))
    for text in ("null@cpu:1", "onnxruntime:int8@cpu:1", "cudagraph@cuda:0", "onnxruntime@ssh:board"):
        assert shipped_table(parse_target(text), SIZE, 10.0) is None, text
