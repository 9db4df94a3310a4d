"""Decoding of picture and label files: accepted formats, refused files, orientation."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nas.data import Dataset, check, make_loader, read_image, read_label
from nas.data.decoding import decode_label, decode_picture
from nas.errors import DataError

HERE = Path("here.png")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def saved(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(height: int, width: int) -> bytes:
    """A small file whose header promises a picture of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_are_turned_as_viewers_show_them(orientation: int, kind: str) -> None:
    data = saved(PIXELS, kind, exif=turned(orientation))
    picture = decode_picture(data, HERE)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(picture.pixels, shown)
    assert picture.orientation == orientation


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 16))], ids=["none", "one value", "bytes"])
def test_palette_pictures_have_the_colours_of_their_palette(transparency: int | bytes | None) -> None:
    """This includes transparent palettes, and brings no warning from Pillow."""
    colours = np.random.default_rng(1).integers(0, 256, (16, 3), dtype=np.uint8)
    values = np.arange(60, dtype=np.uint8).reshape(6, 10) % 16
    image, buffer = Image.fromarray(values), io.BytesIO()
    image.putpalette(colours.tobytes())
    image.save(buffer, "PNG", **({} if transparency is None else {"transparency": transparency}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = decode_picture(buffer.getvalue(), HERE)
    np.testing.assert_array_equal(picture.pixels, colours[values])


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_orientation_that_means_nothing_turns_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    picture = decode_picture(saved(PIXELS, exif=exif), HERE)
    assert picture.orientation == 1
    np.testing.assert_array_equal(picture.pixels, PIXELS)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_label_is_never_turned(orientation: int) -> None:
    with pytest.raises(DataError, match=f"got orientation {orientation}; save it upright"):
        decode_label(saved(PIXELS[..., 0], exif=turned(orientation)), HERE)


def test_a_label_turned_otherwise_than_its_picture_is_refused(
    tiny_root: Path, load_tiny: Callable[..., Dataset]
) -> None:
    image = tiny_root / "train" / "images" / "1.jpg"
    Image.open(image).copy().save(image, exif=turned(6))
    with pytest.raises(DataError, match=r"orientation 6.*turn the label, or save the image without that tag"):
        check(load_tiny())


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP", "PPM", "EPS", "PDF", "ICO"])
def test_only_jpeg_and_png_are_opened_whatever_the_file_name(kind: str) -> None:
    data = saved(PIXELS, kind)
    for decode in (decode_picture, decode_label):
        with pytest.raises(DataError, match="not a readable JPEG or PNG"):
            decode(data, HERE)


def test_a_file_called_png_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would call Ghostscript to draw PostScript."""
    told = tmp_path / "told"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {told}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="it looks like PostScript"):
        read_image(tmp_path / "a.png", None)
    assert not told.exists()


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "grey and alpha", "RGBA"])
def test_colours_of_16_bits_are_refused(kind: int, channels: int) -> None:
    """Pillow would read only the upper 8 bits of each colour."""
    header = struct.pack(">IIBBBBB", 2, 1, 16, kind, 0, 0, 0)
    rows = zlib.compress(b"\0" + b"\x0f\xff" * 2 * channels)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert np.asarray(Image.open(io.BytesIO(data))).dtype == np.uint8
    for decode in (decode_picture, decode_label):
        with pytest.raises(DataError, match="expected 8 bits per colour, got a PNG with 16"):
            decode(data, HERE)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_jpeg_is_refused_as_a_label(name: str) -> None:
    with pytest.raises(DataError, match=r"as PNG, got a JPEG, whose compression mixes"):
        decode_label(saved(PIXELS[..., 0], "JPEG"), Path(name))


@pytest.mark.parametrize("size", [(9500, 9500), (20_000, 20_000), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1)])
def test_huge_pictures_are_refused_before_decoding(size: tuple[int, int]) -> None:
    for decode in (decode_picture, decode_label):
        with pytest.raises(DataError, match="pixels"):
            decode(png_of_size(*size), HERE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_files_too_short_for_their_size_in_the_header_are_refused_before_decoding(kind: str) -> None:
    data = bytearray(saved(np.zeros((8, 8), np.uint8), kind))
    if kind == "PNG":
        data = bytearray(png_of_size(8000, 8000))
    else:
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", 8000, 8000)
    with pytest.raises(DataError, match="bytes cannot hold 8000x8000 pixels"):
        decode_picture(bytes(data), HERE)


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = saved(PIXELS, "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(DataError, match="scans"):
        decode_picture(data[:-2] + data[scan:-2] * 1000 + data[-2:], HERE)


@pytest.mark.parametrize("part", [b"IHDR", b"IDAT", b"IEND"])
def test_a_png_with_a_wrong_checksum_is_refused(part: bytes) -> None:
    data = bytearray(saved(PIXELS))
    start = data.index(part)
    end = start + 4 + int.from_bytes(data[start - 4 : start])
    data[end] ^= 1
    with pytest.raises(DataError, match=f"the checksum of its chunk b'{part.decode()}' is wrong"):
        decode_picture(bytes(data), HERE)


def test_a_png_without_its_end_is_refused() -> None:
    with pytest.raises(DataError, match="cut short"):
        decode_picture(saved(PIXELS)[:-12], HERE)


def test_a_pipe_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    pipe, folder, huge = tmp_path / "pipe.png", tmp_path / "folder.png", tmp_path / "huge.png"
    os.mkfifo(pipe)
    folder.mkdir()
    with huge.open("wb") as file:
        file.truncate(2**40)  # a sparse file
    for path, expected in ((pipe, "expected a file"), (folder, "expected a file"), (huge, "at most")):
        with pytest.raises(DataError, match=expected):
            read_image(path, None)


def test_labels_are_read_from_grey_and_colour_files(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    values = (np.arange(64 * 96).reshape(64, 96) % 4).astype(np.uint8)
    path = tiny_root / "train" / "labels" / "0.png"
    opaque = np.full_like(values, 255)
    for channels in ([values] * 3, [values, values, values, opaque]):
        Image.fromarray(np.dstack(channels)).save(path)
        np.testing.assert_array_equal(read_label(load_tiny(), path, None), values)
    Image.fromarray(np.dstack([values] * 3 + [values])).save(path)
    with pytest.raises(DataError, match="transparent"):
        read_label(load_tiny(), path, None)


COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [9, 9, 9]], np.uint8)


def test_colour_masks_are_read_by_a_list_of_colours(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    for split in ("train", "val"):
        for path in (tiny_root / split / "labels").iterdir():
            values = np.array(Image.open(path))
            values[values == 255] = 0
            Image.fromarray(COLOURS[values]).save(path)
    with pytest.raises(DataError, match="list the colour of every class"):
        check(load_tiny())
    plain = "\n".join(f"{name},{r},{g},{b}" for name, (r, g, b) in zip("abcd", COLOURS.tolist(), strict=True))
    (tiny_root / "classes.txt").write_text(f"name,r,g,b\n{plain}\n")
    dataset = load_tiny()
    findings = check(dataset)
    assert dict(findings.splits)["train"].conventions == (("colours", 5),)
    assert dataset.palette == tuple(map(tuple, COLOURS.tolist()))
    path = dataset.train.labels[0]
    np.testing.assert_array_equal(COLOURS[read_label(dataset, path, None)], np.array(Image.open(path)))
    for backend in ("torch", "dali"):
        loader = make_loader(dataset, "validation", batch_size=3, augmentation=None, backend=backend)  # type: ignore[arg-type]
        _, labels = next(iter(loader.epoch(0)))
        for label, file in zip(labels.numpy(), dataset.validation.labels, strict=True):
            np.testing.assert_array_equal(label, read_label(dataset, file, None))
    smoothed = np.array(Image.open(path))
    smoothed[0, 0] = (64, 0, 0)
    Image.fromarray(smoothed).save(path)
    with pytest.raises(DataError, match=r"1 pixel of other colours .#400000.*without smoothing"):
        check(dataset)


def test_grey_values_and_colours_are_not_read_side_by_side(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    """Three of the colours are grey: a file of grey values would be taken for one of colours, or the reverse."""
    (tiny_root / "classes.txt").write_text("a,0,0,0\nb,128,0,0\nc,0,128,0\nd,9,9,9\n")
    labels = sorted((tiny_root / "train" / "labels").iterdir())
    Image.fromarray(COLOURS[np.arange(64 * 96).reshape(64, 96) % 4]).save(labels[0])
    Image.fromarray(np.dstack([(np.arange(64 * 96).reshape(64, 96) % 4).astype(np.uint8)] * 3)).save(labels[1])
    with pytest.raises(DataError, match="save all labels in the same way"):
        check(load_tiny())


def test_a_palette_that_contradicts_the_class_list_is_refused(
    tiny_root: Path, load_tiny: Callable[..., Dataset]
) -> None:
    (tiny_root / "classes.txt").write_text("a,0,0,0\nb,128,0,0\nc,0,128,0\nd,9,9,9\n")
    values = (np.arange(64 * 96).reshape(64, 96) % 3).astype(np.uint8)
    path = tiny_root / "train" / "labels" / "0.png"
    for colours, fits in ((COLOURS, True), (COLOURS[[0, 2, 1]], False)):
        label = Image.fromarray(values, mode="P")
        label.putpalette(colours.ravel().tolist())
        label.save(path)
        if fits:
            assert (read_label(load_tiny(), path, None) == values).all()
        else:
            with pytest.raises(DataError, match="palette entry 1"):
                read_label(load_tiny(), path, None)
