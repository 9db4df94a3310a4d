"""Leaderboards of all published networks: every runtime of the CPU, one thread and two, at two sizes.

    python studies/latency/leaderboards.py --out studies/latency/leaderboard

runs `nas measure` for each that is not there yet, and prints a table of medians in milliseconds; those in brackets are
flagged. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from nas.terminal import table

RUNTIMES = ("onnxruntime", "openvino", "torch", "torch-compile")
WITHIN = "3%"


def main() -> None:
    """Measure what is missing, and print what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--inputs", nargs="+", default=["360x480", "512x1024"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    for size in options.inputs:
        for threads in options.threads:
            boards = {runtime: folder_of(options.out, runtime, threads, size) for runtime in options.runtimes}
            for runtime, folder in boards.items():
                if not (folder / "latency.csv").exists():
                    target = f"{runtime}@cpu:{threads}"
                    words = ["--target", target, "--input", size, "--within", WITHIN, "--out", str(folder)]
                    subprocess.run([sys.executable, "-m", "nas.cli", "measure", *words], check=True)
            print(f"\n{size}, {'1 thread' if threads == 1 else f'{threads} threads'}\n")
            medians = {runtime: read(folder / "latency.csv") for runtime, folder in boards.items()}
            rows = [
                (name, *(medians[each][name] for each in options.runtimes)) for name in medians[options.runtimes[0]]
            ]
            print(table(rows, ("network", *options.runtimes)))


def folder_of(out: Path, runtime: str, threads: int, size: str) -> Path:
    """The folder of a leaderboard; a runtime may have a precision, as in `openvino:bf16`."""
    return out / f"{runtime.replace(':', '-')}-{threads}-{size}"


def read(file: Path) -> dict[str, str]:
    """The median of each network, in brackets where it is flagged."""
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    return {row["network"]: ("({})" if row["flagged"] else "{}").format(milliseconds(row)) for row in rows}


def milliseconds(row: Mapping[str, str]) -> str:
    """The median of a row of `latency.csv`."""
    return f"{float(row['p50_milliseconds']):.1f}"


if __name__ == "__main__":
    main()
