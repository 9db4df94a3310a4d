"""Is a candidate worth more when it begins with the weights of a trained one that it was made from?

    python studies/search/inherited.py --data camvid:~/camvid --children 2 --out inherited.csv

trains parents (published networks, as the space has them, at the same multiply-adds) on 120x160 by the recipe `quick`,
and children of each, made by another answer to one question of the space and brought to the same multiply-adds again:
from the start, and from what they share with their parent. Both ways have the same steps on the same images. A row of
the CSV file is a child at one length; what it holds already is not trained again.

A child takes a layer that its parent has under the same name, of the same kind, kernel and groups. Where widths differ
it has the channels of a group that matter most to the parent, by magnitude; channels that the parent has not begin at
random, and nothing inherited reads them at first.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import space
from nas.commands.shared.common import data_spec
from nas.data import Dataset, load
from nas.latency.machine import lane
from nas.training import load_recipe
from nas.training.trainer import Trainer
from pruning.importances import BY_WEIGHTS, kind
from pruning.surgery import Cutter
from space import Architecture, Space
from space.axes import searched
from space.channels import FIXED, parametric
from space.choices import Choice, Genotype
from space.graph import Node
from space.network import Network
from space.scale import scale_width

SIZE = (120, 160)
MULTIPLY_ADDS = 80_000_000
PARENTS = ("ndnet45-ende", "swiftnet-rn18", "erfnet", "fplnet")
PARENT_EPOCHS = 4
LENGTHS = (1, 4)  # epochs of a child, each with a schedule of its own
HEADER = ("parent", "child", "question", "parent_miou", "shared", "epochs", "miou_fresh", "miou_inherited")


def inherited(child: Architecture, network: Network, num_classes: int) -> tuple[dict[str, Tensor], float]:
    """Weights for a child to begin with, those that it shares with a trained network and others at random; the share of
    its weights that are shared.
    """
    cutter, own = Cutter(network.architecture, num_classes), Cutter(child, num_classes)
    importance = kind(BY_WEIGHTS).scores(cutter, network)
    channel_of = np.full(len(own.everything), -1, dtype=np.int64)  # of the parent, for each of the child's
    for name in set(own.map.names) & set(cutter.map.names):
        ours, theirs = own.map.members(name), cutter.map.members(name)
        best = np.sort(theirs[np.argsort(-importance[theirs], kind="stable")][: len(ours)])
        channel_of[ours[: len(best)]] = best
    nodes = {node.name or node.kind: node for node in cutter.graph.nodes}
    for node in own.graph.nodes:
        twin = nodes.get(node.name or node.kind)
        if twin is not None and len(twin.channels) == len(node.channels):
            both = (own.map.channels(node), cutter.map.channels(twin))
            fixed = (own.map.group_of_channel[both[0]] == FIXED) & (cutter.map.group_of_channel[both[1]] == FIXED)
            channel_of[both[0][fixed]] = both[1][fixed]
    result, taken = child.build(num_classes), 0
    with torch.no_grad():
        for node in parametric(own.graph):
            twin = nodes.get(node.name)
            if twin is None or _shape(twin) != _shape(node):
                continue
            out = _places(channel_of[own.positions(node)], cutter.positions(twin))
            read = _places(channel_of[own.read_positions(node)], cutter.read_positions(twin))
            theirs_of = network.layer(node.name).state_dict()
            for key, tensor in result.layer(node.name).state_dict().items():
                taken += _take(tensor, theirs_of[key], node, out, read)
    state = result.state_dict()
    return state, taken / sum(tensor.numel() for tensor in state.values())


def _shape(node: Node) -> tuple[object, ...]:
    """What layers have in common that can share weights, whatever their widths."""
    return node.kind, node.kernel, node.group_width, node.bias, node.stride


def _places(wanted: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the parent's layer has each of these channels, -1 where it has not; one that a concatenation repeats is
    found as often.
    """
    places: dict[int, list[int]] = {}
    for index, channel in enumerate(there):
        places.setdefault(int(channel), []).append(index)
    found = []
    for channel in wanted:
        left = places.get(int(channel), [])
        found.append(left.pop(0) if left else -1)
    return np.array(found)


def _take(tensor: Tensor, theirs: Tensor, node: Node, out: NDArray[np.int64], read: NDArray[np.int64]) -> int:
    """Copy what is shared of a layer's tensor into it; how many numbers those are."""
    if tensor.dim() == 0:
        return 0
    ours, there = np.flatnonzero(out >= 0), out[out >= 0]
    if tensor.dim() == 1 or node.group_width:
        tensor[ours] = theirs[there]
        return int(tensor[ours].numel())
    known, source = np.flatnonzero(read >= 0), read[read >= 0]
    if node.kind == "deconv":
        tensor, theirs = tensor.transpose(0, 1), theirs.transpose(0, 1)
    rows = torch.zeros_like(tensor[ours])
    rows[:, known] = theirs[there][:, source]
    tensor[ours] = rows
    return int(rows[:, known].numel())


def filled(architecture: Architecture, num_classes: int) -> Architecture:
    """The architecture at the width that comes closest to the multiply-adds from below."""
    low, high = 0.03, 4.0
    for _ in range(12):
        middle = (low * high) ** 0.5
        fits = space.multiply_adds(scale_width(architecture, middle), SIZE, num_classes) <= MULTIPLY_ADDS
        low, high = (middle, high) if fits else (low, middle)
    return scale_width(architecture, low)


def answered(within: Space, answers: Genotype) -> Architecture:
    """The architecture that answers lead to."""
    return within.choose(lambda question, options: answers[question])


def mutated(within: Space, answers: Genotype, rng: random.Random) -> tuple[Architecture, str]:
    """The architecture with another answer to one question, and which; others stay as far as they are offered."""
    changed = rng.choice([name for name in answers if "width" not in name])

    def ask(name: str, options: Sequence[Choice]) -> Choice:
        others = [option for option in options if option != answers.get(name)]
        if name == changed and others:
            return rng.choice(others)
        return answers[name] if answers.get(name) in options else rng.choice(list(options))

    return within.choose(ask), changed


def trained(architecture: Architecture, dataset: Dataset, epochs: int, weights: dict[str, Tensor] | None) -> Trainer:
    """Train to the end of a schedule of so many epochs."""
    recipe = replace(load_recipe("quick"), epochs=epochs)
    trainer = Trainer(architecture, dataset, recipe, threads=1, weights=weights, guard=lane.shared)
    while not trainer.finished:
        trainer.run_epoch()
    return trainer


def main() -> None:
    """Train what is missing, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--parents", nargs="+", choices=PARENTS, default=PARENTS, metavar="PARENT")
    parser.add_argument("--children", type=int, default=2, help="of each parent")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "inherited.csv")
    options = parser.parse_args()
    dataset = load(data_spec(options.data, SIZE))
    within = Space(ranges=searched(), size=SIZE)
    if not options.out.is_file():
        options.out.write_text(",".join(HEADER) + "\n", "utf-8")
    for name in options.parents:
        compare(options.out, name, options.children, within, dataset)
    report(rows(options.out))


def compare(file: Path, name: str, children: int, within: Space, dataset: Dataset) -> None:
    """Train the children of a parent both ways that the file does not hold yet, and add their rows."""
    answers = within.closest_genotype(space.load(name))
    if answers is None:
        sys.exit(f"{name}: nothing that is searched is close to it; name another parent")
    parent = filled(answered(within, answers), dataset.num_classes)
    before: Trainer | None = None
    for number in range(children):
        child, question = mutated(within, answers, random.Random(f"{name} {number}"))
        child = filled(child, dataset.num_classes)
        known = {(row["parent"], row["child"], int(row["epochs"])) for row in rows(file)}
        lengths = [epochs for epochs in LENGTHS if (name, child.key, epochs) not in known]
        if child.key == parent.key or not lengths:
            continue
        before = before or trained(parent, dataset, PARENT_EPOCHS, None)
        network = parent.build(dataset.num_classes)
        network.load_state_dict(before.weights())
        weights, shared = inherited(child, network.eval(), dataset.num_classes)
        for epochs in lengths:
            told = [before.history[-1].scores.miou, shared]
            told += [trained(child, dataset, epochs, each).history[-1].scores.miou for each in (None, weights)]
            parents, share, fresh, begun = (f"{each:.4f}" for each in told)
            row = (name, child.key, question, parents, share, epochs, fresh, begun)
            with file.open("a", newline="", encoding="utf-8") as opened:
                csv.writer(opened, lineterminator="\n").writerow(row)
            print(*row, flush=True)


def rows(file: Path) -> list[dict[str, str]]:
    """What was found so far."""
    with file.open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def report(found: Sequence[dict[str, str]]) -> None:
    """Print the mean difference at each length, with its 95 % interval over children."""
    for epochs in LENGTHS:
        gains = [
            100 * (float(row["miou_inherited"]) - float(row["miou_fresh"]))
            for row in found
            if int(row["epochs"]) == epochs
        ]
        if len(gains) > 1:
            half = 1.96 * statistics.stdev(gains) / len(gains) ** 0.5
            print(f"{epochs} epochs, {len(gains)} children: {statistics.mean(gains):+.1f} points, +-{half:.1f}")


if __name__ == "__main__":
    main()
