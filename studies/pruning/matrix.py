"""Pruning to a share of a network's own measured latency: ours beside what others do, with the same fine-tuning.

    python studies/pruning/matrix.py --camvid ~/camvid --runs runs/pruning --out studies/pruning/results.csv

trains each network on CamVid, cuts it by each method until its measured latency is inside the budget, fine-tunes,
scores and measures again. What is done already is not done again: give the command again after an interruption, or with
more networks, fractions or seeds. Leave the machine alone meanwhile. Two of these commands may run side by side, for
different networks and with a thread each (`--threads 1`): nothing is trained while one of them times a network.

Methods (all cut exactly the same groups of channels, found by `space.channels`; Torch-Pruning's own tracing loses the
image that ERFNet and FPLNet concatenate):

- ours: `nas prune`, in two cuts that are weighed apart; ours-once: in one.
- uniform, global, taylor: Torch-Pruning's recipes, with its importances (`stock.py`: group L2 norm or summed |weight x
  gradient|, each divided by the group's mean): the same share of every group; one threshold for all groups; the same
  with gradients. Counts are rounded to multiples of 4. Their share is searched until the measured latency fits.
- flops: our channel pruning with multiply-adds in place of latency, as many as bring the measured latency to fit.
- any of these with "-distilled": the whole network teaches during fine-tuning, as it does in ours.
- width: one factor on all widths, trained from scratch for as many epochs as the others get altogether.

A method other than ours that cannot reach a budget is cut as far as it goes; the row is flagged as over the budget.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from stock import group_magnitude, group_taylor
from training import CUT, DESCRIBED, TRAINED, WHOLE, Effort, Place, recipe_of

import space
from nas.data import Dataset, endless, load, make_loader
from nas.data.dataset import DataSpec
from nas.latency import Meter, parse_target
from nas.latency.budget import Budget
from nas.latency.estimates.calibration import kept_table
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine import lane
from nas.latency.protocol import WITHIN as SURE
from nas.latency.record import Latency
from nas.prune.judge import Judge
from nas.prune.plan import PruningPlan
from nas.prune.pruner import AIM, Pruner
from nas.prune.tuning import FineTuning
from nas.training import Recipe
from nas.training.batch_loop import guarded
from nas.training.loss import segmentation_loss
from nas.training.weights import load_weights, save_weights
from pruning.allocation import allocate
from pruning.damage import kept_first, observed_damage
from pruning.importance import Batch, ChannelScores, LabelledData
from pruning.importances.fisher import fisher
from pruning.surgery import Cutter
from space import Architecture, BudgetError
from space.count import graph_multiply_adds
from space.network import Network
from space.scale import scale_width

NETWORKS = ("erfnet", "fplnet", "ndnet45-ende", "swiftnet-rn18")
FRACTIONS = (0.5, 0.25, 0.75)
METHODS = ("ours", "uniform", "global", "taylor", "flops", "width")
ROUND_TO = 4  # what ONNX Runtime's fast layout asks for; coarser steps leave more of the budget unused
SCORING_BATCHES = 16
OBSERVED_IMAGES = 16
MOST_MEASUREMENTS = 12
FULL_ENOUGH = 0.97
WITHIN = 0.03  # of latencies on the way to a cut; those that are reported are as sure as any
WAITS = (0, 10, 20, 40)  # seconds before a latency is measured, and measured again while it is flagged
ESTIMATED_HALVINGS = 8
OVER = "over the budget"
COLUMNS = (
    "network", "method", "fraction", "seed", "parameters", "p50_milliseconds", "miou_before", "miou",
    "whole_milliseconds", "miou_untuned", "epochs", "blocks_gone", "flagged", "seconds",
)  # fmt: skip

Cut = tuple[Architecture, Network | None]


@dataclass(frozen=True)
class Patient:
    """Measures again, later, what was disturbed; another command may train meanwhile."""

    meter: Meter

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = SURE) -> Latency:
        """As `Meter.measure`."""
        taken: list[Latency] = []
        for wait in WAITS:
            time.sleep(wait)
            taken.append(self.meter.measure(architecture, weights=weights, within=within))
            if not taken[-1].flagged:
                break
        return min(taken, key=lambda one: (len(one.flagged), (one.ratio_high - one.ratio_low) / one.ratio))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all methods work with, for one network and seed."""

    place: Place
    meter: Patient
    table: LatencyTable | None
    recipe: Recipe
    steps: int
    network: Network
    whole_milliseconds: float

    @property
    def dataset(self) -> Dataset:
        return self.place.dataset

    @property
    def cutter(self) -> Cutter:
        return Cutter(self.network.architecture, self.dataset.num_classes)

    def batches(self, size: int) -> Iterator[Batch]:
        loader = make_loader(
            self.dataset,
            "train",
            batch_size=size,
            augmentation=None,
            seed=self.recipe.seed,
            device=self.place.device,
        )
        return endless(loader)

    @cached_property
    def estimates(self) -> Estimates:
        return Estimates(self.dataset.size, self.dataset.num_classes, self.table)

    def milliseconds(self, architecture: Architecture) -> float:
        """Measured, on the way to a cut."""
        return self.meter.measure(architecture, within=WITHIN).p50_milliseconds

    def scored_batches(self) -> Iterator[Batch]:
        """What gradients are taken on."""
        batches = itertools.islice(self.batches(self.recipe.batch_size), SCORING_BATCHES)
        return guarded(batches, lane.shared)


def fitted(bench: Bench, budget: float, cut: Callable[[float], Architecture]) -> float:
    """The smallest share of channels to remove whose measured latency is inside the budget; the fastest if none is.

    Where to measure next is estimated, and every second time the middle of what is left.
    """
    low, high, found = 0.0, 1.0, None
    measured: dict[str, float] = {}
    fastest = (math.inf, high)
    correction = 1.0
    for step in range(3 * MOST_MEASUREMENTS):
        share = (low + high) / 2 if step % 2 else estimated(bench, AIM * budget / correction, low, high, cut)
        architecture = cut(share)
        if architecture.key not in measured:
            if len(measured) == MOST_MEASUREMENTS:
                break
            measured[architecture.key] = bench.milliseconds(architecture)
        milliseconds = measured[architecture.key]
        correction = milliseconds / bench.estimates.architecture(architecture)
        fastest = min(fastest, (milliseconds, share))
        if milliseconds > budget:
            low = share
            continue
        high = found = share
        if milliseconds >= FULL_ENOUGH * budget:
            break
    return fastest[1] if found is None else found


def estimated(
    bench: Bench, milliseconds: float, low: float, high: float, cut: Callable[[float], Architecture]
) -> float:
    """The share between `low` and `high` that is estimated to take that long."""
    with lane.shared():
        for _ in range(ESTIMATED_HALVINGS):
            middle = (low + high) / 2
            if bench.estimates.architecture(cut(middle)) > milliseconds:
                low = middle
            else:
                high = middle
    return (low + high) / 2


def uniform(bench: Bench, budget: float) -> Cut:
    """The same share of every group."""
    cutter = bench.cutter
    scores = group_magnitude(cutter, bench.network)

    def keep(share: float) -> np.ndarray:
        return kept(
            cutter, scores, {name: (1 - share) * full for name, full in cutter.counts(cutter.everything).items()}
        )

    return by_share(bench, budget, cutter, keep)


def one_threshold(bench: Bench, budget: float, scores: ChannelScores) -> Cut:
    """The same threshold on scores for all groups."""
    cutter = bench.cutter
    free = np.flatnonzero([group >= 0 for group in cutter.map.group_of_channel])

    def keep(share: float) -> np.ndarray:
        threshold = np.quantile(scores[free], share)
        wanted = {name: float((scores[cutter.map.members(name)] > threshold).sum()) for name in cutter.map.names}
        return kept(cutter, scores, wanted)

    return by_share(bench, budget, cutter, keep)


def stock_scores(bench: Bench, method: str) -> ChannelScores:
    if method == "global":
        return group_magnitude(bench.cutter, bench.network)
    return group_taylor(bench.cutter, bench.network, bench.scored_batches(), segmentation_loss)


def by_share(bench: Bench, budget: float, cutter: Cutter, keep: Callable[[float], np.ndarray]) -> Cut:
    share = fitted(bench, budget, lambda share: cutter.narrowed(cutter.counts(keep(share))))
    cut = cutter.cut(bench.network, keep(share))
    return cut.architecture, cut


def kept(cutter: Cutter, scores: ChannelScores, wanted: dict[str, float]) -> np.ndarray:
    """The best of each group, as many as wanted, rounded as Torch-Pruning rounds; at least one."""
    mask = cutter.everything.copy()
    for name, count in wanted.items():
        order = kept_first(cutter, scores, name)
        multiple = ROUND_TO if len(order) > ROUND_TO else 1
        mask[order[cutter.map.whole(name, max(1, round(count / multiple) * multiple)) :]] = False
    return mask


def flops(bench: Bench, budget: float) -> Cut:
    """Channels by damage per multiply-add."""
    cutter, network = bench.cutter, bench.network
    scores = fisher(cutter, network, LabelledData(batches=bench.scored_batches(), loss=segmentation_loss))
    images = next(bench.batches(OBSERVED_IMAGES))[0]
    damage = observed_damage(cutter, network, scores, [images], guard=lane.shared)
    try:
        found = allocate(
            cutter,
            scores,
            replace(damage, blocks={}),
            estimate=lambda graph, sizes: float(graph_multiply_adds(graph, sizes, bench.dataset.size)),
            measure=bench.milliseconds,
            budget_milliseconds=budget,
        )
        keep = found.keep
    except BudgetError:
        keep = kept(cutter, scores, dict.fromkeys(cutter.map.names, 1.0))
    cut = cutter.cut(network, keep)
    return cut.architecture, cut


def width(bench: Bench, budget: float) -> Cut:
    """One factor on all widths; to be trained from scratch."""
    architecture = bench.network.architecture
    share = fitted(bench, budget, lambda share: scale_width(architecture, max(1 - share, 0.01)))
    return scale_width(architecture, max(1 - share, 0.01)), None


def cut_by(method: str, bench: Bench, budget: float, folder: Path) -> None:
    """Leave in `folder` what a method other than ours cuts to the budget, if an earlier command did not."""
    if (folder / DESCRIBED).is_file():
        return
    if method in ("global", "taylor"):
        architecture, cut = one_threshold(bench, budget, stock_scores(bench, method))
    else:
        architecture, cut = {"uniform": uniform, "flops": flops, "width": width}[method](bench, budget)
    folder.mkdir(parents=True, exist_ok=True)
    if cut is not None:
        save_weights(folder / CUT, cut.state_dict(), {"architecture": architecture.key})
    (folder / DESCRIBED).write_text(architecture.to_yaml())


def ours(bench: Bench, budget: float, folder: Path, steps: int) -> tuple[Network, int]:
    """As `nas prune` does it; the network, and how many blocks went."""
    dataset, place = bench.dataset, bench.place
    pruner = Pruner(
        judge=Judge(bench.meter, dataset.size, dataset.num_classes, table=bench.table, within=WITHIN),
        budget=Budget(milliseconds=budget),
        plan=PruningPlan(epochs=place.effort.epochs, steps=steps),
        tuning=FineTuning(dataset=dataset, recipe=place.effort.tuning(bench.recipe), device=place.device),
        said=lambda words: print(f"    {words}", flush=True),
    )
    pruned = pruner.prune(bench.network)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIBED).write_text(pruned.network.architecture.to_yaml())
    return pruned.network, pruned.blocks_gone


def untuned_miou(bench: Bench, folder: Path) -> float:
    """Of a cut before its fine-tuning; nan for what is trained from scratch."""
    if not (folder / CUT).is_file():
        return math.nan
    cut = space.load(folder / DESCRIBED).build(bench.dataset.num_classes).eval()
    cut.load_state_dict(load_weights(folder / CUT))
    return bench.place.miou(cut)


def row(bench: Bench, method: str, fraction: float, folder: Path, *, cut_only: bool) -> dict[str, object] | None:
    """Cut, fine-tune, score and measure; nothing when what is cut is to be trained by another command."""
    budget, blocks = fraction * bench.whole_milliseconds, 0
    method, _, variant = method.partition("-")
    if method == "ours":
        tuned, blocks = ours(bench, budget, folder, 1 if variant == "once" else bench.steps)
        untuned = math.nan
    else:
        cut_by(method, bench, AIM * budget, folder)
        if cut_only and not (folder / TRAINED).is_file():
            return None
        untuned = untuned_miou(bench, folder)
        tuned = bench.place.cut(bench.recipe, folder)
    latency = bench.meter.measure(tuned.architecture)
    over = [OVER] if latency.p50_milliseconds > (1 + SURE) * budget else []
    return {
        "parameters": space.parameters(tuned.architecture, bench.dataset.num_classes),
        "p50_milliseconds": f"{latency.p50_milliseconds:.4f}",
        "miou": f"{bench.place.miou(tuned):.4f}",
        "miou_untuned": f"{untuned:.4f}",
        "blocks_gone": blocks,
        "flagged": "; ".join([*over, *latency.flagged]),
    }


def append(file: Path, found: dict[str, object]) -> None:
    """One more row; another command may be adding its own."""
    with file.open("a", newline="") as table:
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        if not table.tell():
            writer.writeheader()
        writer.writerow(found)


def main() -> None:
    """Fill in what is missing of the matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--fractions", nargs="+", type=float, default=FRACTIONS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,))
    parser.add_argument("--base-epochs", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning")
    parser.add_argument("--rate", type=float, default=1.0, help="of fine-tuning, times the recipe's")
    parser.add_argument("--steps", type=int, default=2, help="of ours, on the way to the budget")
    parser.add_argument("--size", nargs=2, type=int, default=(120, 160))
    parser.add_argument("--target", default="onnxruntime@cpu:1")
    parser.add_argument("--device", default="cpu", help="that trains")
    parser.add_argument("--threads", type=int, default=2, help="of training")
    parser.add_argument("--cut-only", action="store_true", help="leave the training of others' cuts to training.py")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    place = Place(
        dataset=load(DataSpec(name="camvid", root=options.camvid, size=tuple(options.size))),
        effort=Effort(base_epochs=options.base_epochs, epochs=options.epochs, rate=options.rate),
        device=options.device,
    )
    rows = list(csv.DictReader(options.out.open())) if options.out.is_file() else []
    done = {(each["network"], each["method"], float(each["fraction"]), int(each["seed"])) for each in rows}
    for name, seed in itertools.product(options.networks, options.seeds):
        recipe, folder = recipe_of(seed), options.runs / f"{name}-{seed}"
        print(f"{name}, seed {seed}", flush=True)
        network = place.whole(name, recipe, folder / WHOLE).to(place.device)
        before = place.miou(network)
        with Meter(parse_target(options.target), place.dataset.size, place.dataset.num_classes) as own:
            meter = Patient(own)
            print(f"  whole: mIoU {100 * before:.1f} %", flush=True)
            for fraction, method in itertools.product(options.fractions, options.methods):
                if (name, method, fraction, seed) in done:
                    continue
                # For each row anew: what a small network takes beside the reference drifts by more than methods differ.
                whole = meter.measure(network.architecture).p50_milliseconds
                print(f"  {fraction:.0%} of {whole:.2f} ms by {method}", flush=True)
                bench = Bench(
                    place=place,
                    meter=meter,
                    table=kept_table(own),
                    recipe=recipe,
                    steps=options.steps,
                    network=network,
                    whole_milliseconds=whole,
                )
                begun = time.monotonic()
                found: dict[str, object] = dict.fromkeys(COLUMNS, "")
                try:
                    measured = row(bench, method, fraction, folder / f"{fraction}-{method}", cut_only=options.cut_only)
                    if measured is None:
                        continue
                    found |= measured
                except BudgetError as error:
                    found["flagged"] = f"not reached: {error}"
                found |= {"network": name, "method": method, "fraction": fraction, "seed": seed}
                found |= {"miou_before": f"{before:.4f}", "whole_milliseconds": f"{whole:.4f}"}
                found |= {"epochs": options.epochs, "seconds": f"{time.monotonic() - begun:.0f}"}
                print(f"    {found['p50_milliseconds']} ms, mIoU {found['miou']} {found['flagged']}", flush=True)
                append(options.out, found)


if __name__ == "__main__":
    main()
