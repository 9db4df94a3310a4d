"""The replay bench on a small invented table with what real ones have: words, gaps, repeated and constant columns."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BENCH = ROOT / "studies/search"
SEEDS = 2
TRAININGS = 14


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    file = tmp_path_factory.mktemp("table") / "table.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("width", "depth", "kind", "always", "error", "early", "earliest", "cost"))
        for row in range(120):
            width, depth, kind = rng.choice((8, 16, 32, 64, 128)), rng.randint(1, 4), rng.choice(("sep", "plain", ""))
            error = 30 - 2 * depth - width**0.5 + 4 * (kind == "sep") + rng.random()
            early = "" if row % 10 == 0 else error + 8 + rng.random()
            earliest = "" if row % 15 == 0 else error + 15 + 4 * random.Random(row).random()
            repeated = [(width, depth, kind, 1, "" if row == 50 else error, early, earliest, width * depth / 100)]
            writer.writerows(repeated * (2 if row == 7 else 1))
    return file


@pytest.mark.parametrize("name", ["ours", "asha"])
@pytest.mark.parametrize("continued", [False, True])
def test_a_row_pays_for_each_rung_once(
    table: Path, name: str, continued: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two kinds of cheap trainings; where a training goes on, what is behind it is not paid again."""
    monkeypatch.syspath_prepend(str(BENCH))
    import methods
    from table import load

    pool = load(table, objective="error", minimize=True, bounds=["cost=0.5"], cheap=["early:0.3", "earliest:0.1"])
    assert "earliest" not in pool.features
    paid: list[tuple[int, float]] = []

    class Recorded(methods.Account):
        def train(self, row: int, fidelity: float = 1.0) -> tuple[float, float]:
            before = self.cost
            score, share = super().train(row, fidelity)
            behind = max((cost for other, cost in paid if other == row), default=0.0)
            assert behind < share, "only ever on to a higher rung"
            assert self.cost - before == pytest.approx(share - behind * continued)
            paid.append((row, share))
            return score, share

    account = Recorded(table=pool, trainings=6, continued=continued)
    methods.METHODS[name](account, 0)
    assert set(Counter(paid).values()) == {1}
    assert {share for _, share in paid} == {0.1, 0.3, 1.0}
    assert 5 < account.cost <= 6


def replay(table: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "replay.py"), "--table", str(table), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_every_method_searches_within_what_it_may_pay(table: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / "out.csv", tmp_path / "out.svg"
    methods = ("ours", "ours-whole", "random", "tpe", "gp", "forest", "nsga2", "asha")
    done = replay(
        table, "--objective", "error", "--minimize", "--bound", "cost=2", "--cheap", "early:0.1", "--cheap",
        "earliest:0.05", "--continued", "--median", "--random", "20,50", "--seeds", f"{SEEDS}",
        "--trainings", f"{TRAININGS}", "--methods", ",".join(methods), "--out", str(out), "--picture", str(picture),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "features: width, depth, kind, always" in done.stdout
    assert "rows repeat the features" in done.stdout
    with table.open(newline="", encoding="utf-8") as opened:
        inside = [float(row["error"]) for row in csv.DictReader(opened) if float(row["cost"]) <= 2 and row["error"]]
    with out.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert {(row["method"], row["seed"]) for row in rows} == {
        (name, str(seed)) for name in methods for seed in range(2)
    }
    for row in rows:
        cheap = row["method"] in ("ours", "asha")
        assert float(row["trainings"]) <= float(row["cost"]) <= TRAININGS
        assert cheap or float(row["trainings"]) == float(row["cost"]), "only those are offered cheap trainings"
        assert min(inside) <= float(row["best"]) + 1e-3 <= max(inside) + 1e-3
    assert any(float(row["cost"]) % 1 for row in rows if row["method"] == "ours")
    assert "<svg" in picture.read_text("utf-8")


def test_a_column_that_is_not_there_is_told_with_the_nearest_one(table: Path) -> None:
    done = replay(table, "--objective", "eror")
    assert done.returncode == 2
    assert "no column is called 'eror'" in done.stderr
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr
