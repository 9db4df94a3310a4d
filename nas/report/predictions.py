"""Predictions of the winner: validation images with their labels and its predictions."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import TargetError, UnmeasuredError
from nas.latency.worker.replies import WorkerError, reason_of
from nas.quantization.certified import certified_form, labels_of_pictures
from nas.runs.folder import RunFolder
from nas.runs.trained import certificate_of, load_trained
from space.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nas.data import Dataset
    from nas.quantization.certified import Look

PICTURES = 3
WIDEST_PIXELS = 640
JPEG_QUALITY = 88


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A validation image, and overlays of its label and the prediction, as data URIs; `name` is the image's file."""

    name: str
    image: str
    label: str
    predicted: str


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Pictures and the colour (`#rrggbb`) of every class. `missing` says why there are no pictures, and `note` what
    made the predictions if not the certified form.
    """

    colours: Mapping[str, str]
    pictures: tuple[Prediction, ...] = ()
    missing: str = ""
    note: str = ""


def draw_predictions(run: RunFolder, winner: Path) -> Predictions:
    """Predictions of the winner in a folder for images from across the validation split. A winner in lower precision
    predicts in its certified form, if that runs here.

    If the data set is missing or the weights are damaged, there are no pictures and `missing` says so.
    """
    from nas.data import load
    from nas.latency.machine import lane
    from nas.terminal import ProgressLine
    from nas.training.prediction import predict

    colours: Mapping[str, str] = {}
    try:
        dataset = load(run.study().data, guard=lane.shared_on("cpu"), progress=ProgressLine())
        shades = ("#" + bytes(colour).hex() for colour in dataset.palette)
        colours = dict(zip(dataset.classes, shades, strict=True))
        network = load_trained(str(winner), None).network(dataset.num_classes)
        pictures, note = _as_certified(str(winner), dataset)
        if not pictures:
            with _one_thread():
                pictures = _predictions(partial(predict, network, size=dataset.size), dataset)
        return Predictions(pictures=pictures, colours=colours, note=note)
    except UserError as error:
        return Predictions(colours=colours, missing=f"The winner's predictions cannot be shown: {error}")


def _as_certified(winner: str, dataset: Dataset) -> tuple[tuple[Prediction, ...], str]:
    """Pictures by the certified form of a winner in lower precision, or why there are none; neither for others."""
    certificate = certificate_of(winner)
    if certificate is None or certificate.precision == "fp32":
        return (), ""
    try:
        form = certified_form(winner, dataset.size)
        if not form.target.on_cuda:  # for sums in the same order, as in `_one_thread`
            form = replace(form, target=replace(form.target, threads=1))
        with labels_of_pictures(form, dataset.size) as look:
            return _predictions(look, dataset), ""
    except (TargetError, UnmeasuredError, WorkerError) as error:
        return (), (
            f"The certified form is {certificate.runs_on}, but these predictions are by PyTorch in float32: "
            f"{reason_of(error)}"
        )


def _predictions(look: Look, dataset: Dataset) -> tuple[Prediction, ...]:
    count = len(dataset.validation)
    chosen = dict.fromkeys((2 * index + 1) * count // (2 * PICTURES) for index in range(PICTURES))
    return tuple(_prediction(look, dataset, index) for index in chosen)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute sums in the same order, so that the report does not depend on the number of cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _prediction(look: Look, dataset: Dataset, index: int) -> Prediction:
    from nas.data import read_image, read_label
    from nas.data.pictures import overlay

    image_path, label_path = dataset.validation.images[index], dataset.validation.labels[index]
    image = read_image(image_path, dataset.size)
    label = read_label(dataset, label_path, dataset.size)
    return Prediction(
        name=image_path.name,
        image=_data_uri(image),
        label=_data_uri(overlay(image, label, dataset.palette, 0.75)),
        predicted=_data_uri(overlay(image, look(image), dataset.palette, 0.75)),
    )


def _data_uri(picture: NDArray[np.uint8]) -> str:
    from PIL import Image

    image = Image.fromarray(picture)
    if image.width > WIDEST_PIXELS:
        image = image.resize((WIDEST_PIXELS, round(image.height * WIDEST_PIXELS / image.width)))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
