"""What the matrix left, measured again: each network's cuts beside the whole network, in turns, under one protocol.

    python studies/pruning/leaderboards.py --runs runs/pruning --out studies/pruning/leaderboard

collects the architectures of the runs, gives those of each network to one `nas measure`, and prints a table: latency as
a share of the whole network's, and mIoU, by method and fraction; brackets hold what is flagged. Without `--runs` those
that are in `--out` already are measured: on another device, give it a copy of that folder. Leave the machine alone
meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from nas.tables import table

RESULTS = Path(__file__).parent / "results.csv"
WITHIN = "2%"


def main() -> None:
    """Collect, measure what was not, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="of matrix.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", default="120x160")
    parser.add_argument("--target", default="onnxruntime@cpu:1")
    options = parser.parse_args()
    if options.runs:
        collect(options.runs, options.out)
    with RESULTS.open() as lines:
        results = {name_of(row): row for row in csv.DictReader(lines)}
    for folder in sorted(path for path in options.out.iterdir() if path.is_dir()):
        if not (folder / "latency.csv").exists():
            measure(folder, options.target, options.size)
        print(f"\n{folder.name}\n\n{board(folder, results)}", flush=True)


def collect(runs: Path, out: Path) -> None:
    """Copy the architectures: a folder for each network and seed, a file for each cut."""
    for described in sorted(runs.glob("*/*/architecture.yaml")):
        folder = out / described.parts[-3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(described, folder / f"{described.parts[-2]}.yaml")


def measure(folder: Path, target: str, size: str) -> None:
    """The whole network and its cuts."""
    cuts = sorted(path.name for path in folder.glob("*.yaml"))
    words = ["--target", target, "--input", size, "--within", WITHIN, "--out", "."]
    subprocess.run(
        [sys.executable, "-m", "nas.cli", "measure", whole_of(folder), *cuts, *words], check=True, cwd=folder
    )


def board(folder: Path, results: Mapping[str, Mapping[str, str]]) -> str:
    """A table of one network's cuts."""
    with (folder / "latency.csv").open() as lines:
        measured = {row["network"].removesuffix(".yaml"): row for row in csv.DictReader(lines)}
    whole = float(measured[whole_of(folder)]["p50_milliseconds"])
    rows = []
    for name, one in measured.items():
        share = f"{float(one['p50_milliseconds']) / whole:.1%}"
        result = results.get(f"{folder.name}/{name}")
        miou = f"{100 * float(result['miou']):.1f}" if result else ""
        rows.append((name, one["p50_milliseconds"], f"({share})" if one["flagged"] else share, miou))
    return table(rows, ("cut", "ms", "of the whole", "mIoU (%)"))


def whole_of(folder: Path) -> str:
    """The network that a folder's cuts are of."""
    return folder.name.rpartition("-")[0]


def name_of(row: Mapping[str, str]) -> str:
    """Where the cut of a row of `results.csv` is kept."""
    return f"{row['network']}-{row['seed']}/{float(row['fraction'])}-{row['method']}"


if __name__ == "__main__":
    main()
