"""The replay bench on a small invented table with words, gaps, and repeated and constant columns, as real ones have."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
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
    """There are two kinds of cheap trainings; a training that goes on does not pay for its beginning again."""
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


SHAPES = {
    "with semicolons and a mark": ("utf-8-sig", ";", "\r\n"),
    "with tabs": ("utf-8", "\t", "\n"),
    "with spaces around names": ("utf-8", " , ", "\n"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_tables_of_other_programs_are_read(shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables have missing numbers given in words, names and ids, scores of no cost, and more values than are told
    apart; features and distinct networks must remain.
    """
    monkeypatch.syspath_prepend(str(BENCH))
    from table import load

    encoding, between, end = SHAPES[shape]
    rows = [
        (f"net-{row}", row % 7, "NaN" if row == 3 else row % 5, "none" if row % 2 else "sep", row / 3000, row, row + 1)
        for row in range(3000)
    ]
    rows[5] = (rows[5][0], *rows[4][1:])  # the same network as the row before
    header = ("id", "width", "depth", "block", "miouse", "miou_16", "miou_1")
    lines = [between.join(map(str, row)) for row in (header, *rows)]
    file = tmp_path / "table.csv"
    file.write_bytes((end.join(lines) + end).encode(encoding))
    found = load(file, objective="miou_16", bounds=["width=5"])
    assert found.features == ("depth", "block", "miouse")
    assert {type(point["depth"]) for point in found.points} == {float}
    assert {point["block"] for point in found.points} == {"none", "sep"}
    kept = [row for place, row in enumerate(rows) if row[1] <= 5 and place != 5]
    assert found.scores.tolist() == [row[5] for row in kept]
    assert len({tuple(point.items()) for point in found.points}) == len(kept)
    said = " ".join(found.notes)
    assert "id is no feature" in said
    assert "miou_1 is no feature" in said
    assert load(file, objective="miou_16", features="id, w*", bounds=["miouse=0.03"]).features == ("id", "width")


def replay(table: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "replay.py"), "--table", str(table), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def test_every_method_searches_within_its_cost(table: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--objective", "eror"), "no column is called 'eror'; did you mean 'error'"),
        (("--objective", "error", "--bound", "cost=0"), "expected some networks that differ in their features"),
        (("--objective", "error", "--cheap", "early:0.0604", "--cheap", "earliest:0.0605"), "by a thousandth or more"),
        (("--objective", "error", "--trainings", "nan"), "these to be finite"),
        (("--objective", "error", "--jobs", "0"), "at least one of --seeds, of --jobs"),
        (("--objective", "error", "--picture", "curves.txt"), "expected a file that ends in .svg, .png, .pdf"),
        (("--objective", "error", "--out", "/dev/null/out.csv"), "--out: cannot make the folder /dev/null"),
        (("--objective", "error", "--table", "nosuch.csv"), "cannot read nosuch.csv"),
    ],
)
def test_impossible_replays_are_refused_before_they_begin(
    table: Path,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else the program would set it
    monkeypatch.setattr(sys, "argv", ["replay.py", "--table", str(table), *words])
    from replay import main

    assert main() == 2
    told = capsys.readouterr()
    assert told.err.startswith("replay: ")
    assert said in told.err
    assert not told.out


def test_finished_searches_of_an_interrupted_replay_are_kept(table: Path, tmp_path: Path) -> None:
    """One of two methods takes long; the program is interrupted once the other one is written."""
    out = tmp_path / "out.csv"
    words = ("--objective", "error", "--minimize", "--seeds", "1", "--trainings", "110", "--jobs", "1")
    command = [sys.executable, str(BENCH / "replay.py"), "--table", str(table), *words, "--methods", "random,ours"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True, env=environment) as process:
        while not out.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert f"replay: interrupted; {out} has the searches that had ended" in told
    with out.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert {row["method"] for row in rows} == {"random"}
    assert rows[-1]["trainings"] == rows[-1]["cost"] == "110"
