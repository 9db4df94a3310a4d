"""`nas export`: a trained network as an ONNX file that was compared with PyTorch."""

from __future__ import annotations

import argparse

from nas.commands import common, output

EPILOG = """\
The file takes `image`, float32 (1, 3, H, W): RGB in 0..1, minus the mean, divided by the deviation printed here. It
gives `labels`, int64 (1, H, W), upsampling and arg-max inside, which is what latencies are measured of; or with
--logits `logits`, float32 (1, classes, H, W).

examples:
  nas export runs/erfnet --out erfnet.onnx                     a folder of nas train or nas search
  nas export erfnet --weights w.safetensors --input 512x1024 --logits"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas export`."""
    parser.epilog = EPILOG
    common.add_trained(parser)
    common.add_data(parser, default=None)
    parser.add_argument(
        "--out", metavar="FILE", type=common.path, default="model.onnx", help="the file to write (default: model.onnx)"
    )
    parser.add_argument("--logits", action="store_true", help="logits instead of labels")


def run(options: argparse.Namespace) -> None:
    """Write the file and print how well it agrees with PyTorch.

    Raises: UserError for weights that do not fit, or a graph that differs from PyTorch.
    """
    from pathlib import Path

    from nas.data import MEAN, STD
    from nas.host.memory import require_inference
    from nas.runs.trained import load_trained
    from nas.storage.files import write_atomically

    out = Path(options.out)
    output.require_own_file(out, ".onnx")
    trained = load_trained(options.architecture, options.weights)
    labelling = common.labelling_of(options, trained)

    import torch  # not for what is refused above

    from nas.runs.checked_export import export_checked

    require_inference(trained.architecture, labelling.size, len(labelling.classes))
    network = trained.network(len(labelling.classes))
    height, width = labelling.size
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    output.folder(out.parent)
    checks = []
    write_atomically(out, lambda file: checks.append(export_checked(network, file, images, labels=not options.logits)))
    gives = (
        f"logits (1, {len(labelling.classes)}, {height}, {width})"
        if options.logits
        else f"labels (1, {height}, {width})"
    )
    print(f"{out}: image (1, 3, {height}, {width}) -> {gives}, {out.stat().st_size / 2**20:.1f} MiB")
    print(f"against PyTorch: {checks[0]}")
    print(f"input: RGB in 0..1, minus {list(MEAN)}, divided by {list(STD)}")
    print(f"classes: {', '.join(labelling.classes)}")
