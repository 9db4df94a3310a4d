"""ONNX: the exported graph itself, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.export.formats import to_install

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nas.export.formats import Call, Exported

TITLE = "ONNX"
LIBRARY = "onnxruntime"
SUFFIXES: tuple[str, ...] = (".onnx",)


def missing() -> str | None:
    return to_install("onnx", LIBRARY)


def write(exported: Exported, path: Path) -> None:
    path.write_bytes(exported.graph)


def open_file(path: Path) -> Call:
    return open_graph(path.read_bytes())


def open_graph(graph: bytes) -> Call:
    """A call that runs a graph, as `open_file` does with a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # other work may need the cores
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (held,) = session.get_inputs()

    def run(image: NDArray[np.float32]) -> NDArray[Any]:
        output: NDArray[Any] = session.run(None, {held.name: image})[0]
        return output

    return run
