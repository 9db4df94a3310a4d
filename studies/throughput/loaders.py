"""How many pictures a second of one core loads, by our loader and by others, and how busy a step is kept.

    python studies/throughput/loaders.py --camvid ~/camvid
    python studies/throughput/loaders.py --device cuda
    python studies/throughput/loaders.py --start 2975 --gigabytes 6

All loaders cut the same windows (drawn by `nas.data.windows`), resize, flip, vary and normalise them, and give batches
of 8: float32 images and int64 labels. Each round runs every loader once, in a process of its own on one core, with one
worker. The first epoch is not counted; the third is worked on in steps that take as long as a batch of the second did.
The second command has drawn pictures only, and batches brought to a GPU. The last one times the start of a training on
a machine that knows its data, whose decoded pictures do not fit into `--gigabytes`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nas.data import Augmentation, Dataset, DataSpec, check, load, make_loader
from nas.data.scenery import draw_scene
from nas.data.windows import PADDING, Window, draw
from nas.latency.machine import lane
from nas.training.batch_loop import guarded

BATCH = 8
ROUNDS = 3
OF_CAMVID = 120
DRAWN, SHOWN = 8, 48  # pictures of Cityscapes' size, and their names: each lies there under several
DRAWN_SIZE = (1024, 2048)
VARIED = partial(Augmentation, flip=True, brightness=0.2, contrast=0.2)
SETTINGS = {
    "camvid": VARIED(crop=(288, 384), scale=(0.7, 1.5)),
    "drawn 1024x2048": VARIED(crop=(512, 1024), scale=(0.5, 2.0)),
}
LOADERS = ("ours, decoding", "ours, decoded once", "DataLoader, Pillow", "DataLoader, OpenCV")
Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


class Pictures(TorchDataset):
    """What a training script with a DataLoader has: files are opened, cut, resized and normalised one by one."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, library: str) -> None:
        self.dataset, self.augmentation, self.library, self.epoch = dataset, augmentation, library, 0
        self.label_map = np.asarray(dataset.label_map, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.dataset.train)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        read, show = (by_pillow, show_by_pillow) if self.library == "Pillow" else (by_opencv, show_by_opencv)
        split = self.dataset.train
        image, label = read(split.images[index], split.labels[index])
        source = np.asarray(label).shape
        window = draw(self.augmentation, source, self.dataset.size, seed=0, epoch=self.epoch, number=index)
        image, label = show(image, label, window, self.augmentation.crop)
        if window.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (window.mean, window.std))
        return pixels.sub_(mean).div_(std), torch.from_numpy(self.label_map[label])


def by_pillow(image: Path, label: Path) -> tuple[Image.Image, Image.Image]:
    return Image.open(image).convert("RGB"), Image.open(label)


def show_by_pillow(image: Image.Image, label: Image.Image, window: Window, size: tuple[int, int]) -> tuple:
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    inside = window.top >= 0 and window.left >= 0 and box[2] <= image.width and box[3] <= image.height
    if not inside:
        image, label = whole_window(np.asarray(image), window, PADDING), whole_window(np.asarray(label), window, 255)
        image, label, box = Image.fromarray(image), Image.fromarray(label), None
    shown = size[::-1]
    return (
        np.asarray(image.resize(shown, Image.Resampling.BILINEAR, box=box)),
        np.asarray(label.resize(shown, Image.Resampling.NEAREST, box=box)),
    )


def by_opencv(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    cv2.setNumThreads(1)
    return cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB), cv2.imread(str(label), cv2.IMREAD_GRAYSCALE)


def show_by_opencv(image: np.ndarray, label: np.ndarray, window: Window, size: tuple[int, int]) -> tuple:
    import cv2

    cut, of_label = whole_window(image, window, PADDING), whole_window(label, window, 255)
    shown = size[::-1]
    # Its linear filter does not antialias; where a picture shrinks, that of areas is the usual choice.
    how = cv2.INTER_AREA if window.height > size[0] else cv2.INTER_LINEAR
    return cv2.resize(cut, shown, interpolation=how), cv2.resize(of_label, shown, interpolation=cv2.INTER_NEAREST)


def whole_window(pixels: np.ndarray, window: Window, fill: int | tuple[int, ...]) -> np.ndarray:
    """The window of a picture, filled where it reaches outside."""
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = window.top + window.height, window.left + window.width
    cut = pixels[top : max(bottom, 0), left : max(right, 0)]
    if cut.shape[:2] == (window.height, window.width):
        return cut
    whole = np.empty((window.height, window.width, *pixels.shape[2:]), np.uint8)
    whole[:] = fill
    whole[top - window.top :, left - window.left :][: cut.shape[0], : cut.shape[1]] = cut
    return whole


def loader_of(name: str, dataset: Dataset, augmentation: Augmentation, device: str) -> Batches:
    """Epochs by their numbers, whose batches are on the device."""
    if name.startswith("ours"):
        ours = make_loader(
            replace(dataset, cache_gigabytes=0 if name.endswith("decoding") else None),
            "train",
            batch_size=BATCH,
            augmentation=augmentation,
            device=device,
        )
        return lambda epoch: guarded(ours.epoch(epoch), lane.shared)
    pictures = Pictures(dataset, augmentation, name.rpartition(" ")[2])
    theirs = DataLoader(
        pictures, BATCH, shuffle=True, num_workers=1, persistent_workers=True, pin_memory=device != "cpu"
    )
    return lambda epoch: ((images.to(device), labels.to(device)) for images, labels in theirs)


def cpu_seconds() -> float:
    """Of this process and the workers that it has."""
    ticks = 0
    for process in [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(name: str, data: str, root: Path, device: str) -> dict[str, float]:
    """Images of a CPU second, and the share of the time that steps run which take as long as a batch."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that Pillow's pixels are not to be written, which nobody does
    dataset = dataset_of(data, root)
    batches = loader_of(name, dataset, SETTINGS[data], device)
    for _ in batches(0):
        pass
    cpu, start = cpu_seconds(), time.perf_counter()
    count = sum(len(images) for images, _ in batches(1))
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - start
    step, worked, waited = wall / count * BATCH, 0.0, 0.0
    iterator = batches(2)
    images, _ = next(iterator)  # an epoch's first batch is waited for in full, by all alike
    while True:
        seconds = step * len(images) / BATCH
        time.sleep(seconds)  # a device other than this core works on it
        worked, asked = worked + seconds, time.perf_counter()
        try:
            images, _ = next(iterator)
        except StopIteration:
            break
        waited += time.perf_counter() - asked
    return {"images_per_cpu_second": count / cpu, "busy_share": worked / (worked + waited)}


def dataset_of(data: str, root: Path) -> Dataset:
    if data == "camvid":
        return load(DataSpec(name="camvid", root=str(root), size=(360, 480), train_images=OF_CAMVID))
    return load(DataSpec(name="folder", root=str(root), size=DRAWN_SIZE))


def drawn(root: Path, count: int) -> Path:
    """`count` pairs of Cityscapes' size as a folder data set: DRAWN are drawn, others are second names of them."""
    folder = root / f"drawn-{count}"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
    names = [f"c{index}" for index in range(12)]
    (folder / "classes.txt").write_text("\n".join(names))
    for index in range(count + 1):
        split, first = ("train", index % DRAWN) if index < count else ("val", 0)
        places = [folder / split / kind / f"{index:05}.png" for kind in ("images", "labels")]
        if all(place.exists() for place in places):
            continue
        if index < min(count, DRAWN):
            for place, pixels in zip(places, draw_scene(np.random.default_rng(index), DRAWN_SIZE), strict=True):
                Image.fromarray(pixels).save(place)
        else:
            for place in places:
                os.link(folder / "train" / place.parent.name / f"{first:05}.png", place)
    return folder


def compare(options: argparse.Namespace) -> None:
    """Write the table, and print it as it grows."""
    roots = {"drawn 1024x2048": drawn(options.work, options.shown)}
    if options.camvid:
        roots["camvid"] = Path(options.camvid).resolve()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for data, root in roots.items():
            for name in LOADERS:
                answer = here([name, data, str(root), options.device], options.work)
                found.setdefault((data, name), []).append(answer)
                print(data, name, answer, flush=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("data", "loader", "images_per_cpu_second", "busy_share"))
        for (data, name), answers in sorted(found.items()):
            middle = {key: statistics.median(answer[key] for answer in answers) for key in answers[0]}
            rows.writerow((data, name, f"{middle['images_per_cpu_second']:.1f}", f"{middle['busy_share']:.3f}"))


def here(words: list[str], work: Path) -> dict[str, float]:
    """The answer of another process on one core, with a cache of its own."""
    core = max(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, __file__, "--one", *words],
        env=os.environ | {"XDG_CACHE_HOME": str(work / "cache")},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def start(options: argparse.Namespace) -> None:
    """Time the check and the first step of a training, twice, each in a process of its own."""
    root = drawn(options.work, options.start)
    os.environ["XDG_CACHE_HOME"] = str(options.work / "cache")
    for which in ("first", "second"):
        command = [sys.executable, __file__, "--begin", str(root), "--gigabytes", str(options.gigabytes)]
        subprocess.run(command, check=True, env=os.environ | {"WHICH": which})
    files = [file for file in (options.work / "cache").rglob("*") if file.is_file()]
    print(f"cache: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e9:.2f} GB")


def begin(options: argparse.Namespace) -> None:
    """Check a data set, and take the first step of two trainings on it, as a process of a search does."""
    torch.set_num_threads(1)
    spec = DataSpec(name="folder", root=options.begin, size=DRAWN_SIZE, cache_gigabytes=options.gigabytes)
    start = time.perf_counter()
    check(load(spec))
    seconds = [time.perf_counter() - start, until_first_step(spec), until_first_step(spec)]
    peak = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
    print(
        f"{os.environ['WHICH']}: found and checked in {seconds[0]:.2f} s, first step of a training after "
        f"{seconds[1]:.2f} s, of the next after {seconds[2]:.2f} s; at most {peak / 1e6:.2f} GB in memory",
        flush=True,
    )


def until_first_step(spec: DataSpec) -> float:
    """Seconds of a training from nothing to the first layer of its network."""
    start, moments = time.perf_counter(), []
    import space
    from nas.training import Recipe
    from nas.training.trainer import Trainer

    recipe = Recipe(
        optimizer="sgd", learning_rate=0.01, epochs=1, batch_size=BATCH, crop=(256, 512), class_weighting=1.02
    )
    trainer = Trainer(space.load("ndnet45-fcn32"), load(spec), recipe, guard=lane.shared)

    def stop(*_: object) -> None:
        moments.append(time.perf_counter())
        raise KeyboardInterrupt

    next(each for each in trainer.network.modules() if isinstance(each, torch.nn.Conv2d)).register_forward_pre_hook(
        stop
    )
    with contextlib.suppress(KeyboardInterrupt):
        trainer.run_epoch()
    return moments[0] - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--camvid")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--shown", type=int, default=SHOWN, help="how many pictures of Cityscapes' size an epoch has")
    parser.add_argument("--work", type=Path, default=Path("runs/throughput"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("loaders.csv"))
    parser.add_argument("--start", type=int, help="how many pairs of Cityscapes' size")
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--one", nargs=4)
    parser.add_argument("--begin")
    options = parser.parse_args()
    if options.one:
        name, data, root, device = options.one
        print(json.dumps(measured(name, data, Path(root), device)))
    elif options.begin:
        begin(options)
    elif options.start:
        start(options)
        shutil.rmtree(options.work)
    else:
        compare(options)


if __name__ == "__main__":
    main()
