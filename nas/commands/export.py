"""`nas export`: write a trained network as a file for a runtime, checked against PyTorch."""

from __future__ import annotations

import argparse

from nas.commands.shared import certified, common, output, trained_on

EPILOG = """\
The file's input is `image`, float32 (1, 3, H, W): RGB in 0..1, minus the mean, divided by the standard deviation that
are printed. Its output is `labels`, int64 (1, H, W), or int32 in TFLite, with upsampling and arg-max included, as in
every measured latency; or with --logits `logits`, float32 (1, classes, H, W).

examples:
  nas export runs/erfnet --out erfnet.onnx                     a folder of nas train or nas search
  nas export erfnet --weights w.safetensors --input 512x1024 --logits
  nas export runs/erfnet --format openvino --out erfnet.xml    and erfnet.bin beside it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas export`."""
    from nas.export import formats

    parser.epilog = EPILOG
    common.add_trained(parser, common.readable_path)
    common.add_data(parser, default=None)
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        default=formats.DEFAULT,
        help=f"{', '.join(formats.names())}, if its library is installed (default: {formats.DEFAULT})",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=common.path,
        help="the file to write (default: model.onnx, or model with the format's suffix)",
    )
    parser.add_argument("--logits", action="store_true", help="write a network that outputs logits instead of labels")


def run(options: argparse.Namespace) -> None:
    """Write the files and print how well they agree with PyTorch.

    Raises: UserError for an unknown format, one whose library is missing, weights that do not fit, or files whose
    output differs from PyTorch's.
    """
    from pathlib import Path

    from nas.data import MEAN, STD
    from nas.export import formats
    from nas.host.memory import require_inference
    from nas.runs.trained import load_trained
    from nas.terminal import answering

    form = formats.require(options.format)
    suffix = form.SUFFIXES[0]
    out = Path(options.out or f"model{suffix}")
    files = formats.files_of(form, out)
    output.require_own_files(files, suffix)
    common.say(f"exporting {options.architecture} to {out}")
    trained = load_trained(options.architecture, options.weights)
    labelling = trained_on.labelling_of(options, trained)

    import torch  # slow to load, so errors above come first

    from nas.runs.checked_export import export_checked

    require_inference(trained.architecture, labelling.size, len(labelling.classes))
    network = trained.network(len(labelling.classes))
    height, width = labelling.size
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with output.folder(out.parent):
        check = export_checked(network, out, images, labels=not options.logits, form=form)
    gives = (
        f"logits (1, {len(labelling.classes)}, {height}, {width})"
        if options.logits
        else f"labels (1, {height}, {width})"
    )
    written = sum(file.stat().st_size for file in files) / 2**20
    with answering():
        print(f"{', '.join(map(str, files))}: image (1, 3, {height}, {width}) -> {gives}, {written:.1f} MiB")
        print(f"compared with PyTorch: {check}")
        print(f"input: RGB in 0..1, minus {list(MEAN)}, divided by {list(STD)}")
        print(f"classes: {', '.join(labelling.classes)}")
        certified.say_exported(options)
