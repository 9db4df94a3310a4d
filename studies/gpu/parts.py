"""The parts of what only a GPU can show (`gpu.py`): the command of each, and what is found in what it left."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("erfnet", "ndnet45-ende", "swiftnet-rn18", "swiftnet-mnv2")
STUDY = """\
data: {{name: road_scenes, size: [{height}, {width}]}}
budget: 10ms  # another one is given
recipe: {{optimizer: adamw, learning_rate: 0.006, epochs: {epochs}, batch_size: 4, crop: [{height}, {width}]}}
search:
  seeds: [erfnet, ndnet45-ende]
  random_trials: 1
  guided_trials: {epochs}
  finalists: 1
  finish_epochs: {epochs}
  trials_per_gpu: auto
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how large."""

    device: str
    targets: tuple[str, ...]
    """The last is what prune and search are for."""
    size: tuple[int, int]
    epochs: int
    networks: tuple[str, ...]
    rounds: int
    shown: int
    """Pictures of 1024x2048 in an epoch of loading."""
    patience: str
    processes: str
    """What `nas train --processes` is given to train on all GPUs."""
    other: str
    """Device of a training beside the timings on the first target."""

    @property
    def input(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"


GPU = Setting(
    device="cuda",
    targets=("torch@cuda:0", "cudagraph:fp16@cuda:0"),
    size=(256, 512),
    epochs=3,
    networks=NETWORKS,
    rounds=3,
    shown=32,
    patience="12s",
    processes="gpus",
    other="cuda:1",
)
DRY = Setting(
    device="cpu",
    targets=("torch@cpu:1", "onnxruntime@cpu:1"),
    size=(48, 64),
    epochs=1,
    networks=NETWORKS[1:2],
    rounds=1,
    shown=8,
    patience="1s",
    processes="2",
    other="cpu",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing that is shown."""

    name: str
    seconds: float
    """Its share of the time: of all shares together, as its part of all minutes."""
    command: Callable[[], list[str]]
    found: Callable[[str], str]
    """In a few words, from what it printed and left."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What all parts share: the setting, and the folders that they write to and read from."""

    setting: Setting
    out: Path
    """What stays."""
    work: Path
    """What later parts read, and nobody afterwards."""

    @property
    def network(self) -> str:
        """The network that is trained, pruned and timed beside a training."""
        return self.setting.networks[0]

    @property
    def trained(self) -> Path:
        return self.work / "train"

    def board(self, target: str) -> Path:
        """Folder of the latencies on a target."""
        return self.work / re.sub(r"\W", "-", target)

    def budget(self, share: float) -> list[str]:
        """A budget of this share of what the trained network takes, with its target."""
        target = self.setting.targets[-1]
        file = self.board(target) / "latency.csv"
        taken = {row["network"]: float(row["p50_milliseconds"]) for row in rows(file)} if file.exists() else {}
        return ["--budget", f"{share * taken.get(self.network, 5.0):.4f}ms", "--target", target]

    def training(self) -> list[str]:
        """Data, device and length of what trains."""
        return ["--epochs", str(self.setting.epochs), "--data", "road_scenes", "--device", self.setting.device]


def parts(place: Place, *, dry: bool) -> list[Part]:
    """What one GPU can show; later parts use what earlier ones leave."""
    return [
        what_is_here(),
        tests_of_a_gpu(dry=dry),
        *(timings(place, target) for target in place.setting.targets),
        pictures(place),
        training(place),
        pruning(place),
        searching(place),
        steps(place),
        loading(place),
    ]


def parts_of_two_gpus(place: Place) -> list[Part]:
    """What takes a second GPU; a dry run takes two processes, and turns, on the CPU."""
    return [training_on_all(place), timings_beside(place)]


def nas(*words: str) -> list[str]:
    return [sys.executable, "-m", "nas.cli", *words]


def script(folder: str, name: str, *words: str) -> list[str]:
    """A script of these studies."""
    return [sys.executable, str(ROOT / "studies" / folder / name), *words]


def what_is_here() -> Part:
    return Part(name="what is here", seconds=20, command=lambda: nas("doctor"), found=machine)


def tests_of_a_gpu(*, dry: bool) -> Part:
    command = [
        *(sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--import-mode=importlib"),
        *("--continue-on-collection-errors", "-o", "addopts=", "-o", "filterwarnings=default"),
        *("-p", "no:cacheprovider", "tests", *(("--collect-only",) if dry else ())),
    ]
    return Part(name="tests of a GPU", seconds=80, command=lambda: command, found=last_line)


def timings(place: Place, target: str) -> Part:
    setting, board = place.setting, place.board(target)
    words = ("--target", target, "--input", setting.input, "--patience", setting.patience)
    return Part(
        name=f"timings on {target}",
        seconds=40,
        command=lambda: nas("measure", *setting.networks, *words, "--out", str(board)),
        found=lambda _: timed(board / "latency.csv", place.out),
    )


def pictures(place: Place) -> Part:
    return Part(
        name="pictures, for all that train",
        seconds=25,
        command=lambda: nas("data", "road_scenes", "--input", place.setting.input),
        found=lambda text: last_line(text.partition("\n\n")[0]),
    )


def training(place: Place) -> Part:
    words = ("train", place.network, "--input", place.setting.input, "--probe", "--out", str(place.trained))
    return Part(
        name="nas train",
        seconds=45,
        command=lambda: nas(*words, *place.training()),
        found=lambda _: fed(place.trained),
    )


def pruning(place: Place) -> Part:
    words = ("--steps", "1", "--patience", place.setting.patience, "--out", str(place.work / "prune"))
    return Part(
        name="nas prune",
        seconds=55,
        command=lambda: nas("prune", str(place.trained), *words, *place.budget(0.8), *place.training()),
        found=certificate,
    )


def searching(place: Place) -> Part:
    (height, width), study = place.setting.size, place.work / "study.yaml"
    study.write_text(STUDY.format(height=height, width=width, epochs=place.setting.epochs))
    words = ("--minutes", "1.2", "--out", str(place.work / "search"))
    return Part(
        name="nas search, trials_per_gpu: auto",
        seconds=120,
        command=lambda: nas("search", str(study), *place.budget(0.8), *words),
        found=lambda text: f"{shared(text)}; {certificate(text)}",
    )


def steps(place: Place) -> Part:
    setting, kept = place.setting, place.out / "step.csv"
    words = ("--device", setting.device, "--size", setting.input, "--rounds", str(setting.rounds), "--out", str(kept))
    return Part(
        name="steps against the plain loop",
        seconds=45,
        command=lambda: script("throughput", "step.py", *words, "--networks", *setting.networks),
        found=lambda _: table(kept, "network", "ratio"),
    )


def loading(place: Place) -> Part:
    setting, kept = place.setting, place.out / "loaders.csv"
    words = ("--device", setting.device, "--rounds", "1", "--shown", str(setting.shown), "--out", str(kept))
    return Part(
        name="loading",
        seconds=60,
        command=lambda: script("throughput", "loaders.py", *words, "--work", str(place.work / "loaders")),
        found=lambda _: table(kept, "loader", "images_per_cpu_second", "busy_share"),
    )


def training_on_all(place: Place) -> Part:
    out = place.work / "together"
    words = ("train", place.network, "--input", place.setting.input, "--probe", "--out", str(out))
    return Part(
        name="nas train on all GPUs",
        seconds=45,
        command=lambda: nas(*words, "--processes", place.setting.processes, *place.training()),
        found=lambda _: f"{fed(out)}; {learnt(out)}, on one GPU {learnt(place.trained)}",
    )


def timings_beside(place: Place) -> Part:
    setting, kept = place.setting, place.out / "beside.csv"
    words = (
        *("--target", setting.targets[0], "--device", setting.other, "--input", setting.input),
        *("--patience", setting.patience, "--work", str(place.work / "beside"), "--out", str(kept)),
    )
    return Part(
        name="timings beside trainings on another GPU",
        seconds=100,
        command=lambda: script("gpu", "beside.py", *words, "--networks", *setting.networks),
        found=lambda text: f"{table(kept, 'network', 'ratio')}; {last_line(text)}",
    )


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def table(file: Path, *columns: str) -> str:
    return "; ".join(" ".join(row[column] for column in columns) for row in rows(file))


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def certificate(text: str) -> str:
    """What is certified; exit codes 3 and 4 say that it is over the budget, or not surely inside."""
    return last_line("\n".join(line for line in text.splitlines() if line.startswith("certificate")))


def machine(text: str) -> str:
    return "; ".join(
        " ".join(line.split()) for line in text.splitlines() if line.startswith(("torch ", "cuda:", "dali"))
    )


def timed(file: Path, out: Path) -> str:
    """Milliseconds of each network; the table goes into `out`."""
    shutil.copy(file, out / f"latency-{file.parent.name}.csv")
    return "; ".join(
        f"{row['network']} {row['p50_milliseconds']} ms" + " (flagged)" * bool(row["flagged"]) for row in rows(file)
    )


def fed(folder: Path) -> str:
    """How a training went, from what it left."""
    text = (folder / "progress.yaml").read_text()
    seconds, waited = (re.findall(rf"{key}: ([\d.e-]+)", text) for key in ("seconds", "waited_for_data"))
    share = 100 * (1 - float(waited[-1]))
    return f"last epoch {float(seconds[-1]):.1f} s, scoring included; steps were fed {share:.1f} % of it"


def learnt(folder: Path) -> str:
    """Loss of the last epoch of a training."""
    losses = re.findall(r"loss: ([\d.e-]+)", (folder / "progress.yaml").read_text())
    return f"last loss {float(losses[-1]):.4f}"


def shared(text: str) -> str:
    """What the probe of `trials_per_gpu` said."""
    lines = text.splitlines()
    probed = [after for line, after in pairwise(lines) if "may share a GPU" in line]
    return " ".join(probed[0].split()) if probed else "no probe: trainings were not on a GPU"
