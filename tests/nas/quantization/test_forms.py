"""A network in lower precision: its quantized graphs, their scores, and the choice of the form to keep."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import space
from nas.data import Dataset, DataSpec, load, make_loader
from nas.errors import TargetError
from nas.export.graph import onnx_bytes
from nas.export.quantized import CONVOLUTIONS, Calibrated, multiply_adds
from nas.host.processor import saturates
from nas.latency import parse_target, runtimes
from nas.latency.record import Latency
from nas.latency.worker.session import build
from nas.quantization.calibration import calibration_images
from nas.quantization.forms import Form, precisions_here
from nas.quantization.runner import Runner
from nas.quantization.scoring import FormScores, score_forms
from nas.quantization.sensitivity import most_sensitive_first
from nas.quantization.verdicts import Loss, TimedForm, against, certified, is_faster, kept, verdict
from nas.runs.trained import load_trained
from nas.training.evaluation import evaluate
from nas.training.scores import Scores
from space import Architecture
from space.network import Network
from space.scale import scale_width

SIZE, CLASSES = (48, 64), 11
WHOLE, QUANTIZED = parse_target("onnxruntime@cpu:1"), parse_target("onnxruntime:int8@cpu:1")


@pytest.fixture(scope="module")
def network(shallow: Callable[[str], Architecture]) -> Network:
    """An untrained network whose activations have the magnitude of a trained one's."""
    return build(scale_width(shallow("erfnet-encoder"), 0.25), None, CLASSES)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def graph(network: Network) -> bytes:
    return onnx_bytes(network, SIZE, labels=True)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load(DataSpec(size=SIZE, train_images=4, validation_images=3))


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> list[np.ndarray]:
    loader = make_loader(dataset, "validation", batch_size=1, augmentation=None)
    return [each.numpy().copy() for each, _ in loader.epoch(0)]


@pytest.fixture(scope="module")
def calibrated(graph: bytes, images: list[np.ndarray]) -> Calibrated:
    return Calibrated(graph, images)


def kinds_behind_dequantizing(graph: bytes) -> Iterator[str]:
    """Kinds of the nodes that read dequantized numbers."""
    nodes = onnx.load_from_string(graph).graph.node
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    yield from (node.op_type for node in nodes if node.input and node.input[0] in dequantized)


def labels_as_written(graph: bytes, image: np.ndarray) -> np.ndarray:
    """Labels of a graph without ONNX Runtime's optimisations for this processor."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run(None, {"image": image})[
        0
    ]


def labels_of(graph: bytes, image: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]


def test_convolutions_are_quantized_except_kept_ones(calibrated: Calibrated, graph: bytes) -> None:
    names = calibrated.convolutions
    assert len(names) == sum(node.op_type in CONVOLUTIONS for node in onnx.load_from_string(graph).graph.node)
    whole = list(kinds_behind_dequantizing(calibrated.quantized()))
    assert sum(kind in CONVOLUTIONS for kind in whole) == len(names)
    half = list(kinds_behind_dequantizing(calibrated.quantized(kept=names[::2])))
    assert sum(kind in CONVOLUTIONS for kind in half) == len(names[1::2])
    none = list(kinds_behind_dequantizing(calibrated.quantized(kept=names)))
    assert not none


def test_weights_are_8_bit_numbers_per_channel(calibrated: Calibrated) -> None:
    model = onnx.load_from_string(calibrated.quantized()).graph
    initializers = {each.name: onnx.numpy_helper.to_array(each) for each in model.initializer}
    convolution = next(node for node in model.node if node.op_type == "Conv")
    source = next(node for node in model.node if convolution.input[1] in node.output)
    weights, scales = (initializers[name] for name in source.input[:2])
    assert weights.dtype == np.int8
    assert scales.shape == (weights.shape[0],)
    assert np.abs(weights.astype(int)).max() <= (64 if saturates() else 127)


def test_most_labels_stay_the_same_and_arg_max_is_not_quantized(
    calibrated: Calibrated, graph: bytes, images: list[np.ndarray]
) -> None:
    for between in (False, True):
        quantized = calibrated.quantized(between=between)
        assert np.mean(labels_of(quantized, images[0]) == labels_of(graph, images[0])) > 0.7
        assert not {"ArgMax"} & set(kinds_behind_dequantizing(quantized))


def test_a_graph_for_a_gpu_has_only_nodes_that_tensorrt_reads(
    calibrated: Calibrated, graph: bytes, images: list[np.ndarray]
) -> None:
    """TensorRT's parser refuses UINT8, zero points except 0, and INT32 biases; its builder some 3-channel filters."""
    for between in (False, True):
        quantized = calibrated.quantized(between=between, on_gpu=True)
        model = onnx.load_from_string(quantized)
        onnx.checker.check_model(model, full_check=True)
        numbers = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        makers = {node.output[0]: node for node in model.graph.node}
        pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert {numbers[node.input[2]].dtype.name for node in pairs} == {"int8"}
        assert not any(numbers[node.input[2]].any() for node in pairs)
        assert all((numbers[node.input[1]] > 0).all() for node in pairs)
        kept = 0
        for node in model.graph.node:
            if node.op_type not in CONVOLUTIONS:
                continue
            assert all(numbers[bias].dtype == np.float32 for bias in node.input[2:])
            if node.input[1] in numbers:
                kept += 1
                assert numbers[node.input[1]].shape[1] < 4
                continue
            weights, scales = (numbers[name] for name in makers[node.input[1]].input[:2])
            assert weights.dtype == np.int8
            assert scales.shape == (weights.shape[node.op_type == "ConvTranspose"],)
            assert makers[node.input[0]].op_type == "DequantizeLinear"
        assert 0 < kept < len(calibrated.convolutions) / 2
        same = np.mean(labels_as_written(quantized, images[0]) == labels_of(graph, images[0]))
        assert same > 0.7, "as the one for a CPU"


@pytest.mark.slow
def test_a_trained_network_gives_nearly_the_same_labels_by_its_graph_for_a_gpu() -> None:
    dataset = load(DataSpec(size=(96, 128), train_images=8, validation_images=2))
    graph = onnx_bytes(load_trained("camvid-ndnet45", None).network(11), dataset.size, labels=True)
    calibrated = Calibrated(graph, calibration_images(dataset))
    for images, _ in make_loader(dataset, "validation", batch_size=1, augmentation=None).epoch(0):
        expected = labels_of(graph, images.numpy())
        for between in (False, True):
            found = labels_as_written(calibrated.quantized(between=between, on_gpu=True), images.numpy())
            assert np.mean(found == expected) > 0.97


@pytest.mark.gpu
def test_tensorrt_gives_the_labels_of_the_graph_that_is_quantized_for_it(
    calibrated: Calibrated, images: list[np.ndarray]
) -> None:
    target = parse_target("tensorrt:int8@cuda:0")
    runtime = runtimes.load(target)
    if missing := runtime.available(target):
        pytest.skip(missing)
    graph = calibrated.quantized(on_gpu=True)
    image = np.zeros_like(images[0])
    call = Form(target=target, graph=graph).open(image)
    for each in images:
        image[...] = each
        assert np.mean(call() == labels_as_written(graph, each)) > 0.95
    held = runtimes.timed_graph(cast(runtimes.GraphRuntime, runtime))(graph, images[-1], target)
    assert np.array_equal(cast(torch.Tensor, held()).cpu().numpy(), call())


def test_the_multiply_adds_of_a_graph_are_those_of_the_network(graph: bytes, network: Network) -> None:
    assert sum(multiply_adds(graph).values()) == space.multiply_adds(network.architecture, SIZE, CLASSES)


def test_scores_of_forms_are_those_of_the_evaluation(network: Network, graph: bytes, dataset: Dataset) -> None:
    loader = make_loader(dataset, "validation", batch_size=1, augmentation=None)
    with closing(Runner(SIZE)) as runner:
        scores, (form,) = score_forms([Form(target=WHOLE, graph=graph)], network, loader.epoch(0), CLASSES, runner)
    assert isinstance(form, FormScores)
    assert scores == evaluate(network, dataset)
    assert form.same_labels > 0.999
    assert form.scores.miou == pytest.approx(scores.miou, abs=2e-3)


def test_a_convolution_with_an_outlier_is_the_most_sensitive(images: list[np.ndarray]) -> None:
    """One weight a thousand times the others of its channel leaves none of the 8 bits for them."""
    torch.manual_seed(0)
    channels = (3, 8, 8, 8, CLASSES)
    convolutions = [torch.nn.Conv2d(*pair, 3, padding=1) for pair in itertools.pairwise(channels)]
    with torch.no_grad():
        convolutions[2].weight[:, 0, 0, 0] *= 1000
    layers = [layer for convolution in convolutions for layer in (convolution, torch.nn.ReLU())]
    graph = onnx_bytes(torch.nn.Sequential(*layers[:-1]), SIZE, labels=True)
    calibrated = Calibrated(graph, images)
    form, quantized = Form(target=WHOLE, graph=graph), Form(target=QUANTIZED, graph=calibrated.quantized())
    said: list[str] = []
    with closing(Runner(SIZE)) as runner:
        order = most_sensitive_first(calibrated, form, quantized, images[:2], runner, said.append)
    assert said == []
    assert set(order) == set(calibrated.convolutions)
    assert order[0] == calibrated.convolutions[2]


def latency(
    milliseconds: float, half: float = 0.1, *, target: str = "onnxruntime@cpu:1", anchor: float = 5.0, **others: object
) -> Latency:
    low, high = milliseconds - half, milliseconds + half
    return replace(
        Latency(
            p50_milliseconds=milliseconds, p90_milliseconds=high, p99_milliseconds=high, ci_low_milliseconds=low,
            ci_high_milliseconds=high, samples=40, ratio=milliseconds / anchor, ratio_low=low / anchor,
            ratio_high=high / anchor, reference_milliseconds=anchor, raw_p50_milliseconds=milliseconds, target=target,
            height=48, width=64, scope="nothing",
        ),
        **others,
    )  # fmt: skip


def timed_form(text: str, milliseconds: float, miou: float | None) -> TimedForm:
    scores = None
    if miou is not None:
        scores = FormScores(scores=Scores(miou=miou, class_iou=(miou,), pixel_accuracy=miou), same_labels=0.9)
    return TimedForm(
        form=Form(target=parse_target(text), graph=b""), latency=latency(milliseconds, target=text), scored=scores
    )


@pytest.mark.parametrize(
    ("int8", "expected"),
    [
        (timed_form("onnxruntime:int8@cpu:1", 5.0, 0.596), "onnxruntime:int8@cpu:1"),  # faster, 0.4 points lost
        (timed_form("onnxruntime:int8@cpu:1", 5.0, 0.594), "openvino@cpu:1"),  # 0.6 points lost
        (timed_form("onnxruntime:int8@cpu:1", 7.9, 0.6), "openvino@cpu:1"),  # the intervals meet
        (timed_form("onnxruntime:int8@cpu:1", 9.0, 0.6), "openvino@cpu:1"),  # faster only than the slower runtime
        (timed_form("onnxruntime:int8@cpu:1", 9.0, None), "openvino@cpu:1"),
    ],
)
def test_a_form_is_kept_if_faster_than_full_precision_and_accurate_enough(int8: TimedForm, expected: str) -> None:
    timed_forms = [timed_form("onnxruntime@cpu:1", 10.0, 0.6), timed_form("openvino@cpu:1", 8.0, 0.6), int8]
    loss = Loss(miou=0.6, points=0.5)
    assert str(kept(timed_forms, loss).form) == expected
    if expected != str(int8.form):
        assert against(int8, timed_forms[1], loss)


def test_a_lower_precision_is_kept_only_if_surely_faster_than_an_accurate_higher_one() -> None:
    """A difference of medians inside their intervals is not worth points of mIoU."""
    whole, half = timed_form("onnxruntime@cpu:1", 10.0, 0.6), timed_form("openvino:bf16@cpu:1", 5.0, 0.6)
    slower, faster = timed_form("openvino:int8@cpu:1", 4.95, 0.596), timed_form("openvino:int8@cpu:1", 4.5, 0.596)
    loss = Loss(miou=0.6, points=0.5)
    assert kept([whole, slower, half], loss) is half
    assert verdict(slower, half, [whole, slower, half], loss).endswith(
        "takes 0.99 times as long as openvino:bf16@cpu:1, not significantly faster"
    )
    assert kept([whole, faster, half], loss) is faster
    bad = timed_form("openvino:bf16@cpu:1", 5.0, 0.59)
    assert kept([whole, slower, bad], loss) is slower
    other = timed_form("onnxruntime:int8@cpu:1", 4.52, 0.6)
    assert kept([whole, other, faster, half], loss) is faster, "of one precision the fastest"
    busy = timed_form("openvino:bf16@cpu:2", 5.1, 0.6)
    busy = replace(busy, latency=replace(busy.latency, flagged=("a neighbour",)))
    assert kept([whole, busy, half, faster], loss) is faster, "nor is a slower one kept since it is known less surely"


def of_whole(milliseconds: float) -> Callable[[Form], Latency]:
    """Times the form in full precision, which alone is timed so."""

    def measure(form: Form) -> Latency:
        assert form.target.precision == "fp32"
        return latency(milliseconds, target=str(form.target))

    return measure


def test_a_form_must_be_faster_than_full_precision_timed_again() -> None:
    """Full precision first took 6.2 ms and now takes 5.5 ms, both undisturbed; INT8 takes 5.8 ms."""
    timed_forms = [timed_form("openvino@cpu:1", 6.2, 0.6), timed_form("openvino:int8@cpu:1", 5.8, 0.6)]
    told: list[str] = []

    def certify(found: Sequence[TimedForm], chosen: TimedForm, require: Callable[[Latency], None]) -> SimpleNamespace:
        require(chosen.latency)
        return SimpleNamespace(latency=chosen.latency)

    assert str(kept(timed_forms, Loss(miou=0.6, points=0.5)).form) == "openvino:int8@cpu:1"
    found, chosen, certificate = certified(timed_forms, Loss(miou=0.6, points=0.5), certify, of_whole(5.5), told.append)
    assert chosen is found[0]
    assert str(chosen.form) == "openvino@cpu:1"
    assert certificate.latency.p50_milliseconds == 5.5 == found[0].latency.p50_milliseconds
    assert told[0].startswith("openvino@cpu:1: timed once more, 5.50 ms")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((5.0,), ["onnxruntime:int8@cpu:1"]),
        ((8.2, 6.0), ["onnxruntime:int8@cpu:1", "openvino:bf16@cpu:1"]),
        ((8.2, 7.9, 12.0), ["onnxruntime:int8@cpu:1", "openvino:bf16@cpu:1", "openvino@cpu:1"]),
    ],
)
def test_the_kept_form_must_also_be_the_faster_one_by_its_certificate(
    seconds: tuple[float, ...], expected: list[str]
) -> None:
    """Latencies of certificates are compared with 8 ms in turn; full precision is kept with any certificate."""
    timed_forms = [
        timed_form("openvino@cpu:1", 8.0, 0.6),
        timed_form("openvino:bf16@cpu:1", 6.0, 0.6),
        timed_form("onnxruntime:int8@cpu:1", 5.0, 0.6),
    ]
    told: list[str] = []
    timed: list[str] = []
    written: list[str] = []

    def certify(found: Sequence[TimedForm], chosen: TimedForm, require: Callable[[Latency], None]) -> SimpleNamespace:
        timed.append(str(chosen.form))
        again = latency(seconds[len(timed) - 1], target=str(chosen.form.target))
        require(again)
        written.append(str(chosen.form))
        return SimpleNamespace(latency=again)

    found, chosen, certificate = certified(timed_forms, Loss(miou=0.6, points=0.5), certify, of_whole(8.0), told.append)
    assert timed == expected
    assert written == expected[-1:], "nothing is written of what is given up"
    assert [each.latency.p50_milliseconds for each in found if str(each.form) in expected] == [*reversed(seconds)]
    assert chosen in found, "with the latency of its certificate"
    assert str(chosen.form) == expected[-1]
    assert certificate.latency.p50_milliseconds == seconds[-1]
    assert len(told) == len(expected), "full precision, timed once more, and each that is given up"
    assert all("timed once more" in words and "openvino@cpu:1" in words for words in told)


def test_a_form_is_surely_faster_only_if_intervals_and_anchors_agree() -> None:
    assert is_faster(latency(9.0), latency(9.5))
    assert not is_faster(latency(9.0), latency(9.15)), "the intervals meet"
    assert not is_faster(latency(9.0, flagged=("a neighbour",)), latency(9.5))
    assert is_faster(latency(7.0, flagged=("a neighbour",)), latency(9.5))
    # The same ratio, but the reference was anchored anew 20 % lower.
    assert not is_faster(latency(8.0, anchor=4.0), latency(10.0, anchor=5.0))
    assert is_faster(latency(8.0, target="openvino@cpu:1", anchor=4.0), latency(10.0, anchor=5.0)), "another runtime"
    # On a GPU each precision has a reference of its own, so that ratios of two precisions cannot be compared.
    half = latency(5.0, target="tensorrt:fp16@cuda:0", anchor=2.0)
    assert is_faster(half, latency(8.0, target="tensorrt@cuda:0", anchor=5.0))


def test_an_unsure_difference_of_latencies_is_reported_as_no_sure_difference() -> None:
    whole, loss = timed_form("onnxruntime@cpu:1", 10.0, 0.6), Loss(miou=0.6, points=0.5)
    slow, as_slow, as_fast = (timed_form("onnxruntime:int8@cpu:1", each, None) for each in (12.0, 10.1, 9.9))
    assert against(slow, whole, loss) == "takes 1.20 times as long as onnxruntime@cpu:1"
    assert against(as_slow, whole, loss).endswith(
        "takes 1.01 times as long as onnxruntime@cpu:1, not significantly slower"
    )
    assert against(as_fast, whole, loss).endswith(
        "takes 0.99 times as long as onnxruntime@cpu:1, not significantly faster"
    )
    good, better = timed_form("onnxruntime:int8@cpu:1", 5.0, 0.6), timed_form("openvino:int8@cpu:1", 4.0, 0.6)
    assert verdict(good, better, [whole, good, better], loss) == "takes 1.25 times as long as openvino:int8@cpu:1"


def test_a_form_without_scores_is_reported_as_not_scored() -> None:
    whole, unscored = timed_form("onnxruntime@cpu:1", 10.0, 0.6), timed_form("onnxruntime:int8@cpu:1", 5.0, None)
    assert against(unscored, whole, Loss(miou=0.6, points=100)) == "not scored"


def test_a_runtime_that_reads_no_graphs_is_refused() -> None:
    with pytest.raises(TargetError, match="reads ONNX graphs"):
        precisions_here(parse_target("torch@cpu:1"))
    assert [each.precision for each in precisions_here(WHOLE)] == ["fp32", "int8"]
    assert replace(QUANTIZED, precision="fp32") == WHOLE
