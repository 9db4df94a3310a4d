"""Searches on CamVid that have the same time: ours, a random one, and Optuna's TPE under Ray's ASHA.

    python studies/camvid/searches/searches.py --data camvid:~/camvid --work runs/searches \
        --method ours --budget 2.5 --seed 0 [--minutes 45] [--epochs 8] [--recipe finals]

searches at 180x240 for one thread of ONNX Runtime in the time that is given, on a machine that does nothing else, and
keeps in `found/` beside this file, for each budget, the two networks that scored best, of those that trained longest
inside it; a row for each goes into `found.csv`. The budgets are 2.5 and 7.5 ms, a factor of three apart, on a machine
on which NDNet45-ende takes 4.3 ms and Fast-SCNN 4.1. README.md says how what was found is trained to the end, timed and
compared with the published networks.

Candidates are trained by the recipe of the published networks and of the finish, on windows of 144x192 with hard
examples mined, or with `--recipe small` on windows of 120x160 without; the names of what was found then begin with
`small-`.

`ours` is `nas search --minutes` as it comes, without its warm start, which was trained on CamVid; `warm` has it;
`random` is the same with draws alone. With several budgets, `--method together --budget 2.5 7.5`, one search answers
both. All of these solve the width that fills the budget by measuring. `tpe-asha` is
what people wire themselves: Ray Tune asks Optuna's TPE for the answers to the same questions, at the width that the
latency table of the package says fills the budget, told what the reference network takes here; ASHA stops trainings of
the same recipe within their schedule.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import space
from nas.commands.shared.common import data_spec
from nas.data import DataSpec, load
from nas.latency.estimates.shipped import shipped_table
from nas.latency.machine import lane
from nas.latency.meter import Meter
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.target import Target
from nas.runs.folder import RunFolder
from nas.storage.files import write_text
from nas.study import SearchPlan, Study
from nas.training import Recipe, load_recipe
from nas.training.trainer import Trainer
from space import Architecture, Space
from space.axes import searched
from space.choices import Choice
from space.scale import NARROWEST, bisected, scale_width

HERE = Path(__file__).parent
FOUND, TABLE = HERE / "found", HERE / "found.csv"
TARGET, SIZE, CLASSES = "onnxruntime@cpu:1", (180, 240), 11
RECIPES = {
    "finals": load_recipe(HERE.parent / "rivals" / "recipe.yaml"),
    "small": replace(load_recipe("quick"), crop=(120, 160)),
}
KEPT = 2  # networks of each search
ENDLESS = 1000  # trials: the time ends a search
REFERENCE = "ndnet45-ende"  # what is timed to learn what the reference network takes
WIDEST = 16.0
NAMES = {"ours": "surrogate", "together": "surrogate", "warm": "surrogate", "random": "random"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A network that a search has trained."""

    architecture: Architecture
    name: str
    milliseconds: float
    epochs: int
    miou: float


def main() -> None:
    """Search once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="camvid:DIR")
    parser.add_argument("--work", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--method", choices=[*NAMES, "tpe-asha"], required=True)
    parser.add_argument("--budget", type=float, nargs="+", required=True, help="milliseconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--epochs", type=int, default=8, help="of a whole training; short ones have a quarter")
    parser.add_argument("--recipe", choices=RECIPES, default="finals")
    asked = parser.parse_args()
    if asked.method == "tpe-asha" and len(asked.budget) > 1:
        parser.error("tpe-asha: expected one --budget")
    data = data_spec(asked.data, SIZE)
    method = asked.method if asked.recipe == "finals" else f"{asked.recipe}-{asked.method}"
    words = [method, *(f"{each:g}ms" for each in asked.budget), f"{asked.epochs}epochs", f"{asked.seed}"]
    run = asked.work.resolve() / "-".join(words)
    if asked.method in NAMES:
        search(study(data, asked), run)
        found = list(trained_in(RunFolder.open(run)))
    else:
        found = list(tpe_asha(data, asked.budget[0], asked, run))
    for budget in asked.budget:
        keep([each for each in found if each.milliseconds <= budget], f"{method}-{budget:g}ms-{asked.seed}", asked)


def keep(found: Sequence[Found], name: str, asked: argparse.Namespace) -> None:
    """Keep the best of the networks that were trained inside a budget."""
    longest = max((each.epochs for each in found), default=0)
    best = sorted((each for each in found if each.epochs == longest), key=lambda each: -each.miou)[:KEPT]
    rows = []
    for rank, each in enumerate(best, 1):
        write_text(FOUND / f"{name}-{rank}.yaml", each.architecture.to_yaml())
        rows.append(
            {
                "network": f"{name}-{rank}",
                "what": each.name,
                "milliseconds": f"{each.milliseconds:.3f}",
                "epochs": str(each.epochs),
                "miou": f"{100 * each.miou:.2f}",
                "trained": str(len(found)),
                "minutes": f"{asked.minutes:g}",
            }
        )
    add(rows)
    print(*rows, sep="\n")


def study(data: DataSpec, asked: argparse.Namespace) -> Study:
    """What `nas search` is asked."""
    guided = asked.method != "random"
    plan = SearchPlan(
        seeds=SearchPlan.seeds if guided else (),
        random_trials=SearchPlan.random_trials if guided else ENDLESS,
        guided_trials=ENDLESS if guided else 0,
        sampler=NAMES[asked.method],
        warm_start=asked.method == "warm",
        minutes=asked.minutes,
        finalists=KEPT,
        finish_epochs=0,
        seed=asked.seed,
    )
    return Study(
        data=data,
        budget=f"{asked.budget[0]:g}ms",
        target=TARGET,
        latency_within=2 * WITHIN,  # as the search without a study: trainings take no longer than timings here
        patience_seconds=PATIENCE_SECONDS / 3,
        recipe=recipe(asked),
        search=plan,
    ).asking([f"{each:g}ms" for each in asked.budget])


def recipe(asked: argparse.Namespace) -> Recipe:
    """How candidates are trained."""
    return replace(RECIPES[asked.recipe], epochs=asked.epochs, seed=asked.seed)


def search(asked: Study, run: Path) -> None:
    """Run `nas search`, or go on with it."""
    run.parent.mkdir(parents=True, exist_ok=True)
    file = run.with_name(f"{run.name}.yaml")
    write_text(file, asked.to_yaml())
    words = ["--resume", str(run)] if run.is_dir() else [str(file), "--out", str(run)]
    with run.with_name(f"{run.name}.log").open("a") as log:
        subprocess.run([sys.executable, "-m", "nas.cli", "search", *words], stdout=log, stderr=log, check=False)


def trained_in(run: RunFolder) -> Iterator[Found]:
    """What a run has trained inside its budget."""
    for trial in run.trials():
        progress = run.progress(trial, "search")
        if trial.feasible and trial.latency is not None and progress.miou is not None:
            yield Found(
                architecture=trial.architecture,
                name=trial.name,
                milliseconds=trial.latency.p50_milliseconds,
                epochs=len(progress.history),
                miou=progress.miou,
            )


def tpe_asha(data: DataSpec, budget: float, asked: argparse.Namespace, run: Path) -> Iterator[Found]:
    """Optuna's TPE under ASHA, as Ray Tune wires them."""
    import optuna
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    begun = time.monotonic()
    questions = Space(ranges=searched(), size=SIZE)
    with Meter(Target.parse(TARGET), SIZE, CLASSES) as meter:
        reference = meter.measure(space.load(REFERENCE)).reference_milliseconds

    def ask(trial: optuna.Trial) -> None:
        # An answer may change what the next question offers, and Optuna wants one name for one set of options.
        def answer(name: str, options: Sequence[Choice]) -> Choice:
            # One of the options, which Optuna would also let be None.
            return cast(Choice, trial.suggest_categorical(f"{name}|{len(options)}", list(options)))

        questions.choose(answer)

    def train(answers: Mapping[str, Any]) -> None:
        import torch

        torch.set_num_threads(1)
        chosen = questions.choose(lambda name, options: answers[f"{name}|{len(options)}"])
        architecture = filled(chosen, budget, reference)
        if architecture is None:
            tune.report({"miou": 0.0, "milliseconds": 0.0, "architecture": ""})
            return
        with Meter(Target.parse(TARGET), SIZE, CLASSES) as meter:
            milliseconds = meter.measure(architecture).p50_milliseconds
        trainer = Trainer(architecture, load(data), recipe(asked), threads=1, guard=lane.shared)
        while not trainer.finished:
            miou = trainer.run_epoch().miou if milliseconds <= budget else 0.0
            tune.report({"miou": miou, "milliseconds": milliseconds, "architecture": architecture.to_yaml()})
            if milliseconds > budget:
                return

    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space=ask, metric="miou", mode="max", sampler=optuna.samplers.TPESampler(seed=asked.seed)
            ),
            scheduler=ASHAScheduler(metric="miou", mode="max", max_t=asked.epochs, grace_period=2, reduction_factor=4),
            num_samples=ENDLESS,
            max_concurrent_trials=2,
            time_budget_s=60 * asked.minutes - (time.monotonic() - begun),
        ),
        run_config=tune.RunConfig(name=run.name, storage_path=str(run.parent), verbose=1),
    )
    results = tuner.fit()
    print(f"{len(results)} trials in {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
    for place in range(len(results)):
        metrics = results[place].metrics or {}
        if metrics.get("miou"):
            yield Found(
                architecture=space.Architecture.from_yaml(metrics["architecture"]),
                name="tpe",
                milliseconds=metrics["milliseconds"],
                epochs=metrics["training_iteration"],
                miou=metrics["miou"],
            )
    ray.shutdown()


def filled(architecture: Architecture, budget: float, reference_milliseconds: float) -> Architecture | None:
    """At the largest width that the package's table estimates to be inside the budget; None where none is."""
    table = shipped_table(Target.parse(TARGET), SIZE, reference_milliseconds)
    assert table is not None, "one comes for this target"

    def fits(factor: float) -> bool:
        return table.estimate(scale_width(architecture, factor), CLASSES) <= budget

    if not fits(NARROWEST):
        return None
    return scale_width(architecture, WIDEST if fits(WIDEST) else bisected(NARROWEST, WIDEST, fits))


def rows_of(file: Path) -> list[dict[str, str]]:
    """What a table holds; nothing where there is none yet."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def add(rows: Sequence[Mapping[str, str]]) -> None:
    """Add rows to the table, in place of those of the same networks."""
    if rows:
        names = {each["network"] for each in rows}
        others = [each for each in rows_of(TABLE) if each["network"] not in names]
        lines = [",".join(rows[0]), *(",".join(each.values()) for each in (*others, *rows))]
        write_text(TABLE, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
