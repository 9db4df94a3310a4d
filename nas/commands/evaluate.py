"""`nas evaluate`: how well a trained network segments the validation images."""

from __future__ import annotations

import argparse

from nas.commands import common

EPILOG = """\
examples:
  nas evaluate runs/erfnet                                     a folder of nas train or nas search
  nas evaluate erfnet --weights w.safetensors --data camvid:~/camvid --input 360x480"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas evaluate`."""
    parser.epilog = EPILOG
    common.add_trained(parser)
    common.add_data(parser, default=None)
    common.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Print the IoU of every class, mIoU and pixel accuracy.

    Raises: UserError or DataError for weights, data and devices that do not fit.
    """
    from nas.data import check
    from nas.host.cores import usable_cores
    from nas.host.memory import require_inference
    from nas.latency.machine import lane
    from nas.runs.trained import load_trained
    from nas.terminal import class_table

    trained = load_trained(options.architecture, options.weights)
    dataset = common.data_of(options, trained)
    common.say_notes(check(dataset, ("validation",)))
    from nas.training.evaluation import evaluate  # with PyTorch, not for what is refused above

    device = common.device(options)
    require_inference(trained.architecture, dataset.size, dataset.num_classes, device=device)
    network = trained.network(dataset.num_classes)
    height, width = dataset.size
    print(
        f"{trained.name} on {len(dataset.validation)} validation images of {dataset.name} at {height}x{width}, "
        f"computed on {device}\n",
        flush=True,
    )
    threads = usable_cores()
    scores = evaluate(network, dataset, device=device, threads=threads, guard=lane.training_step)
    print(class_table(dataset.classes, scores))
