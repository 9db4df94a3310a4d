"""`nas evaluate`: score a trained network on labelled images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nas.commands.shared import certified, common, ending, output, trained_on
from nas.host.words import counted
from nas.runs.evaluation import CONFUSION, CONFUSION_CHART, EVALUATION, MARKS, Evaluation, confusion_csv

if TYPE_CHECKING:
    from nas.data import Dataset, SplitName
    from nas.quantization.forms import Form
    from nas.runs.data_seen import DataSeen
    from nas.runs.trained import Trained
    from nas.training.metrics import ConfusionMatrix
    from nas.training.own_size import View
    from space.network import Network

SPLITS: dict[str, SplitName] = {"train": "train", "val": "validation", "test": "test"}
EPILOG = """\
By default images and labels are at the network's input size, as in training and search. With --at labels the network's
logits are resized to each label's own size, as in benchmarks.

A network certified in lower precision is scored by the runtime of its certificate, if that is ready here and neither
--at labels nor --device asks for PyTorch. On the same validation images, with the same versions of the libraries, the
result is that of the certificate.

examples:
  nas evaluate runs/erfnet                                     a folder of nas train or nas search
  nas evaluate erfnet --weights w.safetensors --data camvid:~/camvid --input 360x480
  nas evaluate runs/city --at labels --split val --out scores  Cityscapes at 1024x2048
  nas evaluate runs/city --at labels --scales 0.5,1,1.5 --flip"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas evaluate`."""
    parser.epilog = EPILOG
    common.add_trained(parser, common.readable_path)
    common.add_data(parser, default=None)
    parser.add_argument("--split", choices=tuple(SPLITS), default="val", help="split to score on (default: val)")
    parser.add_argument(
        "--at",
        choices=("input", "labels"),
        default="input",
        help="compare at the network's input size, as training and search do, or at the labels' own (default: input)",
    )
    parser.add_argument("--window", metavar="HxW", help="with --at labels: use overlapping windows of this size")
    parser.add_argument(
        "--scales",
        metavar="S,S,...",
        help="with --at labels: average over these multiples of --input, such as 0.75,1,1.25",
    )
    parser.add_argument("--flip", action="store_true", help="with --at labels: average over the mirrored images too")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=common.path,
        help=f"folder for {EVALUATION}, {CONFUSION} and {CONFUSION_CHART}",
    )
    common.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Print the IoU of every class and category, their means and pixel accuracy.

    Raises: UserError or DataError for weights, data, splits and devices that do not fit.
    """
    from nas.host.memory import require_inference
    from nas.runs.trained import load_trained
    from nas.terminal import answering, class_table

    _check(options)
    common.say(f"evaluating {options.architecture}")
    split = SPLITS[options.split]
    trained = load_trained(options.architecture, options.weights)
    dataset, _ = trained_on.data_of(options, trained, test=split == "test")
    view = _view(options, dataset.size)
    network = trained.network(dataset.num_classes)  # first, because it raises for weights that do not fit
    findings = common.looked_at(dataset, (split,))
    common.say_notes(findings)
    seen = None if split == "test" else _seen(options, trained, dataset.size)
    if seen is not None and (change := seen.fingerprint.difference(findings.fingerprint, (split,))):
        print(f"note: since the training {change}", flush=True)
    unless = "" if view is None else "--at labels resizes logits, and the certified form outputs labels only"
    form = certified.form_to_run(options, dataset.size, unless=unless)
    device = "cpu" if form is not None else common.device(options)
    largest = dataset.size if view is None else view.largest()
    require_inference(trained.architecture, largest, dataset.num_classes, device=device)
    height, width = dataset.size
    lost = ending.begins_anew("what was scored")
    with ending.told(lambda: lost), certified.refusals_told(options, form):
        print(
            f"{trained.name} on {counted(len(dataset.split(split)), f'{split} image')} of {dataset.name} at "
            f"{height}x{width}, "
            f"{f'computed on {device}' if form is None else f'by {form.target}'}"
        )
        if view is None:
            print(
                f"scored at {height}x{width}, as training and search do; --at labels scores as benchmarks do\n",
                flush=True,
            )
        else:
            print(f"scored at the labels' own size, as benchmarks do; the network sees {view.words()}\n", flush=True)
        matrix = _confusion(network if form is None else form, dataset, split, view, device)
    scores = matrix.scores()
    evaluation = _evaluation(options, trained, dataset, matrix, view, form)
    with answering():
        print(class_table(dataset.classes, scores))
        if dataset.categories:
            print(f"\n{_category_table(evaluation)}")
    if options.out is not None:
        _write(Path(options.out), evaluation, dataset, matrix)


def _check(options: argparse.Namespace) -> None:
    from space.errors import UserError

    for name in ("window", "scales", "flip"):
        if options.at == "input" and getattr(options, name):
            raise UserError(f"--{name} goes with --at labels")
    if options.out is not None:
        output.require_folder(options.out)  # before anything is scored
        output.require_replaceable(Path(options.out), MARKS, "evaluate", table=EVALUATION)


def _seen(options: argparse.Namespace, trained: Trained, size: tuple[int, int]) -> DataSeen | None:
    """The record of the data when the training, or the run, of a network began; None where the data need not be the
    same now: a run may have used a part of what --data names, and generated scenes differ at another size.
    """
    from nas.runs.data_seen import data_seen
    from nas.runs.folder import run_around

    folder, known = trained.weights.parent, trained.labelling
    seen = data_seen(folder)
    if seen is None and options.data is None and (run := run_around(folder)) is not None:
        seen = data_seen(run)
    is_drawn = seen is not None and not seen.root_from_here
    return None if is_drawn and known is not None and known.size != size else seen


def _view(options: argparse.Namespace, size: tuple[int, int]) -> View | None:
    """The scales, flips and windows for --at labels; None for --at input.

    Raises: UserError for invalid windows and scales.
    """
    from nas.training.own_size import View
    from space.errors import UserError

    if options.at == "input":
        return None
    scales: tuple[float, ...] = (1.0,)
    if options.scales is not None:
        try:
            scales = tuple(float(each) for each in options.scales.split(","))
        except ValueError:
            raise UserError(f"--scales: expected numbers such as 0.75,1,1.25, got {options.scales!r}") from None
    window = None if options.window is None else common.input_size(options.window, "--window")
    return View(size=size, scales=scales, flip=options.flip, window=window)


def _confusion(
    scored: Network | Form, dataset: Dataset, split: SplitName, view: View | None, device: str
) -> ConfusionMatrix:
    from nas.host.cores import usable_cores
    from nas.latency.machine import lane
    from nas.quantization.forms import Form
    from nas.quantization.scoring import confusion_of_form
    from nas.terminal import ProgressLine
    from nas.training.evaluation import confusion
    from nas.training.own_size import confusion_at_own_size

    threads, progress = usable_cores(), ProgressLine()
    guard, count = lane.shared_on(device), progress.count
    with progress.over("scored", len(dataset.split(split))):
        if isinstance(scored, Form):
            return confusion_of_form(scored, dataset, split, count)
        if view is None:
            return confusion(scored, dataset, device=device, split=split, threads=threads, guard=guard, count=count)
        return confusion_at_own_size(
            scored, dataset, split, view, device=device, threads=threads, guard=guard, count=count
        )


def _evaluation(
    options: argparse.Namespace,
    trained: Trained,
    dataset: Dataset,
    matrix: ConfusionMatrix,
    view: View | None,
    form: Form | None,
) -> Evaluation:
    import hashlib

    certificate = None if form is None else certified.certificate_in_lower_precision(options)
    scores = matrix.scores()
    names = tuple(dict.fromkeys(dataset.categories))
    by_category = matrix.grouped([names.index(each) for each in dataset.categories]).scores() if names else None
    return Evaluation(
        architecture=trained.architecture.key,
        weights_sha256=hashlib.sha256(trained.weights.read_bytes()).hexdigest(),
        data=dataset.name,
        split=options.split,
        images=len(dataset.split(SPLITS[options.split])),
        at=options.at,
        size=dataset.size,
        scales=(1.0,) if view is None else view.scales,
        flip=options.flip,
        window=None if view is None else view.window,
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        class_iou=dict(zip(dataset.classes, scores.class_iou, strict=True)),
        category_miou=by_category.miou if by_category else None,
        category_iou=dict(zip(names, by_category.class_iou, strict=True)) if by_category else {},
        form="" if certificate is None else certificate.runs_on,
        graph_sha256="" if form is None else hashlib.sha256(form.graph).hexdigest(),
    )


def _category_table(evaluation: Evaluation) -> str:
    from nas.terminal import percent, table

    rows = [(name, percent(iou)) for name, iou in evaluation.category_iou.items()]
    return table([*rows, ("mean of categories", percent(evaluation.category_miou))], ("category", "IoU %"))


def _write(out: Path, evaluation: Evaluation, dataset: Dataset, matrix: ConfusionMatrix) -> None:
    from nas.report.confusion import confusion_chart
    from nas.storage.files import write_text
    from nas.terminal import answering
    from space import strict

    counts: list[list[int]] = matrix.counts.tolist()
    title = f"{dataset.name} {evaluation.split}: what each class is taken for, in % of its labelled pixels"
    with output.folder(out):
        write_text(out / CONFUSION, confusion_csv(dataset.classes, counts), mark=MARKS[CONFUSION])
        write_text(out / CONFUSION_CHART, confusion_chart(dataset.classes, counts, title))
        write_text(out / EVALUATION, strict.dump(evaluation), mark=MARKS[EVALUATION])
    with answering():
        print(f"\n{out}: {EVALUATION} {CONFUSION} {CONFUSION_CHART}")
