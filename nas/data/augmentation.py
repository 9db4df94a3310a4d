"""How training pictures are varied: the settings. What is drawn from them is in nas.data.windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.errors import DataError

ScaleSampling = Literal["log", "uniform", "inverse", "listed"]
"""How a scale factor is drawn: as often half as double; each as likely; each side of the window as likely (1 / scale
is uniform); or one of those listed.
"""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training pictures are varied. Pixels are those at which networks see the pictures (Dataset.size).

    Raises: DataError for numbers out of range.
    """

    crop: tuple[int, int] | None = None
    """Height and width of what a network is shown; None is the data set's size."""
    scale: tuple[float, ...] = (1.0, 1.0)
    """Smallest and largest scale factor; with `listed` all that there are."""
    scale_sampling: ScaleSampling = "log"
    fills_crop: bool = False
    """Magnify at least so much that the picture fills the crop."""
    crop_class_share: float = 1.0
    """Cut elsewhere, up to nine times, where a class has this share or more of what is labelled, or all; 1: never."""
    flip: bool = True
    """Mirror half of the pictures left to right."""
    shift_pixels: int = 0
    """Move by up to so many pixels, also over the edge."""
    brightness: float = 0.0
    """Multiply by 1 +- up to this."""
    contrast: float = 0.0
    """Multiply the distance from the mean colour by 1 +- up to this."""
    saturation: float = 0.0
    """Multiply the distance from the grey of the same luma by 1 +- up to this."""
    hue_degrees: float = 0.0
    """Turn colours around grey by up to so many degrees, one way or the other."""

    def __post_init__(self) -> None:
        if self.crop is not None and (len(self.crop) != 2 or min(self.crop) < 8):
            raise DataError(f"crop: expected height and width of at least 8 pixels, got {self.crop}")
        if self.scale_sampling == "listed":
            if not self.scale or not 0.1 <= min(self.scale) <= max(self.scale) <= 10:
                raise DataError(f"scale: expected scale factors between 0.1 and 10, got {self.scale}")
        elif len(self.scale) != 2 or not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            raise DataError(f"scale: expected two scale factors, ascending, between 0.1 and 10, got {self.scale}")
        if not 0 < self.crop_class_share <= 1:
            raise DataError(f"crop_class_share: expected a share above 0, at most 1, got {self.crop_class_share}")
        if self.shift_pixels < 0:
            raise DataError(f"shift_pixels: expected 0 or more, got {self.shift_pixels}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise DataError(f"{name}: expected a number from 0 to below 1, got {getattr(self, name)}")
        if not 0 <= self.hue_degrees <= 180:
            raise DataError(f"hue_degrees: expected 0 to 180, got {self.hue_degrees}")
