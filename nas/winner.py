"""A finished network as a folder: architecture, weights, ONNX file and the certificate of what was measured."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data import MEAN, STD, Dataset
from nas.files import replace_folder
from nas.run_folder import Certificate
from nas.trained import ARCHITECTURE, WEIGHTS, metadata
from nas.training.scores import Scores
from space import Architecture, UserError, multiply_adds, parameters, strict
from space.latency import Budget, Latency
from space.target import Target

if TYPE_CHECKING:
    from torch import Tensor

    from nas.checked_export import OnnxCheck

MODEL = "model.onnx"
CERTIFICATE = "certificate.yaml"
COMPARED_IMAGES = 2  # of the validation split, on which ONNX is compared with PyTorch

USAGE = """\
# Certificate of a network for real-time segmentation, and how to use what lies beside it.
#
# {model} takes `image`, float32 (1, 3, {height}, {width}): RGB in 0..1, minus input_mean, divided by input_std.
# It gives `labels`, int64 (1, {height}, {width}), upsampling and arg-max inside, as they were timed.
# In Python, with the logits:
#
#     import space
#     from safetensors.torch import load_file
#     network = space.load("{architecture}").build({num_classes})
#     network.load_state_dict(load_file("{weights}"))
#     logits = network.eval()(image)  # (1, {num_classes}, {height}, {width})
#
# Classes, in the order of the labels: {classes}

"""


def write_winner(
    folder: Path,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    dataset: Dataset,
    *,
    target: Target,
    budget: Budget | None,
    device: str = "cpu",
) -> Certificate:
    """Write, measure and score a finished network; `folder` is replaced only when all of it is done.

    Latency is measured again, of the finished weights, in a new process on `target` at `dataset.size`. The validation
    images are scored in float32 on `device`. A network over its budget is written too, and its certificate says so.
    Do not call it inside a training step (`nas.latency.lane`).

    Raises: UserError when the weights do not fit, ONNX differs from PyTorch, or the target cannot be timed here;
    `nas.latency.WorkerError` when the measuring process broke.
    """
    from nas.checked_export import export_checked
    from nas.latency import Meter, lane
    from nas.training.evaluation import evaluate
    from nas.training.weights import load_into, save_weights

    network = architecture.build(dataset.num_classes)
    load_into(network, weights, f"weights of {architecture.key}")
    network.eval()
    with replace_folder(folder) as unfinished:
        (unfinished / ARCHITECTURE).write_text(architecture.to_yaml(), "utf-8")
        save_weights(unfinished / WEIGHTS, network.state_dict(), metadata(architecture, dataset))
        with lane.training_step():  # so that it disturbs nobody's timing
            images = validation_images(dataset, COMPARED_IMAGES)
            check = export_checked(network, unfinished / MODEL, images, labels=True)
        with Meter(target, dataset.size, dataset.num_classes) as meter:
            latency = meter.measure(architecture, weights=unfinished / WEIGHTS)
        scores = evaluate(network, dataset, device=device, guard=lane.training_step)
        certificate = certify(
            architecture,
            dataset,
            budget=budget,
            latency=latency,
            scores=scores,
            scored_on=device,
            check=check,
            files=unfinished,
        )
        (unfinished / CERTIFICATE).write_text(_usage(dataset) + strict.dump(certificate), "utf-8")
    return certificate


def read_certificate(folder: Path) -> Certificate:
    """The certificate in a winner's folder.

    Raises: UserError when there is none, or it cannot be read.
    """
    file = folder / CERTIFICATE
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected a winner's folder with {CERTIFICATE}, cannot read {file}: {error}") from None
    return strict.parse(text, Certificate, str(file))


def validation_images(dataset: Dataset, count: int) -> Tensor:
    """The first validation images as the network sees them, float32 (at most `count`, 3, H, W)."""
    from nas.data import make_loader

    loader = make_loader(dataset, "validation", batch_size=count, augmentation=None)
    images, _ = next(iter(loader.epoch(0)))
    return images


def certify(
    architecture: Architecture,
    dataset: Dataset,
    *,
    budget: Budget | None,
    latency: Latency,
    scores: Scores,
    scored_on: str,
    check: OnnxCheck,
    files: Path,
) -> Certificate:
    """The certificate of the finished `files` of a network that was timed, scored on `scored_on` and compared."""
    height, width = dataset.size
    return Certificate(
        architecture=architecture.key,
        certified=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=_version(),
        budget=None if budget is None else str(budget),
        passed=None if budget is None else budget.admits(latency),
        latency=latency,
        precision=Target.parse(latency.target).precision,
        protocol=_protocol(latency),
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        class_iou=dict(zip(dataset.classes, scores.class_iou, strict=True)),
        scored=f"validation images at {height}x{width}, by PyTorch in float32 on {scored_on}",
        data=dataset.name,
        validation_images=len(dataset.validation),
        num_classes=dataset.num_classes,
        input_mean=MEAN,
        input_std=STD,
        parameters=parameters(architecture, dataset.num_classes),
        multiply_adds=multiply_adds(architecture, dataset.size, dataset.num_classes),
        onnx_images=check.images,
        onnx_max_abs_difference=check.max_abs_difference,
        onnx_tolerance=check.tolerance,
        onnx_same_labels=check.same_labels,
        sha256={
            name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in (ARCHITECTURE, WEIGHTS, MODEL)
        },
    )


def _protocol(latency: Latency) -> str:
    from nas.latency import protocol

    return (
        f"a process of its own and nothing of ours training; warm-up, then {latency.samples} pairs of calls (at least "
        f"{protocol.PAIRS}) alternating with the frozen network {latency.environment.get('reference', 'reference')}; "
        "milliseconds are the median paired ratio times what the reference takes on this device, with a 95 % interval"
    )


def _usage(dataset: Dataset) -> str:
    height, width = dataset.size
    return USAGE.format(
        model=MODEL,
        architecture=ARCHITECTURE,
        weights=WEIGHTS,
        height=height,
        width=width,
        num_classes=dataset.num_classes,
        classes=", ".join(" ".join(name.split()) for name in dataset.classes),
    )


def _version() -> str:
    try:
        return importlib.metadata.version("framebudget")
    except importlib.metadata.PackageNotFoundError:  # run from its source, not installed
        return "source"
