"""`nas show`: list the layers of a network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.commands.shared import common
from nas.host.words import counted

if TYPE_CHECKING:
    from nas.latency.target import Target
    from space.architecture import Architecture
    from space.count import Layer

EPILOG = """\
Multiply-adds are those of convolutions. With --latency, shares of time are measured in PyTorch, layer by layer and not
fused as in a deployed network; the latency of the whole network is measured on --target.

examples:
  nas show erfnet --input 512x1024 --classes 19
  nas show runs/night/winner --latency --target onnxruntime@cpu:1"""
CONVOLUTIONS = ("conv", "deconv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas show`."""
    parser.epilog = EPILOG
    common.add_architecture(parser, common.readable_path)
    common.add_input(parser)
    common.add_classes(parser)
    parser.set_defaults(input=None, classes=None)  # a certificate may set them
    parser.add_argument("--all", action="store_true", help="a line for every layer, not only for convolutions")
    parser.add_argument(
        "--latency", action="store_true", help="measure the latency, and each layer's share of the time"
    )
    common.add_target(parser)
    common.add_within(parser)


def run(options: argparse.Namespace) -> None:
    """Print the table and the totals; with --latency, measure.

    Raises: UserError for an unknown architecture, size or target.
    """
    from nas.runs.trained import load_architecture
    from space import UserError, layers

    architecture = load_architecture(options.architecture)
    _take_from_folder(options)
    size, classes = common.input_size(options.input), common.class_count(options)
    if (options.target or options.within) and not options.latency:
        raise UserError("--target and --within: nothing is measured without --latency; add it, or leave them out")
    within = common.within(options)
    target = common.target(options) if options.latency else None
    if target is not None:
        common.say(f"timing the layers of {options.architecture} in PyTorch, then all of it on {target}")
    found = layers(architecture, size, classes)
    times = None if target is None else _times(architecture, size, classes, target)
    print(_table(found, times, every=options.all))
    parameters, multiply_adds = (
        sum(getattr(layer, name) for layer in found) for name in ("parameters", "multiply_adds")
    )
    cut = f", pruned in {counted(len(architecture.channels), 'group')} of channels" if architecture.channels else ""
    print(
        f"\n{options.architecture}: {parameters:,} parameters, {multiply_adds / 1e9:.3f} G multiply-adds at "
        f"{size[0]}x{size[1]} with {classes} classes{cut}; key {architecture.key}"
    )
    if target is not None and times is not None:
        print(f"layers one by one in PyTorch: {sum(times):.2f} ms together")
        _print_latency(architecture, size, classes, target, within)


def _take_from_folder(options: argparse.Namespace) -> None:
    """Fill in options that are not given: from the certificate of a certified network, else from the training."""
    from nas.runs.trained import certificate_of, labelling_in

    certificate, labelling = certificate_of(options.architecture), labelling_in(options.architecture)
    height, width = common.input_size(common.DEFAULT_INPUT) if labelling is None else labelling.size
    classes = common.DEFAULT_CLASSES if labelling is None else len(labelling.classes)
    if certificate is not None:
        height, width, classes = certificate.latency.height, certificate.latency.width, certificate.num_classes
        if options.latency:
            options.target = options.target or certificate.latency.target
    options.input = options.input or f"{height}x{width}"
    options.classes = classes if options.classes is None else options.classes


def _times(architecture: Architecture, size: tuple[int, int], classes: int, target: Target) -> tuple[float, ...]:
    from nas.errors import TargetError
    from nas.latency.layers import layer_milliseconds
    from nas.latency.runtimes import require

    if target.host:
        raise TargetError(f"the layers are timed on this machine only, got {target}; leave out 'ssh:{target.host}'")
    require(target)
    threads = None if target.on_cuda else target.thread_count()
    return layer_milliseconds(architecture, size, classes, device=target.device, threads=threads)


def _print_latency(
    architecture: Architecture, size: tuple[int, int], classes: int, target: Target, within: float
) -> None:
    from nas.latency import Meter

    with Meter(target, size, classes) as meter:
        latency = meter.measure(architecture, within=within)
    print(f"measured latency: {latency}")
    print(f"timed: {latency.scope}; {latency.samples} pairs, {latency.ratio:.3f} of the reference network")


def _table(found: Sequence[Layer], times: Sequence[float] | None, *, every: bool) -> str:
    from nas.terminal import percent, table

    work = sum(layer.multiply_adds for layer in found)
    whole = sum(times or ())
    rows = []
    rest: dict[str, list[int]] = {}
    for index, layer in enumerate(found):
        if every or layer.kind in CONVOLUTIONS:
            time = () if times is None else (percent(times[index] / whole),)
            rows.append((*_cells(layer), percent(layer.multiply_adds / work), *time))
        else:
            rest.setdefault(layer.kind, []).append(index)
    for kind, indices in rest.items():
        count = sum(found[index].parameters for index in indices)
        time = () if times is None else (percent(sum(times[index] for index in indices) / whole),)
        rows.append((f"({len(indices)} x {kind})", kind, "", "", f"{count:,}", "-", "-", *time))
    header = ("layer", "kind", "output", "kernel", "parameters", "M mult-adds", "% of them")
    return table(rows, (*header, *(() if times is None else ("% of time",))))


def _cells(layer: Layer) -> tuple[str, ...]:
    kernel = "x".join(str(length) for length in layer.kernel) if layer.kernel != (1, 1) or layer.multiply_adds else ""
    if layer.stride != (1, 1):
        kernel += f" /{max(layer.stride)}"
    if layer.dilation != (1, 1):
        kernel += f" dilated {max(layer.dilation)}"
    if layer.groups > 1:
        kernel += " depthwise" if layer.groups == layer.out_channels else f" in {layer.groups} groups"
    output = f"{layer.out_channels}x{layer.height}x{layer.width}"
    return (layer.name, layer.kind, output, kernel, f"{layer.parameters:,}", f"{layer.multiply_adds / 1e6:,.2f}")
