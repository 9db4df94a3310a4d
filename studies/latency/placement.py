"""What where a virtual machine's cores are does to a latency, and that the canary tells.

    python studies/latency/placement.py --seconds 180 --out studies/latency

times a network, the reference and the canary in blocks of ten pairs with pauses between, counts every block, and leaves
placement.csv and placement.png: each dot a block, the network's ratio to the reference over the canary's. Leave the
machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from pathlib import Path

import numpy as np

import space
from nas.latency.machine import device
from nas.latency.protocol.controls import canary_milliseconds, milliseconds, warm_up
from nas.latency.target import Target
from nas.latency.worker.session import Session, build

PAIRS = 10  # of a block
COLUMNS = ("seconds", "ratio", "canary", "reference_milliseconds")


def main() -> None:
    """Take blocks, write them and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fplnet")
    parser.add_argument("--target", default="onnxruntime@cpu:2")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    target = Target.parse(options.target)
    device.pin(target)
    session = Session(target, (180, 240))
    reference, watch = session.controls.reference, session.controls.watch
    network = build(space.load(options.network), None, 11)
    call = session.runtime.prepare(network, session.image, target)
    warm_up(call, reference, watch)
    pauses = random.Random(0)
    start = time.monotonic()
    rows = []
    while time.monotonic() - start < options.seconds:
        call()
        reference()
        pairs = np.asarray([(milliseconds(call, watch), milliseconds(reference, watch)) for _ in range(PAIRS)])
        canary = canary_milliseconds(session.controls)
        ratio, middle = float(np.median(pairs[:, 0] / pairs[:, 1])), float(np.median(pairs[:, 1]))
        rows.append((time.monotonic() - start, ratio, canary / middle, middle))
        time.sleep(pauses.choice((0.0, 0.05, 0.3, 0.8)))
    with (options.out / "placement.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([f"{value:.4f}" for value in row] for row in rows)
    draw(options.out / "placement.png", np.asarray(rows), options.network, options.target)
    print(f"{len(rows)} blocks; ratio 5 %..95 %: {np.quantile(np.asarray(rows)[:, 1], (0.05, 0.5, 0.95)).round(3)}")


def draw(path: Path, rows: np.ndarray, network: str, target: str) -> None:
    """The blocks: the network's ratio over the canary's, and both over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    dots = left.scatter(rows[:, 2], rows[:, 1], c=rows[:, 3], s=12, cmap="viridis", alpha=0.8)
    left.set_xlabel("canary / reference")
    left.set_ylabel(f"{network} / reference")
    figure.colorbar(dots, ax=left, label="reference, milliseconds")
    right.plot(rows[:, 0], rows[:, 1] / np.median(rows[:, 1]), ".", markersize=4, label=network)
    right.plot(rows[:, 0], rows[:, 2] / np.median(rows[:, 2]), ".", markersize=4, label="canary")
    right.set_xlabel("seconds")
    right.set_ylabel("ratio to the reference, over its median")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{target}, 180x240: one dot per block of {PAIRS} pairs", fontsize=10)
    figure.savefig(path)


if __name__ == "__main__":
    main()
