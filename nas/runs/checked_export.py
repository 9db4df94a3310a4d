"""An ONNX file that was compared with PyTorch before anybody gets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.export.comparison import SAME_LABELS, compare_onnx, logits_of
from nas.export.graph import onnx_bytes, with_labels
from space.errors import ExportError

LOGITS = 1e-3  # largest difference of logits that is allowed, as a share of their range; rounding gives some 1e-6


@dataclass(frozen=True, kw_only=True)
class OnnxCheck:
    """How well a graph run by ONNX Runtime agrees with PyTorch in float32 on the CPU, the worst over `images`."""

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


def export_checked(network: nn.Module, path: Path, images: Tensor, *, labels: bool) -> OnnxCheck:
    """Write `network` as an ONNX file for one image of the size of `images` (N, 3, H, W), compared on all of them.

    With `labels` the file gives labels (1, H, W), as they are timed; the logits are then compared before the
    arg-max is put behind them. Nothing is left at `path` when the graph differs.

    Raises: ExportError when the network cannot be expressed or the graph gives something else than PyTorch.
    """
    size = (int(images.shape[-2]), int(images.shape[-1]))
    graph = onnx_bytes(network, size, labels=False)
    difference = tolerance = 0.0
    same = 1.0
    for image in torch.split(images, 1):
        expected = logits_of(network, image)
        agreement = compare_onnx(network, graph, image)
        assert agreement.max_abs_difference is not None, "the graph was asked for logits"
        allowed = LOGITS * float(expected.max() - expected.min())
        same = min(same, agreement.same_labels)
        difference = max(difference, agreement.max_abs_difference)
        tolerance = max(tolerance, allowed)
        _require(agreement.max_abs_difference <= allowed, f"logits off by {agreement.max_abs_difference:.2e}", allowed)
    if labels:
        graph = with_labels(graph)
        same = min(compare_onnx(network, graph, image).same_labels for image in torch.split(images, 1))
    _require(same >= SAME_LABELS, f"other labels on {1 - same:.2%} of the pixels", tolerance)
    path.write_bytes(graph)
    return OnnxCheck(images=len(images), max_abs_difference=difference, tolerance=tolerance, same_labels=same)


def _require(fits: bool, came: str, allowed: float) -> None:
    if not fits:
        raise ExportError(
            f"ONNX: expected PyTorch's logits to within {allowed:.2e} and the same labels, got {came}; nothing was "
            "written. Check that the weights are finite, and try another version of torch or onnxruntime"
        )
