"""Files of a network, as ONNX or what is made of it, that were compared with PyTorch before anybody gets them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.errors import ExportError
from nas.export.comparison import SAME_LABELS, compare, logits_of
from nas.export.formats import Exported, Format, files_of, onnx
from nas.export.graph import onnx_bytes, with_labels
from nas.storage.files import write_together

LOGITS = 1e-3  # largest difference of logits that is allowed, as a share of their range; rounding gives some 1e-6


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """How well a file, run by what reads it, agrees with PyTorch in float32 on the CPU, the worst over `images`."""

    images: int
    max_abs_difference: float | None
    tolerance: float | None
    """None where labels alone were compared."""
    same_labels: float
    """Share of pixels; a tie between classes at floating-point level counts as the same, where logits were compared."""

    def __str__(self) -> str:
        if self.max_abs_difference is None:
            return f"{100 * self.same_labels:.3f} % of the labels are the same ({self.images} images)"
        return (
            f"logits differ by at most {self.max_abs_difference:.1e} ({self.tolerance:.1e} allowed), "
            f"{100 * self.same_labels:.3f} % of the labels are the same ({self.images} images)"
        )


def export_checked(network: nn.Module, path: Path, images: Tensor, *, labels: bool, form: Format = onnx) -> FileCheck:
    """Write `network` in a format for one image of the size of `images` (N, 3, H, W), compared on all of them.

    What is compared is read back from what was written. With `labels` the file gives labels (1, H, W), as they are
    timed; a file that gives the logits is then compared first, and so is the ONNX graph where it is another format.
    Files at `path` are replaced whole, and nothing is left there when they would differ from PyTorch.

    Raises: ExportError when the network cannot be expressed or the files give something else than PyTorch.
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
    """How well what gives logits or labels, once it is written and read back, agrees with PyTorch.

    Raises: ExportError when it does not.
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
    _require(same >= SAME_LABELS, form, "labels", f"others on {1 - same:.2%} of the pixels")
    return FileCheck(images=len(images), max_abs_difference=difference, tolerance=tolerance, same_labels=same)


def _require(fits: bool, form: Format, expected: str, came: str) -> None:
    if not fits:
        raise ExportError(
            f"{form.TITLE}: expected PyTorch's {expected}, got {came}; nothing was written. Check that the weights are "
            f"finite, and try another version of torch or {form.LIBRARY}"
        )
