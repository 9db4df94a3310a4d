"""`nas prune`: a compact network inside a measured budget, and its certificate."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nas.commands import common

if TYPE_CHECKING:
    from nas.training import EpochReport

DEFAULT_EPOCHS = 10
EPILOG = """\
examples:
  nas prune erfnet --weights runs/erfnet/weights.safetensors --data camvid:~/camvid --budget 6ms --epochs 30
  nas prune runs/night --budget 6ms     without data there is no fine-tuning, and the weights' magnitude decides"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    common.add_trained(parser)
    parser.add_argument("--budget", metavar="TIME", required=True, help="6ms, 100fps or '6ms p90'")
    parser.add_argument(
        "--data",
        metavar="SET[:ROOT]",
        help="road_scenes, camvid:DIR, cityscapes:DIR or folder:DIR, to weigh channels, fine-tune and score with",
    )
    common.add_input(parser, None)
    common.add_target(parser)
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"of fine-tuning (default: {DEFAULT_EPOCHS} with --data, else 0)"
    )
    parser.add_argument("--recipe", default="quick", metavar="NAME", help="of fine-tuning (default: quick)")
    parser.add_argument("--out", metavar="DIR", default="pruned", help="where the network goes (default: pruned)")
    common.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Prune, fine-tune, certify.

    Raises: UserError for weights that do not fit and options that contradict each other; BudgetError with the lowest
    latency reached for a budget that no cut can meet.
    """
    from dataclasses import replace
    from pathlib import Path

    from nas.data import check
    from nas.latency import Meter
    from nas.prune import cut_to_budget, fine_tune
    from nas.trained import load_trained
    from nas.training import load_recipe
    from nas.winner import write_winner
    from space import parameters
    from space.latency import Budget

    budget = Budget.parse(options.budget)
    epochs = _epochs(options)
    recipe = load_recipe(options.recipe)
    trained = load_trained(options.architecture, options.weights)
    labelling = common.labelling_of(options, trained)
    dataset = common.data_of(options, trained) if options.data else None
    if dataset is not None:
        check(dataset)
    num_classes = len(labelling.classes)
    network = trained.network(num_classes)
    target, device = common.target(options), common.device(options)
    with Meter(target, labelling.size, num_classes) as meter:
        cut = cut_to_budget(network, num_classes, budget, meter, dataset, recipe)
    before, after = (parameters(each, num_classes) for each in (network.architecture, cut.architecture))
    print(f"whole   {cut.before}, {before:,} parameters")
    print(f"pruned  {cut.after}, {after:,} parameters", flush=True)
    weights = cut.weights
    if dataset is not None and epochs:
        weights = fine_tune(cut, network, dataset, replace(recipe, epochs=epochs), device=device, said=_say)
    certificate = write_winner(
        Path(options.out),
        cut.architecture,
        weights,
        labelling,
        dataset=dataset,
        target=target,
        budget=budget,
        device=device,
    )
    score = "" if certificate.miou is None else f", mIoU {100 * certificate.miou:.1f} %"
    print(f"certificate: {'PASS' if certificate.passed else 'FAIL'}  {certificate.latency} against {budget}{score}")
    print(f"compact network in {options.out}")


def _epochs(options: argparse.Namespace) -> int:
    from space.errors import UserError

    epochs: int = options.epochs if options.epochs is not None else DEFAULT_EPOCHS if options.data else 0
    if epochs < 0 or (epochs and not options.data):
        raise UserError(f"--epochs: expected 0, or more together with --data to train on; got {epochs}")
    return epochs


def _say(report: EpochReport) -> None:
    miou = 100 * report.scores.miou
    print(f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  mIoU {miou:.1f} %", flush=True)
