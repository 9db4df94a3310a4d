"""Makes the latency tables that come with the package (`nas/latency/estimates/tables`), and says how good they are.

    python studies/latency/shipped.py --out studies/latency/shipped.csv [--write]

ONNX Runtime's prices are found from the calibrations with one thread at 120x160, of two spaces on two processors. They
are tried where they were not found: on the other calibration (two threads, 180x240) and on the leaderboards (one and
two threads, 360x480 and 512x1024), before and after a few networks of the same device are measured, and beside
estimates that begin with these few alone. OpenVINO's are ONNX Runtime's, corrected by its own leaderboards, and those
in bfloat16 are OpenVINO's, corrected by leaderboards in bfloat16. Both are tried on each leaderboard by a fit to those
of the other size.

The architectures of the calibrations are kept here, since the space has grown and draws others now. Most of these
networks were timed while runtimes shrank the images of pyramids themselves: that is work of its own here, whose price
is not written. Two calibrations were made while runtimes resized means of maps: networks that do so are left out there.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import space
from nas.latency.estimates.prices import fit_prices
from nas.latency.estimates.shipped import TABLES, SharesOfReference
from nas.latency.estimates.table import Prices
from nas.latency.estimates.work import work_of
from nas.storage.files import write_text
from nas.surrogate.agreement import kendall_tau
from space import strict

FOLDER = Path(__file__).parent
SIZE = (120, 160)  # at which the reference takes 1
FITTED = ("onnxruntime-1-120x160", "onnxruntime-1-120x160-larger-space")
OTHER = "onnxruntime-2-180x240-protocol-2"
CALIBRATIONS = {**dict.fromkeys(FITTED, SIZE), OTHER: (180, 240)}
MEANS_WERE_RESIZED = ("onnxruntime-1-120x160", OTHER)  # now they are spread
CLASSES = 11  # of all that was measured
TIMED_AS = ("bicubic shrunk", "bicubic down")  # what shrinking an image is called now, and was when these were timed
CORRECTED = {"openvino": "OpenVINO", "openvino-bf16": "OpenVINO in bfloat16"}  # each from the one before it
FEW = (0, 3, 10)  # networks of the same device that are measured first
DRAWS = 5  # of these few


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A measured network: its work, and its latency as a share of the reference's at `SIZE` on the same device."""

    name: str
    work: Mapping[str, float]
    share: float


def calibration(name: str) -> list[Sample]:
    """The networks of a calibration that were measured undisturbed, some of them when they were measured again."""
    size = CALIBRATIONS[name]
    with gzip.open(FOLDER / "calibration" / "architectures.json.gz", "rt") as kept:
        texts = json.load(kept)
    found = []
    for file in sorted((FOLDER / "calibration" / name).glob("samples*.jsonl")):
        for sample in map(json.loads, file.read_text().splitlines()):
            if sample["flagged"] or sample["key"] not in texts:
                continue
            work = _work(space.Architecture.from_yaml(texts[sample["key"]]), size, CLASSES)
            if name not in MEANS_WERE_RESIZED or "spread count" not in work:
                found.append(Sample(name=sample["key"], work=work, share=sample["ratio"] * _pixels(size)))
    return found


def leaderboards(runtime: str) -> Iterator[tuple[str, list[Sample]]]:
    """The published networks of each leaderboard of a runtime: medians of their blocks' ratios."""
    for file in sorted((FOLDER / "leaderboard").glob(f"{runtime}-[12]-*/blocks.csv")):
        height, width = map(int, file.parent.name.rpartition("-")[2].split("x"))
        ratios = defaultdict(list)
        with file.open() as lines:
            for row in csv.DictReader(lines):
                ratio = float(row["candidate_milliseconds"]) / float(row["reference_milliseconds"])
                ratios[row["network"]].append(ratio)
        yield (
            file.parent.name,
            [
                Sample(
                    name=name,
                    work=_work(space.load(name), (height, width), CLASSES),
                    share=statistics.median(each) * _pixels((height, width)),
                )
                for name, each in ratios.items()
            ],
        )


def _work(architecture: space.Architecture, size: tuple[int, int], num_classes: int) -> dict[str, float]:
    return {name.replace(*TIMED_AS): amount for name, amount in work_of(architecture, size, num_classes).items()}


def fitted(samples: Sequence[Sample], known: Prices | None = None) -> Prices:
    """Prices from measured networks, and from known prices."""
    return fit_prices([each.work for each in samples], [each.share for each in samples], known)


def tried(prices: Prices, samples: Sequence[Sample], few: int) -> tuple[float, float, float]:
    """Mean absolute error and Kendall's tau on a device where `few` of its networks are measured, and the error of
    estimates from these alone.
    """
    errors, taus, alone = [], [], []
    for draw in range(DRAWS if few else 1):
        measured = set(random.Random(draw).sample(range(len(samples)), few))
        first = [each for place, each in enumerate(samples) if place in measured]
        others = [each for place, each in enumerate(samples) if place not in measured]
        corrected = fitted(first, prices) if first else prices
        estimates = [corrected.sum(each.work) for each in others]
        errors.append(_error(estimates, others))
        taus.append(kendall_tau([(found, each.share) for found, each in zip(estimates, others, strict=True)]) or 0.0)
        if first:
            only = fitted(first)
            alone.append(_error([only.sum(each.work) for each in others], others))
    return float(np.mean(errors)), float(np.mean(taus)), float(np.mean(alone)) if alone else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the CSV file")
    parser.add_argument("--write", action="store_true", help="write the package's tables too")
    options = parser.parse_args()
    samples = [sample for name in FITTED for sample in calibration(name)]
    onnxruntime = fitted(samples)
    elsewhere = {OTHER: calibration(OTHER), **dict(leaderboards("onnxruntime"))}
    trials = [("onnxruntime", name, onnxruntime, each) for name, each in elsewhere.items()]
    boards = {runtime: dict(leaderboards(runtime)) for runtime in CORRECTED}
    known = onnxruntime
    found = {"onnxruntime": (onnxruntime, len(samples), "ONNX Runtime, one thread, 120x160")}
    for runtime, words in CORRECTED.items():
        for name, each in boards[runtime].items():
            size = name.rpartition("-")[2]
            learnt = [sample for other, rest in boards[runtime].items() if not other.endswith(size) for sample in rest]
            trials.append((runtime, name, fitted(learnt, known), each))
        _, networks, source = list(found.values())[-1]
        own = [sample for each in boards[runtime].values() for sample in each]
        known = fitted(own, known)
        found[runtime] = (known, networks + len(own), f"{source}, corrected by leaderboards of {words}")
    errors = defaultdict(list)
    with options.out.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["runtime", "networks_of", "networks", "measured_first", "error", "tau", "error_without_table"])
        for runtime, name, prices, each in trials:
            for few in FEW[: 3 if len(each) > 20 else 2]:
                error, tau, alone = tried(prices, each, few)
                rows.writerow([runtime, name, len(each), few, f"{error:.3f}", f"{tau:.3f}", f"{alone:.3f}"])
                print(f"{runtime:13} {name:36} {few:3} measured: {error:.3f}, tau {tau:.3f}, without {alone:.3f}")
                if not few:
                    errors[runtime].append(error)
    if options.write:
        for runtime, (prices, networks, source) in found.items():
            table = SharesOfReference(
                height=SIZE[0],
                width=SIZE[1],
                of_quantity=_rounded(prices.of_quantity),
                of_unit=_rounded(prices.of_unit),
                networks=networks,
                error=round(statistics.fmean(errors[runtime]), 3),
                source=f"{source}, AMD EPYC with AVX2 and AVX-512 (studies/latency/shipped.py)",
            )
            TABLES.mkdir(exist_ok=True)
            write_text(TABLES / f"{runtime}.yaml", strict.dump(table))


def _pixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / (SIZE[0] * SIZE[1])


def _error(estimates: Sequence[float], samples: Sequence[Sample]) -> float:
    return float(np.mean([abs(found / each.share - 1) for found, each in zip(estimates, samples, strict=True)]))


def _rounded(prices: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{price:.4g}") for name, price in prices.items() if TIMED_AS[1] not in name}


if __name__ == "__main__":
    main()
