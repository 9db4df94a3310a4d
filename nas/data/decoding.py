"""From the bytes of a file to pixels and label values: the one way in, for the check, both loaders and `nas predict`.

Only JPEG and PNG are opened, by their content and not by their name: other formats of Pillow start programs or unpack
archives. Pictures that say in their EXIF how they are to be turned are turned, as labelling tools and viewers do.
Labels are ids: palette PNGs are read as their indices, grey PNGs with 1, 2 or 4 bits per pixel as the values that are
stored, which Pillow would stretch to 0..255, grey ones that were saved as RGB as their grey value, and colour masks as
the places of their colours in a list.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.dataset import IGNORE
from space.errors import DataError

MOST_PIXELS = 89_478_485
"""Pillow's own bound, above which a small file that unpacks to a huge picture is more likely than a photograph."""
MOST_SCANS = 500
"""Of a JPEG: more are a way to keep a decoder busy for minutes with a small file."""
MOST_PIXELS_PER_BYTE = {"JPEG": 2000, "PNG": 8 * 1032}
"""Files that promise more are cut short: JPEG has no shorter codes, and PNG's compression ends at 1032 to 1."""
MOST_SHOWN = 3  # colours named in a message

Convention = Literal["grey", "palette", "grey as RGB", "colours"]
"""How a label file holds its values."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_STRETCH = {1: 1, 2: 85, 4: 17}
"""Bits per pixel of a grey PNG -> what Pillow multiplies its values by (1 bit becomes False and True)."""
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
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"sBIT"}
_TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt"}
_TURNING_TEXTS = (b"Raw profile type", b"XML:com.adobe.xmp")  # texts in which Pillow looks for an orientation
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded picture, upright."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    orientation: int
    """What its EXIF said: 1, or 2 to 8 for one that was turned or mirrored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawLabel:
    """A decoded label."""

    values: NDArray[np.uint8]
    """(H, W), as they are stored: not classes yet."""
    convention: Convention
    palette: tuple[tuple[int, tuple[int, int, int]], ...] = ()
    """Of a palette PNG: the values that occur, with their colours."""


def decode_picture(data: bytes, path: Path) -> Picture:
    """An encoded picture; `path` is for messages.

    Raises: DataError when it is no JPEG or PNG, damaged, cut short, absurdly large or has more than 8 bits per colour.
    """
    image = _loaded(data, path)
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{path}: expected 8 bits per colour, got mode {image.mode}; save it as 8-bit RGB")
    orientation = _orientation(image)
    pixels = image if image.mode == "RGB" else image.convert("RGB")
    if orientation in _TURNS:
        pixels = pixels.transpose(_TURNS[orientation])
    return Picture(pixels=np.array(pixels), orientation=orientation)


def decode_label(data: bytes, path: Path, colours: Sequence[tuple[int, int, int]] = ()) -> RawLabel:
    """An encoded label; `colours` are those of the values 0, 1, ... in a colour mask, and `path` is for messages.

    Raises: DataError when it is no PNG, damaged, cut short, absurdly large, to be turned, or holds values above 255 or
    colours that mean nothing.
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
            f"{path}: expected a label as it is stored, got one whose EXIF turns it (orientation {orientation}); "
            "save it upright and without that tag"
        )
    if label.mode in ("RGB", "RGBA", "LA"):
        return _of_colours(np.array(label.convert("RGBA")), path, colours)
    if label.mode not in ("1", "L", "P") and not label.mode.startswith("I"):
        raise DataError(f"{path}: expected label values as a grey or palette PNG, got mode {label.mode}; save it so")
    values = np.array(label)
    if label.mode == "L":
        values = values // _STRETCH.get(_grey_bits(data), 1)
    if values.size and values.max() > IGNORE:
        raise DataError(f"{path}: expected label values up to {IGNORE}, got {values.max()}; correct the label")
    values = values.astype(np.uint8)
    if label.mode != "P":
        return RawLabel(values=values, convention="grey")
    return RawLabel(values=values, convention="palette", palette=_used_palette(label, values))


def plain_image(data: bytes, path: Path) -> tuple[int, int] | None:
    """Height and width of an encoded picture that every decoder reads alike, without decoding it; None for another.

    Whoever gets None decodes with `decode_picture`. Raises: DataError as that does, as far as the header tells.
    """
    image = _opened(data, path)
    if image.mode not in ("RGB", "L"):
        return None
    if image.format == "JPEG":
        plain = _is_plain_jpeg(data) and _orientation(image) == 1
    else:
        plain = image.format == "PNG" and _is_plain_png(data)
    return (image.height, image.width) if plain else None


def plain_label(data: bytes, path: Path) -> tuple[int, int] | None:
    """The same of an encoded label: of an 8-bit grey PNG."""
    image = _opened(data, path)
    plain = image.format == "PNG" and image.mode == "L" and _is_plain_png(data)
    return (image.height, image.width) if plain else None


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (H, W) or (H, W, 3) as a PNG that `plain_image` or `plain_label` accepts."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _opened(data: bytes, path: Path) -> Image.Image:
    """The header of a JPEG or a PNG whose chunks are whole; no pixel is decoded."""
    if not data.startswith((_JPEG, _PNG)):
        raise DataError(
            f"{path} is no readable JPEG or PNG ({len(data)} bytes{_format_hint(data)}); fetch or export it again"
        )
    if data.startswith(_PNG):
        _check_chunks(data, path)
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"{path} is larger than the {MOST_PIXELS} pixels of the largest photographs; cut it up"
        ) from None
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise nearly anything on bytes that are damaged
        raise DataError(f"{path} is no readable JPEG or PNG ({len(data)} bytes); fetch or export it again") from None
    if pixels > MOST_PIXELS:
        raise DataError(
            f"{path}: expected at most {MOST_PIXELS} pixels, got {image.height}x{image.width} (HxW); cut it up"
        )
    if pixels > len(data) * MOST_PIXELS_PER_BYTE["PNG" if data.startswith(_PNG) else "JPEG"]:
        raise _damaged(path, f"{len(data)} bytes cannot hold {image.height}x{image.width} pixels")
    if data.startswith(_JPEG) and data.count(b"\xff\xda") > MOST_SCANS:
        raise _damaged(path, f"it has more than {MOST_SCANS} scans")
    return image


def _loaded(data: bytes, path: Path) -> Image.Image:
    image = _opened(data, path)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _damaged(path, str(error)) from None
    return image


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged or cut short ({reason}); fetch or export it again")


def _format_hint(data: bytes) -> str:
    known = {b"BM": "BMP", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP", b"%!": "PostScript"}
    found = next((name for start, name in known.items() if data.startswith(start)), "")
    return f", it looks like {found}: convert it" if found else ""


def _orientation(image: Image.Image) -> int:
    """What EXIF says, as Pillow reads it; 1 where it says nothing that makes sense."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF is no EXIF: viewers ignore it too
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _of_colours(pixels: NDArray[np.uint8], path: Path, colours: Sequence[tuple[int, int, int]]) -> RawLabel:
    """The values of a label with three colour channels and alpha, (H, W, 4)."""
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
            f"{path}: expected the colours of the class list, got {unknown.size} pixels of others ({shown}); "
            "list them, or export the label without smoothing its edges"
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


def _grey_bits(data: bytes) -> int:
    """Bits per pixel of a PNG without colour, from its header (PNG specification, 11.2.1); 0 for other files."""
    is_grey_png = data[:8] == _PNG and data[12:16] == b"IHDR" and data[25] == 0
    return data[24] if is_grey_png else 0


def _check_chunks(data: bytes, path: Path) -> list[tuple[bytes, bytes]]:
    """Kind and first bytes of every chunk of a PNG.

    Pillow does not look at the checksums of pixels nor for an end, other decoders do. Raises: DataError.
    """
    view, start = memoryview(data), len(_PNG)
    chunks = []
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(view[start : start + 4])
        kind = bytes(view[start + 4 : start + 8])
        if end > len(data):
            raise _damaged(path, f"it ends inside its part {kind!r}")
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise _damaged(path, f"the checksum of its part {kind!r} is wrong")
        chunks.append((kind, bytes(view[start + 8 : min(start + 32, end - 4)])))
        if kind == b"IEND":
            if chunks[0][0] != b"IHDR":
                raise _damaged(path, "its header is not at its beginning")
            return chunks
        start = end
    raise _damaged(path, "its end is missing")


def _is_plain_png(data: bytes) -> bool:
    """8-bit RGB or grey, not interlaced, without transparency, animation or anything that turns it."""
    chunks = _check_chunks(data, Path())
    header = chunks[0][1]
    if header[8] != 8 or header[9] not in (0, 2) or header[12] != 0:
        return False
    return all(
        kind in _PLAIN_CHUNKS or (kind in _TEXT_CHUNKS and not start.startswith(_TURNING_TEXTS))
        for kind, start in chunks
    )


def _is_plain_jpeg(data: bytes) -> bool:
    """Baseline or progressive with 8 bits, grey or YCbCr, every segment whole, from its start to its end marker."""
    start, framed = 2, False
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker == 0xD9:
            return framed
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        segment = data[start + 4 : end]
        if not (0xC0 <= marker <= 0xFE) or 0xD0 <= marker <= 0xD8 or end > len(data) or end < start + 4:
            return False
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if framed or marker > 0xC2 or not _is_plain_frame(segment):
                return False
            framed = True
        if marker == 0xEE and segment[:5] == b"Adobe" and segment[11:12] != b"\x01":
            return False  # its colours are not YCbCr
        start = end
        if marker == 0xDA:
            found = _END_OF_SCAN.search(data, start)
            if found is None:
                return False
            start = found.start()
    return start + 2 <= len(data) and data[start : start + 2] == b"\xff\xd9" and framed


def _is_plain_frame(segment: bytes) -> bool:
    """A frame header: 8 bits, one component, or three numbered 1, 2, 3 with plain or halved chroma."""
    if len(segment) < 6 or segment[0] != 8 or len(segment) != 6 + 3 * segment[5]:
        return False
    components = [segment[6 + 3 * index : 9 + 3 * index] for index in range(segment[5])]
    if len(components) == 1:
        return components[0][1] == 0x11
    shapes = [component[1] for component in components]
    numbers = [component[0] for component in components]
    return numbers == [1, 2, 3] and shapes[0] in (0x11, 0x21, 0x12, 0x22) and shapes[1:] == [0x11, 0x11]
