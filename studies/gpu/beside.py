"""Latencies on one device while a training keeps another one busy, and without it.

    python studies/gpu/beside.py --target torch@cuda:0 --device cuda:1 --work beside --out beside.csv

times the networks with nothing beside them, then again from the end of the first epoch of a training on `--device`,
which is ended afterwards. A row of the CSV file is a network; its `ratio` is 1 where the training changes nothing. The
last line that is printed says how many epochs ended meanwhile: without one, nothing was shown. On a CPU, trainings and
timings take turns.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAS = (sys.executable, "-m", "nas.cli")
NETWORKS = ("erfnet", "ndnet45-ende", "swiftnet-rn18", "swiftnet-mnv2")
HEADER = ("network", "alone_milliseconds", "beside_milliseconds", "ratio", "flagged")
EPOCH = re.compile(r"^epoch .*  loss ", re.MULTILINE)
ENDLESS = 10_000  # epochs
LOOK_SECONDS = 0.5

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="where the networks are timed")
    parser.add_argument("--device", required=True, help="another device, where the first network trains meanwhile")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--input", default="256x512")
    parser.add_argument("--patience", default="12s")
    parser.add_argument("--work", type=Path, required=True, help="new folder for the training and the tables")
    parser.add_argument("--out", type=Path, default=Path("beside.csv"))
    options = parser.parse_args()
    options.work.mkdir(parents=True)
    alone = latencies(options, options.work / "alone")
    with training(options, options.work) as log:
        before = epochs_in(log)
        beside = latencies(options, options.work / "beside")
        meanwhile = epochs_in(log) - before
    with options.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *(row(alone[name], beside[name]) for name in alone)])
    print(f"{meanwhile} epochs ended meanwhile")


def latencies(options: argparse.Namespace, out: Path) -> dict[str, Row]:
    """The rows of `nas measure`, by network."""
    words = ("--target", options.target, "--input", options.input, "--patience", options.patience, "--out", str(out))
    subprocess.run([*NAS, "measure", *options.networks, *words], check=True)
    with (out / "latency.csv").open(newline="", encoding="utf-8") as lines:
        return {each["network"]: each for each in csv.DictReader(lines)}


@contextmanager
def training(options: argparse.Namespace, work: Path) -> Iterator[Path]:
    """What a training prints, from the end of its first epoch on."""
    log = work / "training.txt"
    words = ("--data", "road_scenes", "--input", options.input, "--device", options.device, "--epochs", str(ENDLESS))
    command = [*NAS, "train", options.networks[0], *words, "--out", str(work / "training")]
    with log.open("w", encoding="utf-8") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
    try:
        while not epochs_in(log):
            require_under_way(process, log)
            time.sleep(LOOK_SECONDS)
        yield log
        require_under_way(process, log)
    finally:
        process.terminate()
        process.wait()


def require_under_way(process: subprocess.Popen[bytes], log: Path) -> None:
    """End with what a training printed if it has ended."""
    if process.poll() is not None:
        sys.exit(f"expected a training beside the timings, got one that ended:\n{log.read_text('utf-8', 'replace')}")


def epochs_in(log: Path) -> int:
    """How many epochs have ended."""
    return len(EPOCH.findall(log.read_text("utf-8", errors="replace")))


def row(alone: Row, beside: Row) -> tuple[str, ...]:
    """Both latencies of a network, and why either of them is flagged."""
    pair = [each["p50_milliseconds"] for each in (alone, beside)]
    reasons = dict.fromkeys(filter(None, (alone["flagged"], beside["flagged"])))
    return (alone["network"], *pair, f"{float(pair[1]) / float(pair[0]):.4f}", "; ".join(reasons))


if __name__ == "__main__":
    main()
