"""Should the candidates of a search begin with weights of networks that it has trained already?

    python studies/search/inherited.py --data camvid:~/camvid --run RUN [--candidates 16] [--longer 4] \
        [--processes 2] [--minutes 12]

trains guided candidates of a finished search on CPUs again, in the order of their proposal: by its recipe, seed and
learning rate schedules, but beginning with inherited weights (`inheritance.py`). All are trained to the search's first
rung; the best of those that the search has trained whole go on to the end, as in a search. A row of
`inherited_in_a_search.csv` is a candidate at one length; what it holds is not trained again, and what was interrupted
goes on from its last epoch. Scores with fresh weights are those of the search, and cost nothing.

The parent is the nearest network, by the number of answers that differ, of those that the search had trained whole and
knew the scores of when it proposed the candidate; of several the best.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from inheritance import inherited

from nas.commands.shared.common import data_spec
from nas.data import load
from nas.latency.machine import lane
from nas.runs.epochs import commit_epoch, go_on
from nas.runs.folder import Order, RunFolder
from nas.runs.labelling import WEIGHTS
from nas.runs.steps import before, rungs_for
from nas.runs.trial import Trial
from nas.surrogate.agreement import kendall_tau
from nas.training.trainer import Trainer
from nas.training.weights import load_into, load_weights

TABLE = Path(__file__).parent / "inherited_in_a_search.csv"
HEADER = (
    *("run", "candidate", "epochs", "parent", "answers_that_differ", "share_of_weights"),
    *("parent_miou", "miou_fresh", "miou_inherited"),
)


@dataclass(frozen=True, kw_only=True)
class Heir:
    """A candidate of a search, and the network that it inherits from."""

    candidate: Trial
    parent: Trial
    differ: int
    """Number of answers in which the two differ."""
    fresh: Mapping[int, float]
    """By the last epoch of each of its schedules: mIoU (0..1) in the search."""

    @property
    def key(self) -> str:
        """The key of the candidate."""
        return self.candidate.architecture.key


def main() -> None:
    """Train what is missing, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--run", type=Path, required=True, help="a finished search; nothing is written there")
    parser.add_argument("--epochs", type=int, nargs="+", help="lengths, if others than the rungs of the search")
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--longer", type=int, default=4, help="candidates that go on after the first length")
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after so many")
    parser.add_argument("--work", type=Path, default=Path("runs/inherited"), help="where checkpoints are kept")
    parser.add_argument("--out", type=Path, default=TABLE)
    asked = parser.parse_args()
    end = time.time() + 60 * asked.minutes
    run = RunFolder.open(asked.run.resolve())
    study = run.study()
    if study.recipe.init is not None or study.recipe.encoder is not None:
        parser.error("--run: expected one whose trainings begin with a whole network at random")
    lengths = tuple(asked.epochs or rungs_for(study.search, study.recipe.epochs))
    heirs = heirs_of(run)[: asked.candidates]
    if not asked.out.is_file():
        asked.out.write_text(",".join(HEADER) + "\n", "utf-8")
    with ProcessPoolExecutor(asked.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        train(pool, heirs, lengths[:1], end, asked)
        for count in range(2, len(lengths) + 1):
            longest = trained_whole(heirs, lengths, scores_in(asked))
            train(pool, longest[: asked.longer], lengths[:count], end, asked)
    report(heirs, lengths, scores_in(asked))


def heirs_of(run: RunFolder) -> list[Heir]:
    """The guided candidates for a search's largest budget that had something to inherit, in their order."""
    study, trials, order = run.study(), run.trials(), run.order() or Order(ahead=0)
    within, whole = study.architectures(), study.recipe.epochs
    progress = {trial.number: run.progress(trial, "search") for trial in trials}
    answers = {trial.number: trial.answers_in(within) or {} for trial in trials}
    found = []
    for trial in trials:
        # What is inherited is folded, and an heir with parallel paths would be trained without them.
        if trial.origin != "guided" or not trial.is_for(study.asked.largest) or trial.architecture.is_reparameterized:
            continue
        known = [step.trial for step in before(trials, trial.number, order.ahead) if step.until(whole) == whole]
        mine, curve = answers[trial.number], progress[trial.number].history
        parents = [
            (sum(mine.get(name) != theirs.get(name) for name in mine.keys() | theirs.keys()), -miou, each.number, each)
            for each in known
            if (theirs := answers[each.number]) and progress[each.number].done and (miou := progress[each.number].miou)
        ]
        if mine and parents:
            differ, _, _, parent = min(parents)
            ends = [rung.epochs for rung in trial.rungs] or [whole]
            scored = {each.epoch: each.miou for each in curve if each.miou is not None}
            fresh = {end: scored[end] for end in ends if end in scored}
            found.append(Heir(candidate=trial, parent=parent, differ=differ, fresh=fresh))
    return found


def trained_whole(heirs: Sequence[Heir], lengths: Sequence[int], scores: Mapping[tuple[str, int], float]) -> list[Heir]:
    """Those that the search has trained to all lengths, the best after the first with inherited weights first."""
    both = [heir for heir in heirs if heir.fresh.keys() >= {*lengths} and (heir.key, lengths[0]) in scores]
    return sorted(both, key=lambda heir: -scores[heir.key, lengths[0]])


def train(pool: Executor, heirs: Sequence[Heir], lengths: Sequence[int], end: float, asked: argparse.Namespace) -> None:
    """Train heirs to the last of these lengths unless the table holds that: a row for each as it ends."""
    known = scores_in(asked)
    missing = [heir for heir in heirs if (heir.key, lengths[-1]) not in known]
    for done in as_completed([pool.submit(trained, heir, lengths, end, asked) for heir in missing]):
        if (row := done.result()) is not None:
            with asked.out.open("a", newline="", encoding="utf-8") as opened:
                csv.writer(opened, lineterminator="\n").writerow(row)
            print(*row, flush=True)


def trained(heir: Heir, lengths: Sequence[int], end: float, asked: argparse.Namespace) -> tuple[object, ...] | None:
    """Train an heir, or go on with it, as the search trains candidates; its row, or None where the time is over."""
    if time.time() >= end:
        return None
    run, architecture = RunFolder.open(asked.run.resolve()), heir.candidate.architecture
    study, order = run.study(), run.order() or Order(ahead=0)
    dataset = load(data_spec(asked.data, study.data.size))
    parent = heir.parent.architecture.build(dataset.num_classes)
    load_into(parent, load_weights(run.phase_path(heir.parent, "search") / WEIGHTS), heir.parent.name)
    torch.manual_seed(study.recipe.seed)  # for what is not inherited
    weights, share = inherited(architecture, parent.eval(), dataset.num_classes)

    def begun() -> Trainer:
        return Trainer(
            architecture,
            dataset,
            study.recipe,
            threads=order.threads or 1,
            weights=weights,
            rungs=lengths,
            guard=lane.shared,
        )

    folder = asked.work / run.root.name / f"{heir.key}-{heir.parent.architecture.key}-{lengths[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    trainer = go_on(begun, folder)
    while not trainer.finished:
        trainer.run_epoch()
        commit_epoch(folder, trainer)
    scores = (run.progress(heir.parent, "search").miou, heir.fresh.get(lengths[-1]), trainer.history[-1].miou)
    told = ("" if each is None else f"{each:.4f}" for each in (share, *scores))
    return (run.root.name, heir.key, lengths[-1], heir.parent.architecture.key, heir.differ, *told)


def scores_in(asked: argparse.Namespace) -> dict[tuple[str, int], float]:
    """What the table holds of the run: mIoU (0..1) with inherited weights, by candidate and epochs."""
    with asked.out.open(newline="", encoding="utf-8") as opened:
        rows = [row for row in csv.DictReader(opened) if row["run"] == asked.run.resolve().name]
    return {(row["candidate"], int(row["epochs"])): float(row["miou_inherited"]) for row in rows}


def report(heirs: Sequence[Heir], lengths: Sequence[int], scores: Mapping[tuple[str, int], float]) -> None:
    """Print what inheriting gains at each length, how short trainings rank, and how far inheriting shortens them."""
    short, whole = lengths[0], lengths[-1]
    for length in lengths:
        pairs = [(scores.get((heir.key, length)), heir.fresh.get(length)) for heir in heirs]
        print(f"after {length} epochs, inherited and fresh: {difference(pairs)}")
    both = trained_whole(heirs, lengths, scores)
    ends = [heir.fresh[whole] for heir in both]
    firsts = {"fresh": [heir.fresh[short] for heir in both], "inherited": [scores[heir.key, short] for heir in both]}
    for name, first in firsts.items():
        tau = kendall_tau(list(zip(first, ends, strict=True)))
        told = "unknown" if tau is None else f"{tau:.2f}"
        print(f"Kendall's tau of {name} after {short} and fresh after {whole} epochs: {told}, {len(both)} candidates")
    for length in lengths:
        reached = [scores.get((heir.key, length)) for heir in both]
        print(
            f"inherited after {length} epochs and fresh after {whole}, at {length / whole:.0%} of the cost: "
            f"{difference(list(zip(reached, ends, strict=True)))}"
        )


def difference(pairs: Sequence[tuple[float | None, float | None]]) -> str:
    """The mean difference of pairs of scores, with its 95 % interval, and how many first ones are ahead."""
    known = [100 * (first - second) for first, second in pairs if first is not None and second is not None]
    if len(known) < 2:
        return f"{len(known)} candidates, too few"
    half = 1.96 * statistics.stdev(known) / len(known) ** 0.5
    ahead = sum(each >= 0 for each in known)
    return f"{statistics.mean(known):+.1f} ± {half:.1f} points, not behind in {ahead} of {len(known)}"


if __name__ == "__main__":
    main()
