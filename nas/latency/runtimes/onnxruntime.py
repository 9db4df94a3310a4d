"""ONNX Runtime on the CPU: the graph that `nas export` writes, upsampling and arg-max inside."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from space.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cpu": ("fp32",)}


def available(target: Target) -> str | None:
    missing = [name for name in ("torch", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(missing)}" if missing else None


def versions() -> dict[str, str]:
    import onnxruntime
    import torch

    return {"onnxruntime": onnxruntime.__version__, "torch": str(torch.__version__)}


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import onnxruntime
    import torch

    from nas.export import INPUT_NAME, export_onnx

    graph = io.BytesIO()
    height, width = image.shape[-2:]
    export_onnx(network, graph, (height, width), labels=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = target.thread_count()
    options.inter_op_num_threads = 1
    # The candidate and the reference alternate in one process: a session's threads that spin on while the other one
    # runs would take its cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(graph.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {INPUT_NAME: image.contiguous().numpy()}

    def run() -> torch.Tensor:
        return torch.from_numpy(session.run(None, feed)[0])

    return run
