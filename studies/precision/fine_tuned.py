"""What fine-tuning for INT8 gives back on trained networks, whether INT8 pays on this device or not.

    python studies/precision/fine_tuned.py --data camvid:~/camvid

quantizes the networks of `studies/camvid/winners` for ONNX Runtime, calibrated on training images, fine-tunes them for
`--epochs` by the recipe `quick` as `nas quantize --epochs` does, scores all forms in ONNX Runtime on the validation
images at 176x240, and writes `fine_tuned.csv` beside this file. Nothing is timed.
"""

from __future__ import annotations

import argparse
import csv
from contextlib import closing
from pathlib import Path

from nas.commands.shared.common import data_spec
from nas.data import load
from nas.export.graph import onnx_bytes
from nas.export.grid import grid_of
from nas.export.quantized import Calibrated
from nas.latency.target import Target
from nas.quantization.calibration import calibration_images
from nas.quantization.fine_tuning import QuantizationAwareTuning, fine_tuned
from nas.quantization.forms import Form
from nas.quantization.runner import Runner
from nas.quantization.scoring import FormScores, score_on_validation
from nas.runs.trained import load_trained
from nas.training import load_recipe

HERE = Path(__file__).parent
WINNERS = HERE.parent / "camvid" / "winners"
TARGET = Target.parse("onnxruntime:int8@cpu:1")
HEADER = ("network", "quantized", "epochs", "miou_float32", "miou", "points_lost")


def main() -> None:
    """Quantize, fine-tune and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    dataset = load(data_spec(options.data, (176, 240)))
    tuning = QuantizationAwareTuning(epochs=options.epochs, recipe=load_recipe("quick"))
    images = list(calibration_images(dataset))
    rows: list[tuple[str, ...]] = []
    for winner in sorted(WINNERS.iterdir()):
        network = load_trained(str(winner), None).network(dataset.num_classes)
        graph = onnx_bytes(network, dataset.size, labels=True)
        calibrated = Calibrated(graph, images)
        for between in (False, True):
            coarse = calibrated.quantized(between=between)
            tuned = fine_tuned(network, dataset, grid_of(network, coarse), tuning, print)
            fine = calibrated.with_weights_of(onnx_bytes(tuned, dataset.size, labels=True)).quantized(between=between)
            forms = [Form(target=TARGET, graph=each) for each in (coarse, fine)]
            with closing(Runner(dataset.size)) as runner:
                whole, scored = score_on_validation(forms, network, dataset, runner)
            for epochs, scores in zip((0, options.epochs), scored, strict=True):
                assert isinstance(scores, FormScores), f"{winner.name}: {scores}"
                words = "convolutions and what lies between" if between else "convolutions"
                miou = (f"{100 * each:.2f}" for each in (whole.miou, scores.scores.miou))
                lost = f"{100 * (whole.miou - scores.scores.miou):.2f}"
                rows.append((winner.name, words, str(epochs), *miou, lost))
                print(*rows[-1], flush=True)
        with (HERE / "fine_tuned.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


if __name__ == "__main__":
    main()
