"""What a finished network ships as on a target in lower precision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nas.data import Dataset
from nas.export.graph import onnx_bytes
from nas.export.quantized import Calibrated
from nas.latency import runtimes
from nas.latency.machine import lane
from nas.latency.target import Target
from nas.quantization.calibration import calibration_images
from nas.quantization.forms import Form
from nas.quantization.scoring import score_on_validation
from nas.runs.certificate import Deployed
from space.errors import UserError

if TYPE_CHECKING:
    from space.network import Network


def deployed_on(target: Target, network: Network, dataset: Dataset | None) -> Deployed | None:
    """The form of a network that runs on a target, scored by its runtime; None where that is the network itself, in
    full precision or by a runtime that reads no graphs.

    A graph in INT8 for another host is scored by ONNX Runtime here; in bfloat16 it is not. Do not call it inside a
    training step.

    Raises: UserError for INT8 without a data set to calibrate on.
    """
    if target.precision == "fp32" or runtimes.reader(target) is None:
        return None
    if dataset is None:
        if target.precision != "int8":
            return None
        raise UserError(f"{target}: expected --data to calibrate INT8 on, got none; give --data, or another precision")
    if target.host and target.precision != "int8":
        return None
    network.eval()
    images = list(calibration_images(dataset)) if target.precision == "int8" else []
    with lane.training_step():
        graph = onnx_bytes(network, dataset.size, labels=True)
        if images:
            graph = Calibrated(graph, images).quantized()
    here = replace(target, runtime="onnxruntime", host="", threads=None) if target.host else target
    form = Form(target=here, graph=graph)
    scores, (found,) = score_on_validation([form], network, dataset)
    return Deployed(
        graph=graph,
        form=str(form),
        scores=found.scores,
        same_labels=found.same_labels,
        miou_float32=scores.miou,
        compared=(),
    )
