"""ONNX Runtime on the CPU: the graph that `nas export` writes, upsampling and arg-max included, in full precision or
quantized.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from nas.latency.target import Target

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PRECISIONS = {"cpu": ("fp32", "int8")}
LIBRARY = "onnxruntime"


def available(target: Target) -> str | None:
    missing = [name for name in ("torch", "onnx", LIBRARY) if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(missing)}" if missing else None


def versions() -> dict[str, str]:
    import onnxruntime

    from nas.export import graph

    return {LIBRARY: onnxruntime.__version__} | graph.versions()


def settle(target: Target) -> None:
    """Give all sessions of this process one pool of threads.

    Candidate and reference alternate: if each had a pool, the threads of one would spin on the other's cores while that
    runs. Forbidding threads to spin would time a configuration that nobody deploys.
    """
    _share_threads(target.thread_count())


@cache
def _share_threads(threads: int) -> None:
    import onnxruntime

    onnxruntime.set_global_thread_pool_sizes(threads, 1)


def open_graph(graph: bytes, image: NDArray[np.float32], target: Target) -> Callable[[], NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if _share_threads.cache_info().currsize:
        options.use_per_session_threads = False
    else:  # a process that does not only measure: its sessions must not spin on each other's cores
        options.intra_op_num_threads = target.thread_count()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}

    def run() -> NDArray[Any]:
        labels: NDArray[Any] = session.run(None, feed)[0]
        return labels

    return run


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import torch

    from nas.export.quantized import graph_in

    run = open_graph(graph_in(target.precision, network, image), image.contiguous().numpy(), target)
    return lambda: torch.from_numpy(run())
