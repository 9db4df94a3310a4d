"""Whether NNCF, OpenVINO's own tool, makes better INT8 graphs of our networks than ours are, on OpenVINO.

    pip install nncf
    python studies/precision/nncf_compared.py --data camvid:~/camvid --work runs/nncf

quantizes the networks of `studies/camvid/winners` by both, calibrated on the same training images, scores all of them
with OpenVINO on the validation images, times them with one thread, call by call in turns in one process, and writes
`nncf.csv` beside this file. Leave the machine alone meanwhile; `--seconds` says for how long.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
import torch

from nas.data import Dataset, DataSpec, load, make_loader
from nas.export.graph import INPUT_NAME, onnx_bytes
from nas.export.quantized import Calibrated
from nas.quantization.calibration import IMAGES, calibration_images
from nas.runs.trained import load_trained
from nas.training.metrics import ConfusionMatrix

HERE = Path(__file__).parent
WINNERS = HERE.parent / "camvid" / "winners"
SIZE = (176, 240)
HEADER = ("network", "form", "miou", "p50_milliseconds", "times_float32")
FLOATING = "float32"
FIXES = {None: "", nncf.OverflowFix.ENABLE: ", 7 bits"}
"""Weights as NNCF chooses them for a processor that it does not know, or of 7 bits, as ours are without VNNI."""
CRASHES = ("camvid-searched", "ours, between too")  # OpenVINO 2026.4.1, by signal 11
HINTS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}


def main() -> None:
    """Quantize, score and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--work", type=Path, required=True, help="where models are kept")
    parser.add_argument("--seconds", type=float, default=40.0, help="of timing for each network (default: 40)")
    options = parser.parse_args()
    name, _, root = options.data.partition(":")
    dataset = load(DataSpec(name=name, root=root, size=SIZE))
    rows: list[tuple[str, ...]] = []
    for winner in sorted(WINNERS.iterdir()):
        folder = options.work / winner.name
        if not folder.is_dir():
            written(str(winner), dataset, folder)
        files = sorted(folder.glob("*.xml"))
        models = {file.stem: str(file) for file in files if (winner.name, file.stem) != CRASHES}
        miou = {form: scored(file, dataset) for form, file in models.items()}
        taken = timed(models, options.seconds)
        rows += [
            (winner.name, form, f"{miou[form]:.4f}", f"{taken[form]:.2f}", f"{taken[form] / taken[FLOATING]:.3f}")
            for form in models
        ]
        print(*rows[-len(models) :], sep="\n", flush=True)
    with (HERE / "nncf.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def written(winner: str, dataset: Dataset, folder: Path) -> None:
    """Every form of a network as OpenVINO IR."""
    graph = onnx_bytes(load_trained(winner, None).network(dataset.num_classes), SIZE, labels=True)
    images = list(calibration_images(dataset))
    calibrated, core = Calibrated(graph, images), openvino.Core()
    forms = {
        FLOATING: core.read_model(graph),
        "ours, convolutions": core.read_model(calibrated.quantized()),
        "ours, between too": core.read_model(calibrated.quantized(between=True)),
    }
    for preset, fix in itertools.product(nncf.QuantizationPreset, FIXES):  # activations symmetric, or not
        forms[f"nncf, {preset.value}{FIXES[fix]}"] = nncf.quantize(
            core.read_model(graph),
            nncf.Dataset(images, lambda image: {INPUT_NAME: image}),
            preset=preset,
            subset_size=IMAGES,
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
        )
    folder.mkdir(parents=True)
    for form, model in forms.items():
        openvino.save_model(model, folder / f"{form}.xml", compress_to_fp16=False)


def opened(file: str, image: np.ndarray) -> Callable[[], Any]:
    """The call that gives labels (1, H, W) for what `image` holds at that moment."""
    request = openvino.Core().compile_model(file, "CPU", HINTS).create_infer_request()
    request.set_input_tensor(openvino.Tensor(image, shared_memory=True))

    def run() -> Any:
        request.infer()
        return request.get_output_tensor().data

    return run


def scored(file: str, dataset: Dataset) -> float:
    """The mIoU on the validation images, as a fraction."""
    image = np.zeros((1, 3, *SIZE), dtype=np.float32)
    call, matrix = opened(file, image), ConfusionMatrix(dataset.num_classes)
    for images, expected in make_loader(dataset, "validation", batch_size=1, augmentation=None).epoch(0):
        image[...] = images.numpy()
        labels = torch.from_numpy(np.array(call(), dtype=np.int64))
        if labels.shape != expected.shape:
            resized = torch.nn.functional.interpolate(labels[None].float(), expected.shape[-2:], mode="nearest-exact")
            labels = resized[0].long()
        matrix.update(labels, expected)
    return matrix.scores().miou


def timed(models: dict[str, str], seconds: float) -> dict[str, float]:
    """Median milliseconds of every form, which take turns."""
    image = np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32)
    calls = {form: opened(file, image) for form, file in models.items()}
    taken: dict[str, list[float]] = {form: [] for form in models}
    for form, milliseconds in turns(calls, time.monotonic() + seconds):
        taken[form].append(milliseconds)
    return {form: float(np.median(each[3:])) for form, each in taken.items()}  # the first ones are warming up


def turns(calls: dict[str, Callable[[], Any]], until: float) -> Iterator[tuple[str, float]]:
    """One call of each form after the other, with its milliseconds."""
    while time.monotonic() < until:
        for form, call in calls.items():
            begun = time.perf_counter()
            call()
            yield form, 1e3 * (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
