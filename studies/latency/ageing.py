"""Does a process that measured before measure the same? Small networks in a new process, and after others were there.

    python studies/latency/ageing.py --repeats 3 --out studies/latency/ageing.csv

Each row is a new process: it times two narrow networks, does something, and times them again, each time in a new
session of the runtime. What it does: nothing; building the twelve published networks in PyTorch; exporting them as
well; running them in the runtime as well, and giving everything back. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import statistics
import subprocess
import sys
from pathlib import Path

import space
from nas.export.graph import onnx_bytes
from nas.latency import parse_target
from nas.latency.machine import device
from nas.latency.protocol import WITHIN
from nas.latency.protocol.controls import warm_up
from nas.latency.protocol.timer import InterleavedTimer
from nas.latency.target import Target
from nas.latency.worker.session import Session, build
from space.scale import scale_width

SIZE = (180, 240)
CLASSES = 11
NETWORKS = (("fplnet", 0.27), ("ndnet45-ende", 0.94))
MEANWHILE = ("nothing", "build", "export", "run")
COLUMNS = ("meanwhile", "network", "new", "after", "after_over_new")


def times(session: Session) -> dict[str, float]:
    """Ratio to the reference of each network, in a new session."""
    found = {}
    timer = InterleavedTimer(session.target, SIZE, session.environment, session.controls.watch)
    for name, factor in NETWORKS:
        network = build(scale_width(space.load(name), factor), None, CLASSES)
        latency = timer.measure([session.candidate(network)], WITHIN)[0]
        found[f"{name} x{factor}"] = latency.ratio
    return found


def spend(session: Session, target: Target, how: str) -> None:
    """What other networks do to a process."""
    if how == "nothing":
        return
    networks = [build(space.load(name), None, CLASSES) for name in space.published()]
    if how == "export":
        for network in networks:
            onnx_bytes(network, SIZE, labels=True)
    if how == "run":
        for call in [session.runtime.prepare(network, session.image, target) for network in networks]:
            warm_up(call, session.controls.reference, session.controls.watch)
    del networks
    gc.collect()


def one(target: Target, how: str) -> None:
    """One process: rows to standard output."""
    device.pin(target)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(target.thread_count()))
    session = Session(target, SIZE)
    new = times(session)
    spend(session, target, how)
    after = times(session)
    for name in new:
        print(",".join([how, name, f"{new[name]:.4f}", f"{after[name]:.4f}", f"{after[name] / new[name]:.4f}"]))


def main() -> None:
    """Start the processes, keep and sum up their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="onnxruntime@cpu:1")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep the rows there")
    parser.add_argument("--one", choices=MEANWHILE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(parse_target(options.target), options.one)
        return
    rows: list[list[str]] = []
    for _ in range(options.repeats):
        for how in MEANWHILE:
            command = [sys.executable, __file__, "--target", options.target, "--one", how]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows += list(csv.reader(said.splitlines()))
    if options.out:
        with options.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for how in MEANWHILE:
        for name in dict.fromkeys(row[1] for row in rows):
            ratios = [float(row[-1]) for row in rows if (row[0], row[1]) == (how, name)]
            print(f"{how:8} {name:20} {statistics.median(ratios) - 1:+.1%}")


if __name__ == "__main__":
    main()
