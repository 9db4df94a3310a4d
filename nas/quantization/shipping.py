"""The form in which a finished network ships on a target in lower precision."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.data import Dataset, make_loader
from nas.errors import UnmeasuredError
from nas.export.graph import onnx_bytes
from nas.export.quantized import Calibrated
from nas.latency import runtimes
from nas.latency.machine import lane
from nas.latency.runtimes import torch as pytorch
from nas.latency.target import Target
from nas.quantization.calibration import calibration_images
from nas.quantization.forms import Form
from nas.quantization.ranges import wide_layers, wide_words
from nas.quantization.runner import Runner
from nas.quantization.scoring import FormScores, score_labels, score_on_validation
from nas.runs.certificate import Deployed
from nas.training.batch_loop import Count, uncounted
from space.errors import UserError
from space.network import labels_of

if TYPE_CHECKING:
    from space.network import Network


def require_data_for(target: Target, dataset: Dataset | None) -> None:
    """Raises: UserError where a target is in INT8 and there is no data set to calibrate on."""
    if target.precision == "int8" and dataset is None:
        raise UserError(f"{target}: expected --data to calibrate INT8 on, got none; give --data, or another precision")


def warning_of(target: Target, network: Network) -> str:
    """A warning to the user about a network that ships on a target in INT8; empty where there is none."""
    if target.precision != "int8":
        return ""
    return wide_words(wide_layers(network, on_gpu=target.on_cuda, elsewhere=not _is_here(target)))


def deployed_on(target: Target, network: Network, dataset: Dataset | None, count: Count = uncounted) -> Deployed | None:
    """The form of a network on a target in lower precision, scored by its runtime; None where that is the network in
    full precision, or where its runtime cannot score it here.

    An INT8 graph for another host is scored by ONNX Runtime on this machine, as its certificate then says; forms in
    half precision for another host are not scored. `count` is called for every scored image. Do not call this inside
    the lane (`nas.latency.machine.lane`).

    Raises: UserError for INT8 without a data set to calibrate on; UnmeasuredError when the runtime refuses the form or
    crashes on it.
    """
    require_data_for(target, dataset)
    if target.precision == "fp32" or dataset is None:
        return None
    is_here = _is_here(target)
    if not runtimes.reads_graphs(target):
        return deployed_in_half(target, network, dataset, count) if is_here and target.precision == "fp16" else None
    if target.precision != "int8" and not is_here:
        return None
    network.eval()
    with lane.shared():
        graph = onnx_bytes(network, dataset.size, labels=True)
        if target.precision == "int8":
            calibrated = Calibrated(graph, calibration_images(dataset))
            graph = calibrated.quantized(on_gpu=target.on_cuda, elsewhere=not is_here)
    scored_on = replace(target, threads=None) if is_here else Target(runtime="onnxruntime", precision="int8")
    with closing(Runner(dataset.size)) as runner:
        forms = [Form(target=scored_on, graph=graph)]
        scores, (found,) = score_on_validation(forms, network, dataset, runner, count)
    if isinstance(found, UnmeasuredError):
        raise UnmeasuredError(f"{target}: {found}")
    return Deployed(
        graph=graph,
        form=str(target),
        scored_by=str(target) if is_here else f"{scored_on} on this machine, not by the runtime that was timed",
        scores=found.scores,
        same_labels=found.same_labels,
        miou_float32=scores.miou,
    )


def _is_here(target: Target) -> bool:
    return not target.host and runtimes.missing(target) is None


def deployed_in_half(target: Target, network: Network, dataset: Dataset, count: Count = uncounted) -> Deployed:
    """A network that PyTorch runs in half precision on a target's device, scored there in that and in float32."""
    image = torch.zeros(1, 3, *dataset.size)
    placed, held = pytorch.place(network, image, target)
    whole, _ = pytorch.place(network, image, replace(target, precision="fp32"))

    def give(image: Tensor) -> Tensor:
        held.copy_(image)
        return labels_of(placed, held)

    loader = make_loader(dataset, "validation", batch_size=1, augmentation=None, device=target.device)
    batches, guard = loader.epoch(0), lane.shared_on(target.device)
    scores, (found,) = score_labels([give], whole, batches, dataset.num_classes, guard, count)
    assert isinstance(found, FormScores), "PyTorch refuses no network"
    return Deployed(
        graph=None,
        form=str(target),
        scored_by=f"PyTorch in float16 on {target.device}",
        scores=found.scores,
        same_labels=found.same_labels,
        miou_float32=scores.miou,
    )
