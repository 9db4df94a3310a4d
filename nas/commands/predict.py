"""`nas predict`: pictures under the colours of what a network sees in them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nas.commands import common, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

EPILOG = """\
examples:
  nas predict runs/erfnet street.jpg                           a folder of nas train or nas search
  nas predict erfnet --weights w.safetensors --out overlays *.png"""
MENTIONED = 4  # classes named for each picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas predict`."""
    parser.epilog = EPILOG
    common.add_trained(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=common.path, help="JPEG or PNG files of any size")
    parser.add_argument(
        "--out", metavar="DIR", type=common.path, default="predictions", help="where overlays go (default: predictions)"
    )
    common.add_data(parser, default=None)
    common.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Write one overlay per image; each is written as soon as it is finished.

    Raises: UserError for weights that do not fit, DataError naming an image that cannot be read.
    """
    from PIL import Image

    from nas.data import read_image
    from nas.data.pictures import overlay
    from nas.host.memory import require_inference
    from nas.runs.trained import load_trained
    from nas.storage.files import write_atomically

    trained = load_trained(options.architecture, options.weights)
    labelling = common.labelling_of(options, trained)

    from nas.training.prediction import predict  # with PyTorch, not for what is refused above

    device = common.device(options)
    require_inference(trained.architecture, labelling.size, len(labelling.classes), device=device)
    network = trained.network(len(labelling.classes)).to(device)
    for image_path, overlay_path in _destinations(options.images, output.folder(options.out)):
        image = read_image(image_path, None)
        label = predict(network, image, labelling.size)
        picture = Image.fromarray(overlay(image, label, labelling.palette))
        write_atomically(overlay_path, lambda file, picture=picture: picture.save(file, format="PNG"))  # type: ignore[misc]
        print(f"{overlay_path}: {_shares(label, labelling.classes)}", flush=True)


def _destinations(images: Sequence[str], out: Path) -> list[tuple[Path, Path]]:
    """Each image with its overlay's path.

    Raises: DataError for an image that is not there, UserError when two would have the same overlay.
    """
    from space import DataError, UserError

    found: dict[Path, Path] = {}
    for name in images:
        if not Path(name).is_file():
            raise DataError(f"{name}: expected an image, got no such file; check the path")
        path = out / f"{Path(name).stem}.overlay.png"
        if path in found:
            raise UserError(f"{found[path]} and {name} would both become {path}; give them in two calls with own --out")
        found[path] = Path(name)
    return [(image, path) for path, image in found.items()]


def _shares(label: NDArray[np.uint8], classes: Sequence[str]) -> str:
    import numpy as np

    shares = np.bincount(label.ravel(), minlength=len(classes)) / label.size
    largest = [index for index in np.argsort(-shares, kind="stable")[:MENTIONED] if shares[index] > 0]
    return ", ".join(f"{classes[index]} {100 * shares[index]:.0f} %" for index in largest)
