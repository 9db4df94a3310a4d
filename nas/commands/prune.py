"""`nas prune`: prune a network into a measured budget, and certify it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nas.commands.shared import common, ending, output, trained_on
from nas.host.words import counted
from pruning import importances

if TYPE_CHECKING:
    from functools import partial
    from pathlib import Path

    from nas.data import Dataset
    from nas.latency import Meter
    from nas.latency.budget import Budget, Verdict
    from nas.latency.estimates.table import LatencyTable
    from nas.latency.record import Latency
    from nas.prune.plan import PruningPlan
    from nas.prune.pruner import Pruned
    from nas.runs.certificate import Certificate
    from nas.runs.data_seen import DataSeen
    from nas.runs.labelling import Labelling
    from nas.runs.winner import Certification
    from nas.training import Recipe
    from space.network import Network

DEFAULT_EPOCHS = 10
EPILOG = """\
examples:
  nas prune erfnet --weights runs/erfnet/weights.safetensors --data camvid:~/camvid --budget 6ms --epochs 30
  nas prune runs/night --budget 6ms     no data: no fine-tuning, and the weights' magnitude decides what is cut"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    common.add_trained(parser)
    parser.add_argument("--budget", metavar="TIME", required=True, help="6ms, 100fps or '6ms p90'")
    parser.add_argument(
        "--data",
        metavar="SET[:ROOT]",
        help="data to rank channels, fine-tune and score with: road_scenes, camvid:DIR, cityscapes:DIR or folder:DIR",
    )
    common.add_input(parser, None)
    common.add_target(parser)
    common.add_within(parser)
    common.add_patience(parser)
    parser.add_argument(
        "--epochs",
        type=common.whole_number,
        metavar="N",
        help=f"epochs of fine-tuning (default: {DEFAULT_EPOCHS} with --data, else 0)",
    )
    parser.add_argument(
        "--recipe",
        default="quick",
        metavar="NAME",
        type=common.path,
        help="recipe of fine-tuning, a name or a YAML file (default: quick)",
    )
    parser.add_argument(
        "--importance",
        choices=tuple(importances.kinds()),
        help="criterion that ranks the channels of a group (default: fisher with --data, else magnitude)",
    )
    parser.add_argument(
        "--steps",
        type=common.whole_number,
        default=2,
        metavar="N",
        help="number of cuts on the way to the budget, each followed by fine-tuning (default: 2)",
    )
    parser.add_argument("--channels-only", dest="depth", action="store_false", help="keep every block")
    parser.add_argument(
        "--out", metavar="DIR", type=common.path, default="pruned", help="folder for the network (default: pruned)"
    )
    common.add_device(parser)


def run(options: argparse.Namespace) -> Verdict | None:
    """Prune, fine-tune and certify, and cut further if the certificate finds the network over the budget. Returns the
    verdict of the last certificate.

    Raises: UserError for weights that do not fit, options that contradict each other, and a folder that is in use or
    holds other files; BudgetError with the lowest latency reached for a budget that no cut can meet.
    """
    from functools import partial
    from pathlib import Path

    from nas.latency import Meter
    from nas.latency.budget import Budget
    from nas.prune.plan import PruningPlan
    from nas.runs.certificate import read_certificate
    from nas.terminal import answering
    from nas.training import load_recipe

    budget, within, out = Budget.parse(options.budget), common.within(options), Path(options.out)
    meter_of = partial(Meter, patience_seconds=common.patience(options))
    plan = PruningPlan(epochs=_epochs(options), steps=options.steps, importance=options.importance, depth=options.depth)
    recipe = load_recipe(options.recipe)
    lost = ending.begins_anew("what was cut, trained and timed")
    with ending.told(lambda: lost), output.owned_folder(out):
        common.say(f"pruning {options.architecture} to {budget}")
        network, pruned = _pruned(options, out, budget, plan, recipe, within=within, meter_of=meter_of)
    certificate = read_certificate(out)
    with answering():
        _print_result(out, network, pruned, certificate)
    return certificate.verdict


def _pruned(
    options: argparse.Namespace,
    out: Path,
    budget: Budget,
    plan: PruningPlan,
    recipe: Recipe,
    *,
    within: float,
    meter_of: partial[Meter],
) -> tuple[Network, Pruned]:
    """The whole network, and the pruned one that was written to `out`."""
    from contextlib import nullcontext
    from functools import partial

    from nas.host.memory import require_inference
    from nas.latency.careful import time_one
    from nas.latency.runtimes import require_one
    from nas.prune.judge import Judge
    from nas.prune.pruner import Pruner
    from nas.prune.recovery import recover
    from nas.prune.tuning import FineTuning
    from nas.quantization.shipping import require_data_for
    from nas.runs.data_seen import seen_by
    from nas.runs.events import event_files, one_after_another
    from nas.runs.labelling import Labelling
    from nas.runs.trained import load_trained
    from nas.runs.winner import Certification
    from nas.terminal import ProgressLine

    trained = load_trained(options.architecture, options.weights)
    output.require_other_folder(out, options.architecture, trained.weights)
    # A pruned network has a key of its own, which does not tell whether the one in `out` was cut from this network.
    output.say_replaced(out)
    if options.target:
        require_one((common.target(options),))
    dataset, seen = None, None
    if options.data:
        dataset, spec = trained_on.data_of(options, trained)
        findings = common.looked_at(dataset)
        common.say_notes(findings)
        seen = seen_by(out, spec, findings.fingerprint)
        if recipe.probe:
            common.say(
                "note: `probe` is for nas train and nas search; here the usual precision and memory layout are used"
            )
    labelling = trained_on.labelling_of(options, trained) if dataset is None else Labelling.of(dataset)
    num_classes = len(labelling.classes)
    target, device = common.target(options), common.device(options)
    require_data_for(target, dataset)
    require_inference(trained.architecture, labelling.size, num_classes, device=device)
    tuning = None if dataset is None else FineTuning(dataset=dataset, recipe=recipe, device=device)
    progress = ProgressLine()
    network = trained.network(num_classes)
    height, width = labelling.size
    common.say(f"timing on {target} at {height}x{width}")
    with event_files(out, 0) as tell, meter_of(target, labelling.size, num_classes) as meter:
        certification = Certification(
            target=target,
            budget=budget,
            device=device,
            within=within,
            # On a CPU each candidate has a process of its own anyway; starting another meter would take seconds.
            meter_of=meter_of if target.on_cuda else lambda *asked: nullcontext(meter),
            progress=progress,
        )
        certify = partial(_certified, out, labelling, dataset, seen, certification)
        whole = time_one(meter, trained.architecture, within=within)
        judge = Judge(meter, labelling.size, num_classes, table=_table(meter, whole), within=within)
        judge.correct(trained.architecture, whole)
        pruner = Pruner(
            judge=judge,
            budget=budget,
            plan=plan,
            tuning=tuning,
            recover=partial(recover, tell=one_after_another(tell)),
            said=common.say,
            progress=progress,
        )
        pruned = pruner.finish(pruner.prune(network), network, certify)
    return network, pruned


def _table(meter: Meter, whole: Latency) -> LatencyTable | None:
    """The device's own latency table; else the one that comes with the package, scaled by the reference network's
    latency beside the `whole` network.
    """
    from nas.latency.estimates.calibration import kept_table, words_of_host
    from nas.latency.estimates.shipped import table_instead

    if (kept := kept_table(meter)) is not None:
        if words := words_of_host(kept, meter.environment):
            common.say(f"note: {words}")
        return kept
    table, words = table_instead((meter.target,), meter.size, whole.reference_milliseconds)
    if words:
        common.say(words)
    return table


def _certified(
    out: Path,
    labelling: Labelling,
    dataset: Dataset | None,
    seen: DataSeen | None,
    certification: Certification,
    network: Network,
) -> Latency:
    """Write a network to `out` with its certificate; the certified latency."""
    from nas.quantization.shipping import deployed_on, warning_of
    from nas.runs.winner import Finished, write_winner

    target = certification.target
    if words := warning_of(target, network):
        common.say(words)
    if target.precision != "fp32" and dataset is not None:
        images = counted(len(dataset.validation), "validation image")
        common.say(f"scoring {images} as {target} runs it, then certifying")
    progress = certification.progress
    with progress.over("scored", 0 if dataset is None else len(dataset.validation)):
        deployed = deployed_on(target, network, dataset, progress.count)
    finished = Finished(
        architecture=network.architecture,
        weights=network.state_dict(),
        labelling=labelling,
        dataset=dataset,
        deployed=deployed,
        seen=seen,
    )
    return write_winner(out, finished, certification).latency


def _print_result(out: Path, network: Network, pruned: Pruned, certificate: Certificate) -> None:
    """Print both networks and the certificate."""
    from space import parameters

    for word, printed, latency in (
        ("whole", network, pruned.before),
        ("pruned", pruned.network, pruned.after),
    ):
        print(f"{word:7} {latency}, {parameters(printed.architecture, network.num_classes):,} parameters")
    if pruned.blocks_gone:
        print(f"removed {pruned.blocks_gone} of {pruned.blocks} removable residual blocks")
    score = "" if certificate.miou is None else f", mIoU {100 * certificate.miou:.1f} %"
    output.say_certificate(certificate, out, score)
    print(f"compact network in {out}")


def _epochs(options: argparse.Namespace) -> int:
    from space.errors import UserError

    if options.importance and importances.kind(options.importance).needs_data and not options.data:
        raise UserError(
            f"--importance {options.importance}: expected --data to compute gradients on, got none; "
            f"give --data, or choose {' or '.join(importances.without_data())}"
        )
    epochs: int = options.epochs if options.epochs is not None else DEFAULT_EPOCHS if options.data else 0
    if epochs < 0 or (epochs and not options.data):
        raise UserError(f"--epochs: expected 0, or more together with --data to train on; got {epochs}")
    return epochs
