"""ONNX Runtime on the CPU: the graph that `nas export` writes, upsampling and arg-max inside."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from functools import cache
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


@cache
def _share_threads(threads: int) -> None:
    """One pool of threads for all sessions of this process, which can have one size only.

    The candidate and the reference alternate: with a pool each, the threads of one would spin on while the other runs
    and take its cores; and forbidding them to spin would time a runtime that nobody deploys.
    """
    import onnxruntime

    onnxruntime.set_global_thread_pool_sizes(threads, 1)


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import onnxruntime
    import torch

    from nas.export import INPUT_NAME, export_onnx

    graph = io.BytesIO()
    height, width = image.shape[-2:]
    export_onnx(network, graph, (height, width), labels=True)
    options = onnxruntime.SessionOptions()
    _share_threads(target.thread_count())
    options.use_per_session_threads = False
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(graph.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {INPUT_NAME: image.contiguous().numpy()}

    def run() -> torch.Tensor:
        return torch.from_numpy(session.run(None, feed)[0])

    return run
