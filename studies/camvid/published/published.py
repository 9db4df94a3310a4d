"""NDNet45-ende on CamVid at 360x480 by its published recipe, for as many epochs as fit into six hours of one core.

    python studies/camvid/published/published.py --data camvid:~/camvid --probe
    python studies/camvid/published/published.py --data camvid:~/camvid --epochs N
    python studies/camvid/published/published.py --draw

The first command runs one epoch and prints the N of the second, which is `nas train --resume`, ended after the epoch in
which `--hours` are over. The same command then goes on, also after a kill, which costs the unfinished epoch. After each
epoch it writes `curve.csv` beside this file, and in the end `classes.csv` and `published.png`; weights stay in
`--work`. The third command writes these files again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import space
from nas.commands.shared.common import data_spec
from nas.data import load
from nas.host.words import counted
from nas.latency.machine import lane
from nas.report.drawing import FONT_PIXELS
from nas.report.palette import LIGHT
from nas.runs.events import EVENTS
from nas.runs.trained import SCORES, ScoreCard
from nas.runs.trial import Epoch, read_progress
from nas.storage.files import write_text
from nas.storage.records import read_record
from nas.training import recipe_of_network
from nas.training.trainer import Trainer

HERE = Path(__file__).parent
NETWORK, SIZE, HOURS = "ndnet45-ende", (360, 480), 6.0
EPOCH = re.compile(r"epoch +(\d+)/(\d+) ")


def main() -> None:
    """Probe, train or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="camvid:DIR")
    parser.add_argument("--epochs", type=int, metavar="N", help="of the whole training: the learning rate follows them")
    parser.add_argument("--hours", type=float, default=HOURS, help="end after the epoch in which these are over")
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    parser.add_argument("--work", type=Path, default=Path("runs/published"), help="folder of the training")
    parser.add_argument("--probe", action="store_true", help="run one epoch, and print how many fit into --hours")
    parser.add_argument("--draw", action="store_true", help="draw what there is, and train nothing")
    asked = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.threads])  # that of the training too
    if asked.draw:
        record(asked.work)
    elif asked.data is None:
        parser.error("expected --data or --draw")
    elif asked.probe:
        probe(asked.data, asked.hours, asked.threads)
    elif asked.epochs is None:
        parser.error("expected --epochs N; --probe prints how many fit")
    else:
        sys.exit(train(asked.data, asked.epochs, asked.hours, asked.work))


def probe(data: str, hours: float, threads: int) -> None:
    """Run one epoch, its scoring included, and print how many fit into the time."""
    dataset, recipe = load(data_spec(data, SIZE)), recipe_of_network(NETWORK)
    trainer = Trainer(space.load(NETWORK), dataset, recipe, threads=threads, guard=lane.shared_on("cpu"))
    begun = time.process_time()
    trainer.run_epoch()
    seconds = time.process_time() - begun
    fit, cores = int(3600 * hours * threads / seconds), counted(threads, "core")
    print(f"an epoch takes {seconds:.0f} s of processor time: --epochs {fit} fits into {hours:g} h of {cores}")


def train(data: str, epochs: int, hours: float, work: Path) -> int:
    """Train until the end or until the time is over, and write the tables after each epoch. Returns the exit code."""
    until, ended = time.monotonic() + 3600 * hours, False
    command = [sys.executable, "-m", "nas.cli", "train", NETWORK, "--data", data, "--input", f"{SIZE[0]}x{SIZE[1]}"]
    command += ["--recipe", "published", "--epochs", str(epochs), "--device", "cpu", "--out", str(work), "--resume"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            print(line, end="", flush=True)
            found = EPOCH.match(line)  # printed when the epoch is on disk
            if found is None:
                continue
            record(work)
            if time.monotonic() > until and found[1] != found[2] and not ended:
                process.terminate()
                ended = True
    if ended:
        print(f"{hours:g} hours are over: the same command goes on")
        return 0
    record(work)
    return process.returncode


def record(work: Path) -> None:
    """Write the curve of a training and, if it has ended, its classes and the picture."""
    history, rates = read_progress(work).history, learning_rates(work / EVENTS)
    if not history:
        return
    rows = [
        (
            str(each.epoch),
            f"{each.loss:.4f}",
            "" if each.miou is None else f"{100 * each.miou:.2f}",
            "" if each.epoch not in rates else f"{rates[each.epoch]:.6g}",
            f"{each.seconds:.1f}",
        )
        for each in history
    ]
    write(HERE / "curve.csv", [("epoch", "loss", "miou", "learning_rate", "seconds"), *rows])
    if not (work / SCORES).is_file():
        return
    classes = read_record(work / SCORES, "scores of a training", ScoreCard).class_iou
    shares = {name: 100 * iou for name, iou in classes.items() if iou is not None}
    write(HERE / "classes.csv", [("class", "iou"), *((name, f"{iou:.2f}") for name, iou in shares.items())])
    draw(history, shares)


def learning_rates(folder: Path) -> dict[int, float]:
    """The learning rate at the end of each epoch, from event files; later files are right about what they repeat."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[int, float] = {}
    for file in sorted(folder.glob("*")):
        content = file.read_bytes()
        while len(content) > 12:  # a length and its check, an event and its check
            end = 12 + int.from_bytes(content[:8], "little")
            if len(content) < end + 4:  # a killed process has not written all of it
                break
            event = Event.FromString(content[12:end])
            for value in event.summary.value:
                if value.tag == "learning_rate":
                    found[event.step] = value.simple_value
            content = content[end + 4 :]
    return found


def write(table: Path, rows: Iterable[Sequence[str]]) -> None:
    """Replace a table."""
    write_text(table, "\n".join(map(",".join, rows)) + "\n")


def draw(history: Sequence[Epoch], shares: dict[str, float]) -> None:
    """Loss and mIoU of each epoch, and the IoU of each class in the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained", dpi=72)
    curve, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    epochs = [each.epoch for each in history]
    scored = [(each.epoch, 100 * each.miou) for each in history if each.miou is not None]
    curve.plot(*zip(*scored, strict=True), color=LIGHT["winner"])
    curve.set_xlabel("epoch", fontsize=FONT_PIXELS)
    curve.set_ylabel("mIoU on CamVid's validation images, %", color=LIGHT["winner"], fontsize=FONT_PIXELS)
    curve.set_ylim(0, 100)
    curve.grid(color=LIGHT["line"])
    loss = curve.twinx()
    loss.plot(epochs, [each.loss for each in history], color=LIGHT["random"])
    loss.set_ylabel("loss of the training, its auxiliary head included", color=LIGHT["random"], fontsize=FONT_PIXELS)
    loss.set_ylim(bottom=0)
    names = sorted(shares, key=shares.__getitem__)
    drawn = bars.barh(names, [shares[name] for name in names], color=LIGHT["bar"])
    bars.bar_label(drawn, fmt="%.1f", padding=3, fontsize=FONT_PIXELS)
    bars.set_xlabel("IoU in the end, %", fontsize=FONT_PIXELS)
    bars.set_xlim(0, 108)
    figure.savefig(HERE / "published.png", dpi=130)


if __name__ == "__main__":
    main()
