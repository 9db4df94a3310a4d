"""OpenVINO on the CPU: the graph that `nas export` writes, in the requested precision (its own default may be bfloat16)
or quantized.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas.host.home import some_home
from nas.latency.target import Target

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PRECISIONS = {"cpu": ("fp32", "bf16", "int8")}
LIBRARY = "openvino"
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # precision of what is not quantized


def available(target: Target) -> str | None:
    missing = [name for name in ("torch", "onnx", LIBRARY) if importlib.util.find_spec(name) is None]
    if missing:
        return f"pip install {' '.join(missing)}"
    if target.precision == "bf16":
        from nas.host.processor import has_bf16

        return None if has_bf16() else "this processor has no bfloat16 (AMX or AVX-512 BF16); use fp32 or int8"
    return None


def versions() -> dict[str, str]:
    with some_home():
        import openvino

    from nas.export import graph

    return {LIBRARY: str(openvino.__version__)} | graph.versions()


def settle(target: Target) -> None:
    """Nothing to do: OpenVINO's compiled models share one pool of threads already."""


def open_graph(graph: bytes, image: NDArray[np.float32], target: Target) -> Callable[[], NDArray[Any]]:
    with some_home():
        import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(graph),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": HINTS[target.precision],
            "INFERENCE_NUM_THREADS": target.thread_count(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    computed = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if computed != HINTS[target.precision]:  # it silently chooses another one if the processor lacks this one
        from nas.errors import TargetError

        raise TargetError(f"{target}: OpenVINO would compute in {computed} on this processor; use that precision")
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(image, shared_memory=True))

    def run() -> NDArray[Any]:
        request.infer()
        labels: NDArray[Any] = request.get_output_tensor().data
        return labels

    return run


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import torch

    from nas.export.quantized import graph_in

    run = open_graph(graph_in(target.precision, network, image), image.contiguous().numpy(), target)
    return lambda: torch.from_numpy(run())
