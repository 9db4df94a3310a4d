"""Everything that only a GPU can show, in one run without a network that ends within ten minutes.

    python studies/gpu/gpu.py --out found --wheels wheels    # on the GPU machine, in this checkout
    python studies/gpu/gpu.py --out found --device cpu --dry    # anywhere: that the script works, on tiny inputs

Into `--out` go `results.csv` (what was run, how long it took, how it ended, what it found), `log.txt` (all that it
printed) and the tables of what measures. Each part has its share of the time, and what those before it left of theirs;
one that fails or runs out of time is a row, not the end. Nothing is installed: what this Python lacks comes from
`--wheels`, and what is in neither is named before anything is run.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from parts import DRY, GPU, ROOT, Part, Place, parts, parts_of_two_gpus

HEADER = ("part", "seconds", "outcome", "found")
NEEDED = (
    *("torch", "numpy", "yaml", "threadpoolctl", "safetensors", "PIL", "matplotlib", "jinja2", "onnx", "onnxscript"),
    *("onnx_ir", "ml_dtypes", "onnxruntime", "pynvml", "torch_pruning", "tensorboardX", "optuna", "colorlog", "tqdm"),
    *("ray", "pandas", "pyarrow", "fsspec", "requests", "msgpack", "filelock", "packaging", "pydantic", "jsonschema"),
    *("pydantic_core", "annotated_types", "referencing", "rpds", "pytest", "hypothesis"),
)
"""What is imported, by us and by what we import."""
SLOWER = 5  # times as long as a GPU machine may it take where the script itself is tried
LAST = 3  # lines of what a part printed that tell why it failed


def ran(part: Part, seconds: float, environment: dict[str, str], log: Path) -> tuple[str, str, str, str]:
    """Its row."""
    begin, outcome, command = time.monotonic(), "ok", part.command()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            outcome = "ok" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            outcome = f"stopped after {seconds:.0f} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        printed.seek(0)
        text = printed.read()
    with log.open("a", encoding="utf-8") as lines:
        lines.write(f"==== {part.name}\n{' '.join(command)}\n{text}\n")
    try:
        found = part.found(text)
    except Exception as error:  # what it was to leave is not there; the row says what it printed
        found = f"{type(error).__name__}: {error}"
    if outcome != "ok":
        found = f"{found} | " + " / ".join(text.strip().splitlines()[-LAST:])
    return part.name, f"{time.monotonic() - begin:.1f}", outcome, found


def packages(wheels: Path, site: Path) -> Part:
    """Those of wheels, in a folder of their own."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    return Part(
        name="packages",
        seconds=35,
        command=lambda: [*command, "--target", str(site), *map(str, sorted(wheels.glob("*.whl")))],
        found=lambda _: f"{len(list(wheels.glob('*.whl')))} wheels",
    )


def missing(wheels: Path | None) -> list[str]:
    """What neither this Python nor a wheel has."""
    carried: set[str] = set()
    for wheel in wheels.glob("*.whl") if wheels else ():
        with zipfile.ZipFile(wheel) as files:
            carried |= {name.partition("/")[0].partition(".")[0] for name in files.namelist()}
    return [name for name in NEEDED if name not in carried and importlib.util.find_spec(name) is None]


def gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dry", action="store_true", help="tiny inputs")
    parser.add_argument("--minutes", type=float, default=9.5, help=f"of all parts together, {SLOWER} times with --dry")
    options = parser.parse_args()
    if lacking := missing(options.wheels):
        parser.error(f"expected packages of this Python or --wheels, found no {', '.join(lacking)}; add their wheels")
    setting = GPU if not options.dry else DRY
    if setting.device != options.device:
        parser.error("--device cpu goes with --dry, and a GPU without")
    out, work = options.out.resolve(), Path(tempfile.mkdtemp(prefix="gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    site = work / "site"
    environment = os.environ | {
        "XDG_CACHE_HOME": str(work / "cache"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), str(site), os.environ.get("PYTHONPATH", "")))),
    }
    found: list[tuple[str, ...]] = [HEADER]
    every = [packages(options.wheels.resolve(), site)] if options.wheels else []
    place = Place(setting=setting, out=out, work=work)
    of_two, enough = parts_of_two_gpus(place), options.dry or gpu_count() > 1
    every += [*parts(place, dry=options.dry), *(of_two if enough else ())]
    unit = 60 * options.minutes * (SLOWER if options.dry else 1) / sum(part.seconds for part in every)
    until = time.monotonic()
    try:
        for part in every:
            until += unit * part.seconds
            report(out, found, ran(part, until - time.monotonic(), environment, out / "log.txt"))
        for part in () if enough else of_two:
            report(out, found, (part.name, "0", "left out", "one GPU here, and it takes two"))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def report(out: Path, found: list[tuple[str, ...]], row: tuple[str, ...]) -> None:
    """Keep a row, and all before it."""
    found.append(row)
    print(" | ".join(row), flush=True)
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(found)


if __name__ == "__main__":
    main()
