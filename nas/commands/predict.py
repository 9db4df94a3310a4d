"""`nas predict`: draw a network's predictions over images or a video, or write them as label images."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nas.commands.shared import certified, common, output, trained_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nas.quantization.certified import Look
    from nas.runs.certificate import Certificate
    from nas.runs.labelling import Labelling
    from nas.runs.trained import Trained
    from nas.video.segmenter import Segmenter

EPILOG = """\
--labels writes grey label PNGs of each image's own size instead, in the data set's own label values, as benchmark
servers take them. nas evaluate --at labels scores the same labels. Overlays of a network certified in lower precision
are computed by the runtime of its certificate, if that is ready here, unless --device asks for PyTorch.

A video runs in the runtime that the network is certified in, if that is ready here, else in PyTorch. The corner of each
frame shows the milliseconds of the network and the frames per second of the whole pipeline. Ctrl-C keeps the frames
finished so far.

examples:
  nas predict runs/erfnet street.jpg                           a folder of nas train or nas search
  nas predict erfnet --weights w.safetensors --out overlays *.png
  nas predict runs/city --labels --out submission leftImg8bit/test/*/*.png
  nas predict runs/night --video drive.mp4                     predictions/drive.overlay.mp4
  nas predict runs/night --video 0                             the first camera, until Ctrl-C"""
MENTIONED = 4  # classes listed for each picture, the most frequent ones
SOFTWARE = "nas predict"
MARK = f"Software\0{SOFTWARE}"  # in the PNG files that it writes; only files with this text are replaced


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas predict`."""
    parser.epilog = EPILOG
    common.add_trained(parser, common.readable_path)
    images = parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=common.readable_path, help="JPEG or PNG files of any size"
    )
    images.required = False  # with --video; nargs="*" would not read images that come after an option behind ARCH
    parser.add_argument(
        "--video",
        metavar="FILE|N",
        type=common.readable_path,
        help="a video file or a camera's number, instead of images",
    )
    parser.add_argument(
        "--labels", action="store_true", help="write label PNGs instead of overlays: NAME.png for each image"
    )
    parser.add_argument("--frames", metavar="N", type=common.whole_number, help="with --video: stop after N frames")
    parser.add_argument(
        "--out", metavar="DIR", type=common.path, default="predictions", help="output folder (default: predictions)"
    )
    common.add_data(parser, default=None)
    common.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Write one overlay or label image per image, each as soon as it is finished; or the overlay of a video.

    Raises: UserError for weights that do not fit, DataError naming an image or a video that cannot be read.
    """
    from space.errors import UserError

    if bool(options.images) == (options.video is not None):
        raise UserError(f"expected images or --video, got {'both' if options.images else 'neither'}; give one of them")
    if options.video is not None and options.labels:
        raise UserError("--labels goes with images")
    if options.video is None and options.frames is not None:
        raise UserError("--frames goes with --video")
    if options.frames is not None and options.frames < 1:
        raise UserError(f"--frames: expected at least 1, got {options.frames}")
    if options.video is None:
        _see_images(options)
    else:
        _overlay_video(options)


def _see_images(options: argparse.Namespace) -> None:
    from nas.runs.trained import load_trained
    from space.errors import UserError

    common.say(f"segmenting with {options.architecture}")
    trained = load_trained(options.architecture, options.weights)
    labelling = trained_on.labelling_of(options, trained)
    ending = ".png" if options.labels else ".overlay.png"
    destinations = _destinations(options.images, Path(options.out), ending)
    output.require_replaceable(Path(options.out), {path.name: MARK for _, path in destinations}, "predict")
    if options.labels and not labelling.label_values:
        raise UserError("--labels: expected weights that hold the label values of their classes, got none; give --data")
    with _looking(options, trained, labelling) as look, output.folder(options.out):
        _see_each(look, labelling, destinations, labels=options.labels)


@contextlib.contextmanager
def _looking(options: argparse.Namespace, trained: Trained, labelling: Labelling) -> Iterator[Look]:
    """The function that segments a picture: the form certified in lower precision, else PyTorch, as for --labels."""
    from functools import partial

    from nas.host.memory import require_inference
    from nas.quantization.certified import labels_of_pictures
    from nas.training.own_size import View, label_at_own_size
    from nas.training.prediction import predict

    unless = "--labels resizes logits, and the certified form outputs labels only" if options.labels else ""
    form = certified.form_to_run(options, labelling.size, unless=unless)
    device = "cpu" if form is not None else common.device(options)
    require_inference(trained.architecture, labelling.size, len(labelling.classes), device=device)
    if form is not None:
        with certified.refusals_told(options, form), labels_of_pictures(form, labelling.size) as look:
            yield look
        return
    network = trained.network(len(labelling.classes)).to(device)
    if options.labels:
        yield partial(label_at_own_size, network, view=View(size=labelling.size))
    else:
        yield partial(predict, network, size=labelling.size)


def _see_each(look: Look, labelling: Labelling, destinations: Sequence[tuple[Path, Path]], *, labels: bool) -> None:
    """Write the overlay or label image of every image that can be read.

    Raises: DataError at the end if any cannot.
    """
    from functools import partial

    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from nas.data import read_image
    from nas.data.pictures import overlay
    from nas.errors import DataError
    from nas.latency.machine import lane
    from nas.storage.files import write_atomically

    values = np.asarray(labelling.label_values, dtype=np.uint8)
    words = PngInfo()
    words.add_text("Software", SOFTWARE)

    unread: list[str] = []
    for image_path, path in destinations:
        try:
            image = read_image(image_path, None)
        except DataError as error:  # go on with the other images
            if len(destinations) == 1:
                raise
            unread.append(str(error))
            print(f"left out: {error}", flush=True)
            continue
        with lane.shared():
            label = look(image)
            picture = Image.fromarray(values[label] if labels else overlay(image, label, labelling.palette))
        write_atomically(path, partial(picture.save, format="PNG", pnginfo=words), mark=MARK)
        print(f"{path}: {_shares(label, labelling.classes)}", flush=True)
    if unread:
        raise DataError(f"{len(unread)} of {len(destinations)} images could not be read, the first: {unread[0]}")


def _overlay_video(options: argparse.Namespace) -> None:
    from nas.errors import DataError
    from nas.runs.trained import certificate_of, load_trained
    from nas.video.frames import MARK as MARK_OF_VIDEO
    from nas.video.frames import name_of, opened, source_of

    source = source_of(options.video)
    path = Path(options.out) / f"{name_of(source)}.overlay.mp4"
    output.require_replaceable(path.parent, {path.name: MARK_OF_VIDEO}, "predict")
    with opened(source) as video:
        trained = load_trained(options.architecture, options.weights)
        labelling = trained_on.labelling_of(options, trained)
        segmenter = _segmenter(options, trained, labelling)

        from nas.video.overlays import FrameTimes, write_overlays  # loads PyTorch, so errors above come first

        certificate = certificate_of(options.architecture) if options.weights is None else None
        times = FrameTimes()
        try:
            with output.folder(options.out):
                write_overlays(video, segmenter, labelling, path, times, options.frames)
        except (KeyboardInterrupt, DataError):  # the frames finished so far are kept
            if times.network:
                print(f"{path}: {times}{_certified(certificate)}", flush=True)
            raise
        print(f"{path}: {times}{_certified(certificate)}", flush=True)


def _segmenter(options: argparse.Namespace, trained: Trained, labelling: Labelling) -> Segmenter:
    """The segmenter of frames: the runtime of the certificate, set up as it was timed, if possible; else PyTorch."""
    from nas.host.memory import require_inference
    from nas.video.segmenter import of_form, of_pytorch

    form = certified.form_to_run(options, labelling.size, as_timed=True)
    device = "cpu" if form is not None else common.device(options)
    require_inference(trained.architecture, labelling.size, len(labelling.classes), device=device)
    if form is not None:
        return of_form(form)
    return of_pytorch(trained.network(len(labelling.classes)).to(device), device)


def _certified(certificate: Certificate | None) -> str:
    """The certified latency, to print after the measured one."""
    from nas.latency.machine.device import cpu_model

    if certificate is None:
        return ""
    latency = certificate.latency
    processor = latency.environment.get("cpu", "")
    elsewhere = f" with another processor ({processor})" if processor and processor != cpu_model() else ""
    return (
        f"; certified: {latency.p50_milliseconds:.2f} ms on {latency.target}{elsewhere}, with nothing else running on "
        "the machine"
    )


def _destinations(images: Sequence[str], out: Path, ending: str) -> list[tuple[Path, Path]]:
    """Each image with the path of the file that is written for it.

    Raises: DataError for a missing image, UserError when two would become the same file, or one would be overwritten.
    """
    from nas.errors import DataError
    from space import UserError

    found: dict[Path, Path] = {}
    sources = {Path(name).resolve() for name in images}
    for name in images:
        if Path(name).is_dir():
            files = f"{shlex.quote(str(Path(name)))}/*.jpg"
            raise DataError(f"{name}: expected an image, got a folder; give its files, such as {files}")
        if not Path(name).is_file():
            raise DataError(f"{name}: expected an image, got no such file; check the path")
        path = out / f"{Path(name).stem}{ending}"
        if path in found:
            raise UserError(f"{found[path]} and {name} would both become {path}; use two commands with different --out")
        if path.resolve() in sources:
            raise UserError(f"--out: {path} is one of the images, which would be lost; give another folder")
        found[path] = Path(name)
    return [(image, path) for path, image in found.items()]


def _shares(label: NDArray[np.uint8], classes: Sequence[str]) -> str:
    import numpy as np

    shares = np.bincount(label.ravel(), minlength=len(classes)) / label.size
    largest = [index for index in np.argsort(-shares, kind="stable")[:MENTIONED] if shares[index] > 0]
    return ", ".join(f"{classes[index]} {100 * shares[index]:.0f} %" for index in largest)
