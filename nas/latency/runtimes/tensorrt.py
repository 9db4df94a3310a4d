"""TensorRT on an NVIDIA GPU: an engine built from the graph that `nas export` writes, input and labels on the GPU.

Weakly typed, as TensorRT 10 offers it: with fp16 the builder may choose half precision layer by layer, which is what a
deployment gets from the same file. (TensorRT 11 has strongly typed networks only.)
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas.latency.runtimes import torch as eager
from nas.latency.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cuda": ("fp32", "fp16")}
NEWEST = 10  # major version


def available(target: Target) -> str | None:
    for name in ("onnx", "tensorrt"):
        if importlib.util.find_spec(name) is None:
            return f"pip install '{name}{'<11' if name == 'tensorrt' else ''}'"
    try:
        version = _version()
    except (ImportError, OSError, AttributeError) as error:
        return f"TensorRT cannot be loaded ({error}); pip install 'tensorrt<11' again"
    if version.partition(".")[0] != str(NEWEST):
        return f"expected TensorRT {NEWEST}, got {version}; pip install 'tensorrt<11'"
    return eager.available(target)


def versions() -> dict[str, str]:
    return {"tensorrt": _version(), **eager.versions()}


def _version() -> str:
    """As the module says it: what installed it may be called tensorrt, tensorrt-cu12 or nvidia-tensorrt."""
    import tensorrt

    return str(tensorrt.__version__)


def settle(target: Target) -> None:
    """Nothing: an engine does not depend on how the process is set up."""


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import tensorrt
    import torch

    from nas.export.graph import INPUT_NAME, onnx_bytes

    height, width = image.shape[-2:]
    with torch.cuda.device(target.device):
        plan = _build(onnx_bytes(network, (height, width), labels=True), half=target.precision == "fp16")
        engine = tensorrt.Runtime(_logger()).deserialize_cuda_engine(plan)
        context = engine.create_execution_context()
        held = image.to(device=target.device).contiguous()
        kinds = {tensorrt.DataType.INT64: torch.int64, tensorrt.DataType.INT32: torch.int32}
        labels = torch.empty((1, height, width), dtype=kinds[engine.get_tensor_dtype("labels")], device=target.device)
        context.set_tensor_address(INPUT_NAME, held.data_ptr())
        context.set_tensor_address("labels", labels.data_ptr())
        stream = torch.cuda.Stream(device=target.device)  # type: ignore[no-untyped-call]
    # The context holds bare addresses: what they point at has to live as long.
    return functools.partial(_execute, context, stream, labels, (engine, held))


def _build(graph: bytes, *, half: bool) -> Any:
    import tensorrt

    builder = tensorrt.Builder(_logger())
    definition = builder.create_network(0)
    parser = tensorrt.OnnxParser(definition, _logger())
    if not parser.parse(graph):
        problems = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise RuntimeError(f"TensorRT cannot read the exported graph: {problems}")
    config = builder.create_builder_config()
    if half:
        config.set_flag(tensorrt.BuilderFlag.FP16)
    plan = builder.build_serialized_network(definition, config)
    if plan is None:
        raise RuntimeError("TensorRT built no engine from the exported graph; its messages say why")
    return plan


@functools.cache
def _logger() -> Any:
    import tensorrt

    return tensorrt.Logger(tensorrt.Logger.WARNING)


def _execute(context: Any, stream: Any, labels: torch.Tensor, owners: tuple[object, ...]) -> torch.Tensor:
    context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    return labels
