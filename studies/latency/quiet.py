"""Which calls tell of a network, and which of the neighbours? Blocks of alternating calls, taken for a while.

    python studies/latency/quiet.py --target onnxruntime@cpu:1 --seconds 180 --out studies/latency/quiet.csv

takes blocks of several networks in turns, whatever state the machine is in, and prints for each network

- how far its ratio to the reference scatters from one 24 blocks to the next (standard deviation), when the blocks that
  count are each network's own best (within 3 % of its best one), the reference's best (within 5 %), or all of them,
- how much more it slows down than the reference: the slope of its time over the reference's, on logarithmic scales,
- how far the ratio of one measurement, of eight blocks, scatters as taken and as it is corrected for that
  (`nas.latency.protocol.slowing`), the anchor being the reference's median.

With --from FILE it judges the blocks of an earlier run. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import space
from nas.latency import parse_target
from nas.latency.machine import device
from nas.latency.protocol.controls import milliseconds, warm_up
from nas.latency.protocol.interleaving import BLOCKS
from nas.latency.protocol.quiet import quiet_blocks, quiet_median
from nas.latency.protocol.ready import BLOCK_MILLISECONDS
from nas.latency.protocol.slowing import correction
from nas.latency.target import Target
from nas.latency.worker.session import Session, build
from space.scale import scale_width

SIZE = (180, 240)
NETWORKS = (
    ("ndnet45-fcn32", 1.0), ("ndnet45-ende", 1.0), ("erfnet", 0.2), ("swiftnet-mnv2", 0.3), ("fplnet", 0.3),
    ("fplnet-encoder", 1.0), ("swiftnet-mnv2", 1.0), ("erfnet", 1.0),
)  # fmt: skip
WINDOW = 24  # blocks
COLUMNS = ("network", "block", "candidate_milliseconds", "reference_milliseconds")
Medians = np.ndarray  # (blocks, 2): candidate, reference


def take(target: Target, seconds: float) -> dict[str, Medians]:
    """Medians of blocks of each network, in turns."""
    device.pin(target)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(target.thread_count()))
    session = Session(target, SIZE)
    calls = {}
    for name, factor in NETWORKS:
        architecture = scale_width(space.load(name), factor)
        network = build(architecture, None, 11)
        calls[name if factor == 1 else f"{name} x{factor}"] = session.runtime.prepare(network, session.image, target)
    taken: dict[str, list[list[float]]] = {name: [] for name in calls}
    reference, watch = session.controls.reference, session.controls.watch
    for call in calls.values():
        warm_up(call, reference, watch)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            pair = milliseconds(call, watch) + milliseconds(reference, watch)
            pairs = max(5, math.ceil(BLOCK_MILLISECONDS / pair))
            times = [[milliseconds(call, watch), milliseconds(reference, watch)] for _ in range(pairs)]
            taken[name].append(list(np.median(times, axis=0)))
    return {name: np.array(blocks) for name, blocks in taken.items()}


def own_best(window: Medians) -> float:
    quiet = [np.median(times[times <= 1.03 * times.min()]) for times in window.T]
    return float(quiet[0] / quiet[1])


def references_best(window: Medians) -> float:
    quiet = window[quiet_blocks(window[:, 1:])]
    return float(np.median(quiet[:, 0]) / np.median(quiet[:, 1]))


def all_blocks(window: Medians) -> float:
    return float(np.median(window[:, 0] / window[:, 1]))


def scatter(blocks: Medians, ratio_of: Callable[[Medians], float], window: int = WINDOW) -> float:
    """Standard deviation of the logarithm of a ratio, over windows of so many blocks."""
    windows = [blocks[start : start + window] for start in range(0, len(blocks) - window + 1, window)]
    return float(np.std([math.log(ratio_of(window)) for window in windows]))


def main() -> None:
    """Take or read blocks, and judge them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="onnxruntime@cpu:1")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--out", type=Path, help="keep the blocks there")
    parser.add_argument("--from", type=Path, dest="source")
    options = parser.parse_args()
    if options.source:
        rows = list(csv.DictReader(options.source.open()))
        names = dict.fromkeys(row["network"] for row in rows)
        taken = {
            name: np.array([[float(row[column]) for column in COLUMNS[2:]] for row in rows if row["network"] == name])
            for name in names
        }
    else:
        taken = take(parse_target(options.target), options.seconds)
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for name, blocks in taken.items():
                writer.writerows([name, index, *block.round(3)] for index, block in enumerate(blocks))
    words = ("blocks", "ratio", "own best", "reference", "all", "slope", "eight", "corrected")
    print(f"{'network':20} {' '.join(f'{each:>9}' for each in words)}")
    for name, blocks in taken.items():
        slope = np.polyfit(np.log(blocks[:, 1]), np.log(blocks[:, 0]), 1)[0]
        own, references, every = (scatter(blocks, ratio_of) for ratio_of in (own_best, references_best, all_blocks))
        ratio = references_best(blocks)
        anchored = float(np.median(blocks[:, 1]))

        def corrected(window: Medians, anchored: float = anchored) -> float:
            ratio = references_best(window)
            return ratio * correction(ratio, quiet_median(window[:, 1:]), anchored)

        eight, less = (scatter(blocks, ratio_of, BLOCKS) for ratio_of in (references_best, corrected))
        print(
            f"{name:20} {len(blocks):9} {ratio:9.3f} {own:9.1%} {references:9.1%} {every:9.1%} {slope:9.2f} "
            f"{eight:9.2%} {less:9.2%}"
        )


if __name__ == "__main__":
    main()
