"""Export of a network to ONNX, or a format made from it; files are compared with PyTorch before they are released."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.errors import ExportError
from nas.export.comparison import SAME_LABELS, compare, logits_of
from nas.export.formats import Exported, Format, files_of, onnx
from nas.export.graph import onnx_bytes, with_labels
from nas.host.words import counted
from nas.storage.files import write_together

LOGITS = 1e-3  # largest allowed difference of logits, as a share of their range; rounding causes about 1e-6


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """Agreement of a file, run by its own runtime, with PyTorch in float32 on the CPU: the worst over `images`."""

    images: int
    max_abs_difference: float | None
    tolerance: float | None
    """Allowed difference; None, like the difference, where only labels were compared."""
    same_labels: float
    """Share of pixels with the same label. Where logits were compared, classes that tie at floating-point level count
    as the same."""

    def __str__(self) -> str:
        if self.max_abs_difference is None:
            return f"{100 * self.same_labels:.3f} % of the labels are the same ({counted(self.images, 'image')})"
        return (
            f"logits differ by at most {self.max_abs_difference:.1e} ({self.tolerance:.1e} allowed), "
            f"{100 * self.same_labels:.3f} % of the labels are the same ({counted(self.images, 'image')})"
        )


def export_checked(network: nn.Module, path: Path, images: Tensor, *, labels: bool, form: Format = onnx) -> FileCheck:
    """Write `network` in a format, for one image of the size of `images` (N, 3, H, W), and compare it on all of them.

    The written files are read back and compared. With `labels` the file outputs labels (1, H, W), as in timings; a file
    that outputs the logits is then compared first. For formats other than ONNX, the ONNX graph is compared too.
    Files at `path` are replaced as a whole, and none are left there when they differ from PyTorch.

    Raises: ExportError when the format cannot express the network or the output differs from PyTorch's.
    """
    size = (int(images.shape[-2]), int(images.shape[-1]))
    graph = onnx_bytes(network, size, labels=False)
    of_logits = Exported(network=network, size=size, labels=False, graph=graph)

    def write(file: Path) -> FileCheck:
        if form is not onnx:
            _compared(onnx, of_logits, file.with_name("source.onnx"), images)
        if not labels:
            return _compared(form, of_logits, file, images)
        check = _compared(form, of_logits, file.with_name(f"logits{file.suffix}"), images)
        of_labels = _compared(form, replace(of_logits, labels=True, graph=with_labels(graph)), file, images)
        return replace(check, same_labels=of_labels.same_labels)

    return write_together(files_of(form, path), write)


def _compared(form: Format, exported: Exported, file: Path, images: Tensor) -> FileCheck:
    """Write a file, read it back, and compare its logits or labels with PyTorch's.

    Raises: ExportError when they differ.
    """
    form.write(exported, file)
    run = form.open_file(file)
    difference = tolerance = None
    same = 1.0
    for image in torch.split(images, 1):
        logits = logits_of(exported.network, image)
        agreement = compare(logits, run, image)
        same = min(same, agreement.same_labels)
        if agreement.max_abs_difference is not None:
            allowed = LOGITS * float(logits.max() - logits.min())
            fits = agreement.max_abs_difference <= allowed
            _require(fits, form, f"logits to within {allowed:.2e}", f"{agreement.max_abs_difference:.2e}")
            difference = max(difference or 0.0, agreement.max_abs_difference)
            tolerance = max(tolerance or 0.0, allowed)
    _require(same >= SAME_LABELS, form, "labels", f"other labels on {1 - same:.2%} of the pixels")
    return FileCheck(images=len(images), max_abs_difference=difference, tolerance=tolerance, same_labels=same)


def _require(fits: bool, form: Format, expected: str, found: str) -> None:
    if not fits:
        raise ExportError(
            f"{form.TITLE}: expected PyTorch's {expected}, got {found}; nothing was written. Check that the weights "
            f"are finite, and try another version of torch or {form.LIBRARY}"
        )
