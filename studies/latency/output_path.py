"""What cheaper ways from coarse logits to labels at the image's size save, and how many labels they change.

    python studies/latency/output_path.py --data camvid:~/camvid --out studies/latency/output_path.csv

One thread, all ways of a network in turns in one process, on images of the validation split: a row for each runtime,
network and way, with the median of its time over that of today's way (bilinear, then arg-max) in the same round. The
share of equal labels is over 30 validation images; beside it are mIoU on them, where the network is trained, and how
many classes are the arg-max of some coarse pixel of an image.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.helper import make_node, make_tensor_value_info
from onnx.numpy_helper import from_array, to_array

import space
from nas.commands.shared.common import data_spec
from nas.data import IGNORE, load, make_loader
from nas.export.graph import onnx_bytes
from nas.training.weights import load_into, load_weights

WINNERS = Path(__file__).parent.parent / "camvid" / "winners"
HEADER = (
    "network",
    "classes",
    "size",
    "way",
    "runtime",
    "ratio",
    "ratio_low",
    "ratio_high",
    "same_labels",
    "miou",
    "present",
)
IMAGES = 30
Run = Callable[[NDArray[np.float32]], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, trained if it is a winner, with images that it is shown."""

    name: str
    classes: int
    size: tuple[int, int]
    trained: bool

    def bytes(self) -> bytes:
        """Its graph as it is exported today. Of one that is not trained the last half of the classes is nowhere."""
        file = WINNERS / self.name
        torch.manual_seed(0)
        architecture = space.load(str(file / "architecture.yaml") if self.trained else self.name)
        network = architecture.build(self.classes)
        if self.trained:
            load_into(network, load_weights(file / "weights.safetensors"), self.name)
        else:
            with torch.no_grad():
                network.get_parameter("head.logits.bias")[-(self.classes // 2) :] -= 1e4
        return onnx_bytes(network, self.size, labels=True)


NETWORKS = (
    Network(name="camvid-ndnet45", classes=11, size=(352, 480), trained=True),
    Network(name="camvid-searched", classes=11, size=(352, 480), trained=True),
    Network(name="fast-scnn", classes=19, size=(512, 1024), trained=False),
    Network(name="swiftnet-rn18", classes=19, size=(352, 480), trained=False),
)


@dataclass(frozen=True, kw_only=True)
class End:
    """The last nodes of a graph, from the convolution that gives coarse logits on."""

    model: Any
    coarse: str
    shape: tuple[int, int, int]
    """Classes, height and width of the coarse logits."""
    size: tuple[int, int]

    @classmethod
    def of(cls, data: bytes) -> End:
        """What a graph is without its last Resize and ArgMax."""
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
        nodes = model.graph.node
        shapes = {each.name: [d.dim_value for d in each.type.tensor_type.shape.dim] for each in model.graph.value_info}
        resize = next(node for node in reversed(nodes) if node.op_type == "Resize")
        coarse = resize.input[0]
        assert next(node for node in nodes if coarse in node.output).op_type == "Conv", "logits, then their Resize"
        _, height, width = (each.dim_value for each in model.graph.output[0].type.tensor_type.shape.dim)
        while nodes[-1].output[0] != coarse:
            del nodes[-1]
        del model.graph.output[:]
        return cls(model=model, coarse=coarse, shape=tuple(shapes[coarse][1:]), size=(height, width))

    def constant(self, name: str, values: Any) -> str:
        """Add an initializer; its name."""
        self.model.graph.initializer.append(from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node; its output."""
        self.model.graph.node.append(make_node(kind, list(inputs), [output], **attributes))
        return output

    def resized(self, logits: str, factors: tuple[float, float], mode: str = "bilinear") -> str:
        """Logits enlarged by factors of height and width; scales leave the number of classes open."""
        scales = self.constant("scales", np.array([1, 1, *factors], dtype=np.float32))
        if mode == "bilinear":
            return self.add(
                "Resize", [logits, "", scales], "large", mode="linear", coordinate_transformation_mode="half_pixel"
            )
        return self.add("Resize", [logits, "", scales], "large", mode="nearest", nearest_mode="floor",
                        coordinate_transformation_mode="asymmetric")  # fmt: skip

    @property
    def factors(self) -> tuple[float, float]:
        """From coarse logits to the image."""
        return self.size[0] / self.shape[1], self.size[1] / self.shape[2]

    def ended(self, labels: str) -> bytes:
        """The graph whose output are these labels (1, H, W)."""
        self.add("Identity", [labels], "labels")
        self.model.graph.output.append(make_tensor_value_info("labels", onnx.TensorProto.INT64, [1, *self.size]))
        del self.model.graph.value_info[:]
        onnx.checker.check_model(self.model)
        data: bytes = self.model.SerializeToString()
        return data


def bilinear(data: bytes) -> bytes:
    """Today's way."""
    end = End.of(data)
    return end.ended(end.add("ArgMax", [end.resized(end.coarse, end.factors)], "found", axis=1, keepdims=0))


def no_interpolation(data: bytes) -> bytes:
    """Arg-max of the coarse logits, repeated: the least that an output can cost."""
    end = End.of(data)
    found = end.add("ArgMax", [end.coarse], "found", axis=1, keepdims=1)
    as_float = end.add("Cast", [found], "as_float", to=onnx.TensorProto.FLOAT)
    large = end.add("Cast", [end.resized(as_float, end.factors, "nearest")], "whole", to=onnx.TensorProto.INT64)
    return end.ended(end.add("Squeeze", [large, end.constant("axis", np.array([1]))], "squeezed"))


def half_size(data: bytes) -> bytes:
    """`label_stride: 2`: bilinear to half of the image's size, arg-max there, labels repeated."""
    end = End.of(data)
    rows, columns = (length // 2 for length in end.size)
    large = end.resized(end.coarse, (end.factors[0] / 2, end.factors[1] / 2))
    found = end.add("ArgMax", [large], "found", axis=1, keepdims=0)
    apart = end.add("Reshape", [found, end.constant("apart_to", [1, rows, 1, columns, 1])], "apart")
    spread = end.add("Expand", [apart, end.constant("spread_to", [1, rows, 2, columns, 2])], "spread")
    return end.ended(end.add("Reshape", [spread, end.constant("whole_to", [1, *end.size])], "joined"))


def shuffled(factor: int) -> Callable[[bytes], bytes]:
    """The last convolution gives `factor` squared times as many channels, which become pixels (untrained weights)."""

    def way(data: bytes) -> bytes:
        end = End.of(data)
        nodes, held = end.model.graph.node, {each.name: each for each in end.model.graph.initializer}
        last = nodes[-1]
        for name in last.input[1:]:
            value = to_array(held[name])
            held[name].CopyFrom(from_array(np.repeat(value, factor**2, axis=0), name))
        pixels = end.add("DepthToSpace", [end.coarse], "pixels", blocksize=factor, mode="CRD")
        rest = (end.factors[0] / factor, end.factors[1] / factor)
        large = pixels if rest == (1, 1) else end.resized(pixels, rest)
        return end.ended(end.add("ArgMax", [large], "found", axis=1, keepdims=0))

    return way


def present_only(data: bytes) -> bytes:
    """Bilinear for those classes that are the arg-max of some coarse pixel."""
    end = End.of(data)
    coarse = end.add("ArgMax", [end.coarse], "coarse_labels", axis=1, keepdims=0)
    flat = end.add("Reshape", [coarse, end.constant("flat_to", [-1])], "flat")
    present = end.add("Unique", [flat], "present", sorted=1)
    some = end.add("Gather", [end.coarse, present], "some", axis=1)
    found = end.add("ArgMax", [end.resized(some, end.factors)], "found", axis=1, keepdims=0)
    return end.ended(end.add("Gather", [present, found], "of_all", axis=0))


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "bilinear": bilinear,
    "bilinear on present classes": present_only,
    "labels at half the size": half_size,
    "no interpolation": no_interpolation,
    "shuffle x2, bilinear": shuffled(2),
    "shuffle x4, bilinear": shuffled(4),
    "shuffle x8, bilinear": shuffled(8),
}


def with_onnxruntime(data: bytes) -> Run:
    """On one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def with_openvino(data: bytes) -> Run:
    """On one thread, in float32."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(data), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda image: np.asarray(request.infer({0: image})[0])


RUNTIMES = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The ways of one network on one runtime, ready to run."""

    network: Network
    runtime: str
    runs: dict[str, Run]
    images: list[NDArray[np.float32]]
    labels: list[NDArray[np.int64]]


def prepared(data: str, names: Sequence[str], runtimes: Sequence[str]) -> list[Prepared]:
    """All of them, each run once."""
    found = []
    for network in (each for each in NETWORKS if each.name in names):
        graph = network.bytes()
        factor = min(End.of(graph).factors)
        left_out = [] if factor >= 8 else ["shuffle x8, bilinear"]
        ways = {name: way(graph) for name, way in WAYS.items() if name not in left_out}
        dataset = load(data_spec(data, network.size))
        loader = make_loader(dataset, "validation", batch_size=1, augmentation=None)
        pairs = [(image.numpy(), label.numpy()) for image, label in loader.epoch(0, IMAGES)]
        for runtime in runtimes:
            runs = {name: RUNTIMES[runtime](way) for name, way in ways.items()}
            for run in runs.values():
                run(pairs[0][0])
            images, labels = (list(each) for each in zip(*pairs, strict=True))
            found.append(Prepared(network=network, runtime=runtime, runs=runs, images=images, labels=labels))
    return found


def ratios(these: Prepared, seconds: float) -> dict[str, list[float]]:
    """Times of every way over that of the first, round by round."""
    found: dict[str, list[float]] = {name: [] for name in these.runs}
    end, number = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        image, taken = these.images[number % len(these.images)], {}
        for name, run in these.runs.items():
            start = time.perf_counter()
            run(image)
            taken[name] = time.perf_counter() - start
        for name, each in taken.items():
            found[name].append(each / taken["bilinear"])
        number += 1
    return found


def agreement(these: Prepared, way: str) -> tuple[str, str, str]:
    """The share of labels that are those of today's way and mIoU, in percent, and how many classes an image has without
    interpolation. Nothing where the network would have to be trained for it.
    """
    if way.startswith("shuffle") or these.runtime != "onnxruntime":
        return "", "", ""
    classes = these.network.classes
    same, present, confusion = [], [], np.zeros((classes, classes), dtype=np.int64)
    for image, label in zip(these.images, these.labels, strict=True):
        found = these.runs[way](image)
        same.append(float((found == these.runs["bilinear"](image)).mean()))
        present.append(len(np.unique(these.runs["no interpolation"](image))))
        if not these.network.trained:
            continue
        known = label != IGNORE
        confusion += np.bincount(label[known] * classes + found[known], minlength=classes**2).reshape(classes, classes)
    hits = np.diag(confusion)
    iou = hits / np.maximum(confusion.sum(0) + confusion.sum(1) - hits, 1)
    miou = f"{100 * iou[confusion.sum(1) > 0].mean():.2f}" if these.network.trained else ""
    return f"{100 * statistics.mean(same):.4f}", miou, f"{statistics.mean(present):.1f}"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=7, help="for each network on each runtime")
    parser.add_argument("--networks", nargs="+", default=[each.name for each in NETWORKS])
    parser.add_argument("--runtimes", nargs="+", choices=list(RUNTIMES), default=list(RUNTIMES))
    options = parser.parse_args()
    ready = prepared(options.data, options.networks, options.runtimes)
    timed = [ratios(each, options.seconds) for each in ready]
    write(options.out, ready, timed)


def write(out: Path, ready: Sequence[Prepared], timed: Sequence[dict[str, list[float]]]) -> None:
    """A row for each way."""
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        for these, found in zip(ready, timed, strict=True):
            network, size = these.network, "x".join(map(str, these.network.size))
            for way, each in found.items():
                low, middle, high = np.quantile(each, (0.25, 0.5, 0.75))
                row = (f"{middle:.3f}", f"{low:.3f}", f"{high:.3f}", *agreement(these, way))
                table.writerow((network.name, network.classes, size, way, these.runtime, *row))


if __name__ == "__main__":
    main()
