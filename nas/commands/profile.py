"""`nas profile`: is a budget reachable here, by how much of the space, and what would the search take?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nas.commands import common

if TYPE_CHECKING:
    from nas.reachability import Reach, Reachability
    from nas.study import Study

EPILOG = """\
examples:
  nas profile --budget 10ms
  nas profile --budget 100fps --input 360x480 --samples 40
  nas profile studies/camvid/study.yaml --target onnxruntime@cpu:1"""
WITHIN = 0.06  # of each latency
MOST_KNOBS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    parser.add_argument("study", nargs="?", metavar="STUDY", help="a study's YAML file (default: built-in road scenes)")
    parser.add_argument("--budget", metavar="TIME", help="10ms, 100fps or '10ms p90'; overrides the study's")
    common.add_target(parser)
    parser.add_argument("--input", metavar="HxW", help="size that networks work at; overrides the study's")
    parser.add_argument("--samples", type=int, default=24, metavar="N", help="random draws of the space (default 24)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")


def run(options: argparse.Namespace) -> None:
    """Measure and print.

    Raises: BudgetError with the lowest latency reached when the budget cannot be met here.
    """
    from nas.data import load
    from nas.latency import Meter, default_target, parse_target
    from nas.reachability import explore
    from space.errors import UserError
    from space.latency import Budget

    if options.samples < 1:
        raise UserError(f"--samples: expected at least 1, got {options.samples}")
    study = _study(options)
    budget = Budget.parse(study.budget)
    target = parse_target(study.target) if study.target else default_target()
    dataset = load(study.data)
    print(
        f"{budget} on {target} at {study.data.size[0]}x{study.data.size[1]}, {dataset.num_classes} classes", flush=True
    )
    with Meter(target, study.data.size, dataset.num_classes) as meter:
        reachability = explore(
            study,
            budget,
            lambda architecture: meter.measure(architecture, within=WITHIN),
            dataset.num_classes,
            samples=options.samples,
            seed=options.seed,
            progress=_progress,
        )
    print(f"\n{_published_table(reachability)}\n")
    print(_draws(reachability))
    reachability.require()
    print(f"\n{_knobs(reachability)}\n")
    print(_forecast(study, reachability, len(dataset.train), dataset.num_classes))


def _study(options: argparse.Namespace) -> Study:
    from dataclasses import replace

    from nas.study import built_in_study, load_study
    from space.errors import UserError

    if options.study is None and options.budget is None:
        raise UserError("expected a study or a budget, got neither; try: nas profile --budget 10ms")
    study = built_in_study(options.budget) if options.study is None else load_study(options.study)
    if options.budget:
        study = replace(study, budget=options.budget)
    if options.target:
        study = replace(study, target=options.target)
    if options.input:
        study = replace(study, data=replace(study.data, size=common.input_size(options.input)))
    return study


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\rmeasured {done} of {total} networks", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _published_table(reachability: Reachability) -> str:
    from nas.tables import table

    rows = [
        (
            each.name,
            f"{reachability.milliseconds(each.narrowest):.2f}",
            f"{reachability.milliseconds(each.full):.2f}",
            _verdict(each, reachability),
        )
        for each in reachability.published
    ]
    return table(rows, ("published network", "narrowest (ms)", "own width (ms)", "budget"))


def _verdict(each: Reach, reachability: Reachability) -> str:
    if reachability.milliseconds(each.full) <= reachability.budget.milliseconds:
        return "inside"
    narrow = reachability.milliseconds(each.narrowest) <= reachability.budget.milliseconds
    return "inside if narrower" if narrow else "over at any width"


def _draws(reachability: Reachability) -> str:
    from nas.tables import table

    rows = []
    for name, latencies in (
        ("narrowest", [each.narrowest for each in reachability.draws]),
        ("as drawn", [each.full for each in reachability.draws]),
    ):
        values = sorted(reachability.milliseconds(latency) for latency in latencies)
        figures = (values[0], values[len(values) // 2], values[-1])
        rows.append((name, *map(_figure, figures), f"{reachability.share(latencies):.0%}"))
    untimed = sum(each.full is None for each in reachability.draws)
    name, lowest = reachability.lowest
    lines = [
        table(rows, (f"draws: {len(reachability.draws)}", "min (ms)", "median (ms)", "max (ms)", "inside the budget")),
        f"fastest reached: {name} at its narrowest, {lowest:.2f} ms",
    ]
    latencies = [each.narrowest for each in (*reachability.published, *reachability.draws)]
    disturbed = sum(bool(latency.flagged) for latency in latencies)
    if disturbed:
        lines.append(f"disturbed: {disturbed} of {len(latencies)} measurements at the narrowest; the machine was busy")
    if untimed:
        lines.append(f"not timed as drawn: {untimed}, whose multiply-adds put them far over the budget")
    return "\n".join(lines)


def _figure(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds < float("inf") else "far over"


def _knobs(reachability: Reachability) -> str:
    from nas.reachability import knobs
    from nas.tables import table

    found = knobs(reachability)[:MOST_KNOBS]
    if not found:
        return f"{len(reachability.draws)} draws are too few to compare the values of an axis; give more --samples"
    rows = [
        (
            knob.axis,
            f"{knob.spread:.1f}x",
            "  ".join(f"{value}: {median:.1f} ({draws})" for value, median, draws in knob.medians),
        )
        for knob in found
    ]
    return (
        f"What goes along with latency at the narrowest width, over {len(reachability.draws)} draws "
        "(every other axis varies too: hints, not effects)\n"
        + table(rows, ("axis", "spread", "median ms (draws) by value"))
    )


def _forecast(study: Study, reachability: Reachability, training_images: int, num_classes: int) -> str:
    import math

    import torch

    from nas.reachability import forecast_seconds, training_step_seconds
    from nas.tables import duration

    timed = [each for each in (*reachability.published, *reachability.draws) if each.full is not None]
    wanted = math.log(reachability.budget.milliseconds)
    closest = min(timed, key=lambda each: abs(math.log(reachability.milliseconds(each.full)) - wanted))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = training_step_seconds(closest.architecture, study.recipe, study.data.size, num_classes, device)
    training, measuring = forecast_seconds(study, training_images, step, reachability.seconds_per_measurement)
    return (
        f"forecast of the search: {duration(training)} of training steps at {step:.2f} s each (timed on "
        f"{closest.name}, {reachability.milliseconds(closest.full):.1f} ms) and {duration(measuring)} of measuring, "
        "if no candidate is stopped early; scoring and export come on top"
    )
