"""OpenVINO on the CPU: the graph that `nas export` writes, in full precision (its own default may be bfloat16)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.latency.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cpu": ("fp32",)}


def available(target: Target) -> str | None:
    missing = [name for name in ("torch", "onnx", "openvino") if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(missing)}" if missing else None


def versions() -> dict[str, str]:
    import openvino
    import torch

    return {"openvino": str(openvino.__version__), "torch": str(torch.__version__)}


def settle(target: Target) -> None:
    """Nothing: OpenVINO's compiled models share one pool of threads already."""


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import openvino
    import torch

    from nas.export.graph import onnx_bytes

    core = openvino.Core()
    height, width = image.shape[-2:]
    model = core.read_model(onnx_bytes(network, (height, width), labels=True))
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": target.thread_count(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = compiled.create_infer_request()
    held = image.contiguous().numpy()
    request.set_input_tensor(openvino.Tensor(held, shared_memory=True))

    def run() -> torch.Tensor:
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return run
