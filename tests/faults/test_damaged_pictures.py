"""A thousand damaged pictures and labels: each is refused by our check, or both loaders show it alike."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import Dataset, DataSpec, Split, check, load, make_loader
from nas.errors import DataError

FILES = 1000
TOGETHER = 50  # accepted ones in a data set that is loaded
SIZE = (32, 48)
CLASSES = 4


def label_of(random: np.random.Generator) -> np.ndarray:
    return random.integers(0, CLASSES, (4, 6), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def image_of(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    noise = random.integers(0, 30, (*SIZE, 3), dtype=np.uint8)
    return (label * 40)[..., None] + noise


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def pictures(random: np.random.Generator) -> Iterator[tuple[bytes, bytes]]:
    """Images with their labels, in all the ways that are read, without end."""
    exif = Image.Exif()
    exif[0x0112] = 3
    while True:
        label = label_of(random)
        image = image_of(label, random)
        palette = Image.fromarray(label, mode="P")
        palette.putpalette([0, 0, 0, 99, 0, 0, 0, 99, 0, 0, 0, 99])
        buffer = io.BytesIO()
        palette.save(buffer, "PNG")
        yield encoded(image, "JPEG", quality=90), encoded(label, "PNG")
        yield encoded(image, "JPEG", quality=90, progressive=True, exif=exif), buffer.getvalue()
        yield encoded(image, "PNG"), encoded(np.dstack([label] * 3), "PNG")
        yield encoded(image[..., 0], "PNG"), encoded(label.astype(np.uint16), "PNG")
        yield encoded(image, "JPEG", subsampling=0, exif=exif), encoded(label, "PNG")


def damage(data: bytes, random: np.random.Generator) -> bytes:
    """Bytes changed, cut off, taken out or put in, and needless parts added; every other PNG has right checksums
    all the same.
    """
    broken = bytearray(data)
    place = int(random.integers(len(broken)))
    match int(random.integers(9)):
        case 0 | 1 | 2:
            for at in random.integers(0, len(broken), random.integers(1, 4)):
                broken[at] = random.integers(256)
        case 3:
            del broken[place:]
        case 4:
            del broken[place : place + int(random.integers(1, 20))]
        case 5:
            broken[place:place] = random.bytes(int(random.integers(1, 20)))
        case 6:
            broken += random.bytes(int(random.integers(1, 20)))
        case 7 | 8:
            return with_part(data, random)
    return summed(bytes(broken)) if data[:4] == b"\x89PNG" and random.random() < 0.5 else bytes(broken)


def with_part(data: bytes, random: np.random.Generator) -> bytes:
    """One more chunk behind the header of a PNG, one more segment behind the start of a JPEG, with random contents."""
    content = random.bytes(int(random.integers(0, 40)))
    if data[:4] != b"\x89PNG":
        marker = bytes([0xFF, int(random.choice([*range(0xE0, 0xF0), 0xFE]))])
        return data[:2] + marker + struct.pack(">H", len(content) + 2) + content + data[2:]
    kinds = (b"tEXt", b"zTXt", b"iTXt", b"tRNS", b"gAMA", b"bKGD", b"eXIf", b"acTL", b"sBIT", b"iCCP", b"pHYs", b"aaAa")
    body = kinds[int(random.integers(len(kinds)))] + content
    return data[:33] + struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def summed(data: bytes) -> bytes:
    """A damaged PNG whose checksums fit what is in it, as far as its parts can be followed."""
    parts, start = [data[:8]], 8
    while start + 12 <= len(data):
        (length,) = struct.unpack(">I", data[start : start + 4])
        body = data[start + 4 : start + 8 + length]
        if start + 12 + length > len(data):
            break
        parts.append(data[start : start + 4] + body + struct.pack(">I", zlib.crc32(body)))
        start += 12 + length
    return b"".join(parts) + data[start:]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    random = np.random.default_rng(1)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for index, (image, label) in zip(range(2), pictures(random), strict=False):
            (tmp_path / split / "images" / f"{index}.png").write_bytes(image)
            (tmp_path / split / "labels" / f"{index}.png").write_bytes(label)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    return load(DataSpec(name="folder", root=str(tmp_path), size=SIZE))


def shown(dataset: Dataset, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    loader = make_loader(dataset, "validation", batch_size=10, augmentation=None, backend=backend)  # type: ignore[arg-type]
    batches = list(loader.epoch(0))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Pillow warns of what it finds in damaged files
@pytest.mark.parametrize("damaged", ["image", "label"])
def test_both_loaders_show_alike_every_damaged_picture_that_the_check_accepts(
    damaged: str, dataset: Dataset, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    accepted: list[tuple[Path, Path]] = []
    refused: list[DataError] = []
    for index, (image, label) in zip(range(FILES // 2), pictures(random), strict=False):
        pair = tmp_path / f"{index}.image.png", tmp_path / f"{index}.label.png"
        pair[0].write_bytes(damage(image, random) if damaged == "image" else image)
        pair[1].write_bytes(damage(label, random) if damaged == "label" else label)
        one = replace(dataset, validation=Split(images=(pair[0],), labels=(pair[1],)))
        try:
            check(one, ("validation",))
            accepted.append(pair)
        except DataError as error:
            refused.append(error)
    assert len(refused) > 50
    assert [error for error in refused if not str(error).startswith((str(tmp_path), "folder: expected at least"))] == []
    assert len(accepted) > 50
    for start in range(0, len(accepted), TOGETHER):
        images, labels = zip(*accepted[start : start + TOGETHER], strict=True)
        together = replace(dataset, validation=Split(images=images, labels=labels))
        ours, theirs = shown(together, "torch"), shown(together, "dali")
        assert torch.equal(ours[1], theirs[1])
        # At the border of those that are resized the two filters weigh what lies outside differently.
        inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
        torch.testing.assert_close(ours[0][inside], theirs[0][inside], atol=0.03, rtol=0)
