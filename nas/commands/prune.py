"""`nas prune`: a compact network inside a measured budget, and its certificate."""

from __future__ import annotations

import argparse

from nas.commands.common import add_input, add_target

EXAMPLES = """examples:
  nas prune erfnet --weights erfnet.safetensors --budget 6ms --data camvid:CamVid --epochs 30
  nas prune runs/night/winner --budget 6ms --epochs 0      no fine-tuning; without data, weights' magnitude decides"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas prune`."""
    parser.epilog = EXAMPLES
    parser.add_argument("architecture", metavar="ARCH", help="a published name, a YAML file or a winner's folder")
    parser.add_argument("--weights", metavar="FILE", help="its weights (safetensors); a folder brings its own")
    parser.add_argument("--budget", metavar="TIME", required=True, help="6ms, 100fps or '6ms p90'")
    parser.add_argument(
        "--data",
        metavar="SET[:ROOT]",
        help="road_scenes, camvid:DIR, cityscapes:DIR or folder:DIR, for importance, fine-tuning and scores "
        "(default: none, the weights' magnitude decides)",
    )
    add_input(parser)
    add_target(parser)
    parser.add_argument(
        "--epochs", type=int, default=None, help="of fine-tuning (default: 10 with data; without it there is none)"
    )
    parser.add_argument("--recipe", default="quick", help="a published recipe or a YAML file (default: quick)")
    parser.add_argument("--out", metavar="DIR", default="pruned", help="the compact network's folder (default: pruned)")


def run(options: argparse.Namespace) -> None:
    """Prune, fine-tune, certify.

    Raises: UserError for weights that do not fit and options that contradict each other; BudgetError with the lowest
    latency reached for a budget that no cut can meet.
    """
    from dataclasses import replace
    from pathlib import Path

    from nas.commands.common import data_spec, device, input_size, target
    from nas.data import check, load
    from nas.latency import Meter
    from nas.prune import cut_to_budget, fine_tune
    from nas.trained import load_trained
    from nas.training import load_recipe
    from nas.winner import write_winner
    from space import parameters
    from space.errors import UserError
    from space.latency import Budget

    budget = Budget.parse(options.budget)
    recipe = load_recipe(options.recipe)
    epochs = (10 if options.data else 0) if options.epochs is None else options.epochs
    if epochs < 0 or (epochs and not options.data):
        raise UserError(f"--epochs: expected 0, or more with --data to train on; got {epochs}")
    trained = load_trained(options.architecture, options.weights)
    dataset = None
    if options.data:
        dataset = load(data_spec(options))
        check(dataset)
    labelling = trained.labelling_for(dataset, input_size(options.input))
    num_classes = len(labelling.classes)
    network = trained.network(num_classes)
    place = target(options)
    with Meter(place, labelling.size, num_classes) as meter:
        cut = cut_to_budget(network, num_classes, budget, meter, dataset, recipe)
    before, after = (parameters(each, num_classes) for each in (network.architecture, cut.architecture))
    print(f"whole   {cut.before}  {before:,} parameters")
    print(f"pruned  {cut.after}  {after:,} parameters", flush=True)
    weights = cut.weights
    if epochs and dataset is not None:
        weights = fine_tune(
            cut,
            network,
            dataset,
            replace(recipe, epochs=epochs),
            device=device(),
            said=lambda report: print(
                f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  mIoU {100 * report.scores.miou:.1f} %",
                flush=True,
            ),
        )
    certificate = write_winner(
        Path(options.out), cut.architecture, weights, labelling, dataset=dataset, target=place, budget=budget
    )
    score = "" if certificate.miou is None else f"  mIoU {100 * certificate.miou:.1f} %"
    print(f"certificate: {'PASS' if certificate.passed else 'FAIL'}  {certificate.latency} against {budget}{score}")
    print(f"compact network in {options.out}")
