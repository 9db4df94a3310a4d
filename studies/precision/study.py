"""What each precision is worth on this CPU: milliseconds and mIoU of trained networks, by runtime and threads.

    python studies/precision/study.py --data camvid:~/camvid --work runs/precision

trains the networks that are neither trained yet nor in the zoo (for as many epochs as `EPOCHS` says, at 176x240, recipe
`quick`, seed 0, from scratch), runs `nas quantize` on each with one thread and with two, and writes their certificates
into `results.csv` beside this file, where rows of other networks stay. Rows without mIoU are forms that are slower than
full precision: they are not scored. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from nas.latency.target import Target
from nas.runs.certificate import read_certificate

HERE = Path(__file__).parent
NETWORKS = {
    "ndnet45-ende": "camvid-ndnet45",
    "camvid-winner": "camvid-searched",
    "swiftnet-rn18": "swiftnet-rn18",
    "fplnet": "fplnet",
    "erfnet": "erfnet",
}
EPOCHS = {"swiftnet-rn18": 6, "fplnet": 5, "erfnet": 5}  # as time allowed; the others are trained ones of the zoo
RUNTIMES = ("onnxruntime", "openvino")
THREADS = (1, 2)
HEADER = (
    "network", "runtime", "precision", "quantized", "threads", "p50_milliseconds", "low_milliseconds",
    "high_milliseconds", "miou", "miou_float32", "verdict",
)  # fmt: skip


def main() -> None:
    """Train and quantize what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--work", type=Path, required=True, help="where trained and quantized networks are kept")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options = parser.parse_args()
    table = HERE / "results.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = [tuple(row) for row in csv.reader(file) if row[0] not in ("network", *options.networks)]
    for name in options.networks:
        trained = str(options.work / name) if name in EPOCHS else NETWORKS[name]
        if name in EPOCHS and not (options.work / name / "weights.safetensors").is_file():
            resumed = ["--resume"] if (options.work / name / "checkpoint.pt").is_file() else []
            words = ["--data", options.data, "--input", "176x240", "--epochs", str(EPOCHS[name]), *resumed]
            run("train", NETWORKS[name], *words, "--out", str(trained))
        for threads in THREADS:
            kept = options.work / f"{name}-{threads}"
            if not (kept / "certificate.yaml").is_file():
                targets = [word for runtime in RUNTIMES for word in ("--target", f"{runtime}@cpu:{threads}")]
                run("quantize", trained, "--data", options.data, *targets, "--out", str(kept))
            rows += rows_of(name, threads, kept)
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def run(*words: str) -> None:
    """Run one command of `nas`; an unsure verdict is an answer too."""
    code = subprocess.run([sys.executable, "-m", "nas.cli", *words]).returncode
    if code not in (0, 3, 4):
        raise SystemExit(code)


def rows_of(name: str, threads: int, folder: Path) -> Iterator[tuple[str, ...]]:
    """What a certificate says of every form that was timed."""
    certificate = read_certificate(folder)
    for form in certificate.compared:
        if form.p50_milliseconds is None:  # its runtime refused it
            continue
        target, _, quantized = form.form.partition(" ")
        yield (
            name,
            Target.parse(target).runtime,
            Target.parse(target).precision,
            quantized.strip("()"),
            str(threads),
            f"{form.p50_milliseconds:.3f}",
            f"{form.ci_low_milliseconds:.3f}",
            f"{form.ci_high_milliseconds:.3f}",
            "" if form.miou is None else f"{form.miou:.4f}",
            "" if certificate.miou_float32 is None else f"{certificate.miou_float32:.4f}",
            form.verdict,
        )


if __name__ == "__main__":
    main()
