"""The settings of data augmentation. `nas.data.windows` draws random windows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.errors import DataError

ScaleSampling = Literal["log", "uniform", "inverse", "listed"]
"""Distribution of scale factors. `log`: uniform in the logarithm, so half is as likely as double; `uniform`: uniform in
the factor; `inverse`: uniform in the side of the window (1 / scale); `listed`: one of the listed factors.
"""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentation of training pictures. Pixels are those of pictures at the size that networks see (Dataset.size).

    Raises: DataError for numbers out of range.
    """

    crop: tuple[int, int] | None = None
    """Height and width of the crop that a network sees; None: the data set's size."""
    scale: tuple[float, ...] = (1.0, 1.0)
    """Smallest and largest scale factor; with `listed`, all scale factors."""
    scale_sampling: ScaleSampling = "log"
    fills_crop: bool = False
    """Enlarge each picture at least until it fills the crop."""
    crop_class_share: float = 1.0
    """Move a crop elsewhere, up to nine times, if one class covers this share or more of its labelled pixels, or all of
    them; 1: never."""
    flip: bool = True
    """Mirror half of the pictures left to right."""
    shift_pixels: int = 0
    """Shift by up to this many pixels along each axis, even beyond the edge of the picture."""
    brightness: float = 0.0
    """Multiply values by a random factor within 1 +- this."""
    contrast: float = 0.0
    """Multiply the distance from the mean colour by a random factor within 1 +- this."""
    saturation: float = 0.0
    """Multiply the distance from the grey of the same luma by a random factor within 1 +- this."""
    hue_degrees: float = 0.0
    """Rotate colours around grey by up to this many degrees in either direction."""

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
