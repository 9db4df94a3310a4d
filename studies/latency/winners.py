"""Do winners keep their budget? Quick searches at budgets spread over what is reachable, measured again afterwards.

    python studies/latency/winners.py --runs runs/winners --out studies/latency/winners.csv

runs a short search per budget (tiny trainings: what is looked at is latency, not accuracy), then measures each winner,
with its weights, in a fresh process, and prints how much of each budget is used and whether any is over. Give an
interrupted command again: a run that is there already is continued, and a row that is there already is kept. Leave the
machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import space
from nas.latency import Meter, parse_target
from nas.latency.budget import Budget
from nas.runs.certificate import read_certificate

STUDY = """\
data: {{name: road_scenes, size: [180, 240], train_images: 24, validation_images: 8}}
budget: {milliseconds}ms
target: {target}
recipe: {{optimizer: adamw, learning_rate: 0.004, epochs: 1, batch_size: 4, crop: [96, 128]}}
search: {{seeds: [{seed}], random_trials: 1, guided_trials: 1, finalists: 2, finish_epochs: 1, seed: {number}}}
"""
SEEDS = ("erfnet", "fplnet", "ndnet45-ende", "swiftnet-rn18")
COLUMNS = (
    "budget_milliseconds", "winner", "certified_milliseconds", "passed", "again_milliseconds",
    "again_ci_low_milliseconds", "again_ci_high_milliseconds", "use", "over", "flagged", "search_seconds",
)  # fmt: skip


def search(folder: Path, milliseconds: float, target: str, number: int) -> float:
    """Run or continue the search in `folder`; its seconds."""
    begun = time.monotonic()
    if (folder / "winner" / "certificate.yaml").is_file():
        return 0.0
    command = [sys.executable, "-m", "nas.cli", "search"]
    if (folder / "study.yaml").is_file():
        command += ["--resume", str(folder)]
    else:
        study = folder.with_name(f"{folder.name}.yaml")
        study.parent.mkdir(parents=True, exist_ok=True)
        seed = SEEDS[number % len(SEEDS)]
        study.write_text(STUDY.format(milliseconds=milliseconds, target=target, seed=seed, number=number))
        command += [str(study), "--out", str(folder)]
    with folder.with_name(f"{folder.name}.log").open("a") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    return time.monotonic() - begun


def main() -> None:
    """Search, measure again, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--winners", type=int, default=20)
    parser.add_argument("--fastest", type=float, default=3.0, help="smallest budget in milliseconds")
    parser.add_argument("--slowest", type=float, default=40.0, help="largest budget in milliseconds")
    parser.add_argument("--target", default="onnxruntime@cpu")
    options = parser.parse_args()
    steps = options.winners - 1
    rows = list(csv.DictReader(options.out.open())) if options.out.is_file() else []
    for number in range(options.winners):
        factor = math.pow(options.slowest / options.fastest, number / steps)
        milliseconds = round(options.fastest * factor, 1)
        if any(float(row["budget_milliseconds"]) == milliseconds for row in rows):
            continue
        folder = options.runs / f"{milliseconds}ms"
        seconds = search(folder, milliseconds, options.target, number)
        winner = folder / "winner"
        certificate = read_certificate(winner)
        with Meter(parse_target(options.target), (180, 240), certificate.num_classes) as meter:
            again = meter.measure(space.load(str(winner / "architecture.yaml")), weights=winner / "weights.safetensors")
        over = not Budget(milliseconds=milliseconds).admits(again)
        use = again.p50_milliseconds / milliseconds
        numbers = (again.p50_milliseconds, again.ci_low_milliseconds, again.ci_high_milliseconds)
        certified = f"{certificate.latency.p50_milliseconds:.3f}"
        measured = [f"{value:.3f}" for value in (*numbers, use)]
        verdict = (over, "; ".join(again.flagged), f"{seconds:.0f}")
        row = (milliseconds, certificate.architecture, certified, certificate.passed, *measured, *verdict)
        rows.append({column: str(value) for column, value in zip(COLUMNS, row, strict=True)})
        print(f"{milliseconds:5.1f} ms: {numbers[0]:6.2f} ms, {use:.1%}{' OVER' if over else ''}", flush=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    uses = [float(row["use"]) for row in rows]
    count = sum(row["over"] == "True" for row in rows)
    print(f"{count} of {len(rows)} over their budget; median use {statistics.median(uses):.1%}")


if __name__ == "__main__":
    main()
