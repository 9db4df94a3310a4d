"""TensorRT: a serialized engine, usable on GPUs of the same kind and with the TensorRT version that it was built with.

Networks are weakly typed, as TensorRT 10 offers: with fp16 the builder may choose half precision layer by layer, as a
deployment would from the same file. INT8 is used where the graph is symmetrically quantized. (TensorRT 11 has only
strongly typed networks.) Files from `write` are in full precision, without TF32.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ExportError
from nas.host.words import one_line

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from nas.export.formats import Call, Exported

TITLE = "TensorRT engine"
LIBRARY = "tensorrt"
SUFFIXES: tuple[str, ...] = (".engine",)
NEWEST = 10  # major version


def missing() -> str | None:
    lacking = missing_library()
    if lacking is not None:
        return lacking
    import torch

    return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU; use a machine with one"


def missing_library() -> str | None:
    """None if TensorRT is here, else how to get it; does not check for a GPU."""
    for name in ("onnx", LIBRARY):
        if importlib.util.find_spec(name) is None:
            return f"pip install '{name}{f'<{NEWEST + 1}' if name == LIBRARY else ''}'"
    try:
        found = version()
    except (ImportError, OSError, AttributeError) as error:
        return f"TensorRT cannot be loaded ({error}); pip install 'tensorrt<{NEWEST + 1}' again"
    if found.partition(".")[0] != str(NEWEST):
        return f"expected TensorRT {NEWEST}, got {found}; pip install 'tensorrt<{NEWEST + 1}'"
    return None


def version() -> str:
    """The module's own version: the installed package may be tensorrt, tensorrt-cu12 or nvidia-tensorrt."""
    import tensorrt

    return str(tensorrt.__version__)


def write(exported: Exported, path: Path) -> None:
    try:
        plan = build(exported.graph, half=False, tf32=False)
    except RuntimeError as error:
        raise ExportError(f"{TITLE} cannot be written: {one_line(error)}") from None
    path.write_bytes(plan)


def open_file(path: Path) -> Call:
    import tensorrt
    import torch

    plan = path.read_bytes()
    if tensorrt.Runtime(_logger()).deserialize_cuda_engine(plan) is None:
        raise ExportError(f"{path}: expected an engine for this TensorRT and GPU, got another one; export it here")

    def run(image: NDArray[np.float32]) -> NDArray[Any]:
        device = torch.device("cuda", torch.cuda.current_device())
        output: NDArray[Any] = open_plan(plan, torch.from_numpy(image).to(device).contiguous())().cpu().numpy()
        return output

    return run


def build(graph: bytes, *, half: bool, int8: bool = False, tf32: bool = True) -> Any:
    """A serialized engine of a graph for the current GPU.

    `half`, `tf32`: whether the builder may use half precision and TF32. `int8`: the graph is quantized for a GPU
    (`nas.export.quantized`), and the quantized part is computed in INT8.

    Raises: RuntimeError when TensorRT cannot build it.
    """
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
    if int8:
        config.set_flag(tensorrt.BuilderFlag.INT8)
    if not tf32:  # it is on by default
        config.clear_flag(tensorrt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(definition, config)
    if plan is None:
        raise RuntimeError("TensorRT built no engine from the exported graph; see its messages")
    return plan


def open_plan(plan: Any, image: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call that runs a serialized engine on `image` (1, 3, H, W), on the current GPU: call() -> output."""
    import tensorrt
    import torch

    from nas.export.graph import INPUT_NAME

    engine = tensorrt.Runtime(_logger()).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    (name,) = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)} - {INPUT_NAME}
    kinds = {
        tensorrt.DataType.INT64: torch.int64,
        tensorrt.DataType.INT32: torch.int32,
        tensorrt.DataType.FLOAT: torch.float32,
    }
    shape = tuple(engine.get_tensor_shape(name))
    output = torch.empty(shape, dtype=kinds[engine.get_tensor_dtype(name)], device=image.device)
    context.set_tensor_address(INPUT_NAME, image.data_ptr())
    context.set_tensor_address(name, output.data_ptr())
    stream = torch.cuda.Stream(device=image.device)  # type: ignore[no-untyped-call]
    # The context holds bare addresses, so engine and image have to live as long as it does.
    return functools.partial(_execute, context, stream, output, (engine, image))


@functools.cache
def _logger() -> Any:
    import tensorrt

    return tensorrt.Logger(tensorrt.Logger.WARNING)


def _execute(context: Any, stream: Any, output: torch.Tensor, owners: tuple[object, ...]) -> torch.Tensor:
    context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    return output
