"""Decoding files to pixels and label values, for the check, both loaders and `nas predict` alike.

Only JPEG and PNG files are opened, recognised by content and not by name: other formats of Pillow start programs or
unpack archives. Pictures with an EXIF orientation are turned upright, as labelling tools and viewers do. Labels are
ids: palette PNGs are read as palette indices; grey PNGs with 1, 2 or 4 bits per pixel as the stored values, which
Pillow would stretch to 0..255; grey labels saved as RGB as their grey values; and colour masks as the positions of
their colours in a list.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.dataset import IGNORE
from nas.errors import DataError
from nas.host.words import counted

MOST_PIXELS = 89_478_485
"""Pillow's own limit. Beyond it, a small file that unpacks to a huge picture is more likely than a photograph."""
MOST_SCANS = 500
"""Most scans of a JPEG; more are a way to keep a decoder busy for minutes with a small file."""
MOST_PIXELS_PER_BYTE = {"JPEG": 2000, "PNG": 8 * 1032}
"""Files that declare more pixels are cut short: JPEG has no shorter codes, and PNG compresses at most 1032 to 1."""
MOST_SHOWN = 3  # colours named in a message

Convention = Literal["grey", "palette", "grey as RGB", "colours"]
"""How a label file stores its values."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_GREY = 0  # colour type of a PNG without colours, palette and alpha
_STRETCH = {1: 1, 2: 85, 4: 17}
"""Bits per pixel of a grey PNG -> factor by which Pillow multiplies its values (1 bit becomes False and True)."""
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded picture, upright."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    orientation: int
    """Its EXIF orientation: 1, or 2 to 8 if the picture was turned or mirrored to be upright."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawLabel:
    """A decoded label."""

    values: NDArray[np.uint8]
    """(H, W), as stored: not classes yet."""
    convention: Convention
    palette: tuple[tuple[int, tuple[int, int, int]], ...] = ()
    """For a palette PNG, the values that occur, with their colours."""


def decode_picture(data: bytes, path: Path) -> Picture:
    """Decode a picture; `path` is used in messages.

    Raises: DataError when it is not a JPEG or PNG, or is damaged, cut short, absurdly large or has more than 8 bits per
    colour.
    """
    image = _loaded(data, path)
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{path}: expected 8 bits per colour, got mode {image.mode}; save it as 8-bit RGB")
    orientation = _orientation(image)
    if image.mode == "P" and "transparency" in image.info:  # straight to RGB, Pillow would warn of the lost alpha
        image = image.convert("RGBA")
    pixels = image if image.mode == "RGB" else image.convert("RGB")
    if orientation in _TURNS:
        pixels = pixels.transpose(_TURNS[orientation])
    return Picture(pixels=np.array(pixels), orientation=orientation)


def decode_label(data: bytes, path: Path, colours: Sequence[tuple[int, int, int]] = ()) -> RawLabel:
    """Decode a label; `colours` are those of the values 0, 1, ... in a colour mask, `path` is used in messages.

    Raises: DataError when it is not a PNG, or is damaged, cut short, absurdly large, has an EXIF orientation, or holds
    values above 255 or unknown colours.
    """
    if data.startswith(_JPEG):
        raise DataError(
            f"{path}: expected a label as PNG, got a JPEG, whose compression mixes the values of neighbouring classes; "
            "export the label again as PNG (converting this file would keep the damage)"
        )
    label = _loaded(data, path)
    orientation = _orientation(label)
    if orientation != 1:
        raise DataError(
            f"{path}: expected a label without an EXIF orientation, got orientation {orientation}; "
            "save it upright and without that tag"
        )
    if label.mode in ("RGB", "RGBA", "LA"):
        return _of_colours(np.array(label.convert("RGBA")), path, colours)
    if label.mode not in ("1", "L", "P") and not label.mode.startswith("I"):
        raise DataError(f"{path}: expected label values as a grey or palette PNG, got mode {label.mode}; convert it")
    values = np.array(label)
    if label.mode == "L":
        values = values // _STRETCH.get(_header(data)[0], 1)
    if values.size and values.max() > IGNORE:
        raise DataError(f"{path}: expected label values up to {IGNORE}, got {values.max()}; correct the label")
    values = values.astype(np.uint8)
    if label.mode != "P":
        return RawLabel(values=values, convention="grey")
    return RawLabel(values=values, convention="palette", palette=_used_palette(label, values))


def _opened(data: bytes, path: Path) -> Image.Image:
    """Open a JPEG, or a PNG whose chunks are intact, without decoding any pixel."""
    if not data.startswith((_JPEG, _PNG)):
        raise DataError(
            f"{path} is not a readable JPEG or PNG ({counted(len(data), 'byte')}{_format_hint(data)}); fetch or export "
            "it again"
        )
    if data.startswith(_PNG):
        _check_chunks(data, path)
        bits, kind = _header(data)
        if bits > 8 and kind != _GREY:  # Pillow would truncate its values
            raise DataError(f"{path}: expected 8 bits per colour, got a PNG with {bits}; save it as 8-bit RGB")
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{path}: expected at most {MOST_PIXELS} pixels, got more; cut it into smaller pictures"
        ) from None
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise nearly anything for damaged bytes
        raise DataError(
            f"{path} is not a readable JPEG or PNG ({counted(len(data), 'byte')}); fetch or export it again"
        ) from None
    if pixels > MOST_PIXELS:
        raise DataError(
            f"{path}: expected at most {MOST_PIXELS} pixels, got {image.height}x{image.width} (HxW); "
            "cut it into smaller pictures"
        )
    if pixels > len(data) * MOST_PIXELS_PER_BYTE["PNG" if data.startswith(_PNG) else "JPEG"]:
        raise _damaged(path, f"{counted(len(data), 'byte')} cannot hold {image.height}x{image.width} pixels")
    if data.startswith(_JPEG) and data.count(b"\xff\xda") > MOST_SCANS:
        raise _damaged(path, f"it has more than {MOST_SCANS} scans")
    return image


def _loaded(data: bytes, path: Path) -> Image.Image:
    image = _opened(data, path)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # nearly anything, as above
        raise _damaged(path, str(error)) from None
    return image


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged or cut short ({reason}); fetch or export it again")


def _format_hint(data: bytes) -> str:
    known = {b"BM": "BMP", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP", b"%!": "PostScript"}
    found = next((name for start, name in known.items() if data.startswith(start)), "")
    return f", it looks like {found}: convert it" if found else ""


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation as Pillow reads it; 1 if it is missing or makes no sense."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF is ignored, as viewers do
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _of_colours(pixels: NDArray[np.uint8], path: Path, colours: Sequence[tuple[int, int, int]]) -> RawLabel:
    """The values of a label with three colour channels and alpha, `pixels` (H, W, 4)."""
    if (pixels[..., 3] != 255).any():
        raise DataError(
            f"{path}: expected label values as a grey or palette PNG, got transparent pixels; "
            "save it without transparency"
        )
    red, green, blue = (pixels[..., channel] for channel in range(3))
    packed = (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue
    unknown = packed.ravel()[:1]
    if colours:
        known = np.array([(r << 16) | (g << 8) | b for r, g, b in colours])
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known[order], packed), len(known) - 1)
        found = known[order][place] == packed
        if found.all():
            return RawLabel(values=order[place].astype(np.uint8), convention="colours")
        unknown = packed[~found]
    if (red == green).all() and (green == blue).all():
        return RawLabel(values=red.copy(), convention="grey as RGB")
    shown = ", ".join(f"#{value:06x}" for value in np.unique(unknown)[:MOST_SHOWN])
    if colours:
        raise DataError(
            f"{path}: expected the colours of the class list, got {counted(unknown.size, 'pixel')} of other colours "
            f"({shown}); list them, or export the label without smoothing its edges"
        )
    raise DataError(
        f"{path}: expected label values as a grey or palette PNG, got colours ({shown}, ...); list the colour of every "
        "class in the class list (see docs/data.md), or replace every colour by the value of its class"
    )


def _used_palette(label: Image.Image, values: NDArray[np.uint8]) -> tuple[tuple[int, tuple[int, int, int]], ...]:
    entries = label.getpalette("RGB") or []
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    return tuple(
        (index, (entries[3 * index], entries[3 * index + 1], entries[3 * index + 2]))
        for index in used
        if 3 * index + 2 < len(entries)
    )


def _header(data: bytes) -> tuple[int, int]:
    """Bits per channel and colour type of a PNG whose chunks are intact (PNG specification, 11.2.1)."""
    return data[24], data[25]


def _check_chunks(data: bytes, path: Path) -> None:
    """Check that every chunk of a PNG is intact, from the header to the end.

    Pillow checks neither the checksums of pixels nor for an end chunk; other decoders do. Raises: DataError.
    """
    view, start = memoryview(data), len(_PNG)
    first = True
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(view[start : start + 4])
        kind = bytes(view[start + 4 : start + 8])
        if end > len(data):
            raise _damaged(path, f"it ends inside its chunk {kind!r}")
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise _damaged(path, f"the checksum of its chunk {kind!r} is wrong")
        if first and kind != b"IHDR":
            raise _damaged(path, "it does not begin with its header chunk")
        if kind == b"IEND":
            return
        start, first = end, False
    raise _damaged(path, "its end chunk is missing")
