"""OpenVINO IR: operations in an .xml file, and weights in full precision in a .bin file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ExportError
from nas.export.formats import to_install
from nas.host.home import some_home
from nas.host.words import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nas.export.formats import Call, Exported

TITLE = "OpenVINO IR"
LIBRARY = "openvino"
SUFFIXES: tuple[str, ...] = (".xml", ".bin")
FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}  # other work may need the cores


def missing() -> str | None:
    return to_install("onnx", LIBRARY)


def write(exported: Exported, path: Path) -> None:
    with some_home():
        import openvino

    try:
        openvino.save_model(openvino.Core().read_model(exported.graph), path, compress_to_fp16=False)
    except RuntimeError as error:  # the same error for a full disk
        raise ExportError(f"{TITLE} cannot be written ({_line(error)}); check whether the disk is full") from None


def open_file(path: Path) -> Call:
    with some_home():
        import openvino

    try:
        core = openvino.Core()
        request = core.compile_model(core.read_model(path), "CPU", FULL_PRECISION).create_infer_request()
    except RuntimeError as error:
        raise ExportError(f"{TITLE} cannot be read back ({_line(error)}); try another version of {LIBRARY}") from None

    def run(image: NDArray[np.float32]) -> NDArray[Any]:
        request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
        request.infer()
        output: NDArray[Any] = request.get_output_tensor().data.copy()
        return output

    return run


def _line(error: RuntimeError) -> str:
    return one_line(error)
