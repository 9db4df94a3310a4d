"""`nas profile`: whether a budget is reachable here, by how much of the space, and how long the search would take."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from nas.commands.shared import common
from nas.host.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.latency import Meter
    from nas.latency.budget import Budget
    from nas.latency.estimates.table import LatencyTable
    from nas.latency.target import Target
    from nas.search.measure.reachability import Reachability
    from nas.study import Study
    from space.architecture import Architecture

EPILOG = """\
Latencies are estimated from the device's latency table for this input size. If there is none yet, the table that comes
with the package for the target is used. If there is none either, or with --networks, a table is made first, once per
device: random networks are measured, about three seconds each. `nas measure --calibrate` makes a better one.

examples:
  nas profile --budget 10ms
  nas profile --budget 100fps --input 360x480 --samples 2000
  nas profile --budget 5ms --budget 10ms --target openvino:bf16@cpu
  nas profile studies/camvid/study.yaml --target onnxruntime@cpu:1"""
NETWORKS = 150  # measured for a new table
SMALL = "ndnet45-fcn32"  # timed to learn the reference's latency on a device without a table
MOST_KNOBS = 10  # axes in the printed table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    common.add_study(parser)
    common.add_budgets(parser, "may be given several times")
    common.add_target(parser)
    common.add_patience(parser)
    parser.add_argument("--input", metavar="HxW", help="height and width of the networks' input; overrides the study's")
    parser.add_argument(
        "--samples",
        type=common.whole_number,
        default=1000,
        metavar="N",
        help="number of random draws (default: 1000)",
    )
    parser.add_argument(
        "--seed", type=common.whole_number, default=0, metavar="N", help="seed of the random draws (default: 0)"
    )
    parser.add_argument(
        "--networks",
        type=common.whole_number,
        metavar="N",
        help=f"number of networks to measure for a new table if the device has none (default: {NETWORKS}, or 0 if a "
        "table comes with the package)",
    )


def run(options: argparse.Namespace) -> None:
    """Estimate latencies over the space and print which budgets are reachable.

    Raises: BudgetError with the lowest or highest latency reached when the space reaches none of the budgets.
    """
    from nas.latency import default_target, parse_target
    from nas.latency.estimates import calibration
    from space.errors import UserError

    if options.samples < 1:
        raise UserError(f"--samples: expected at least 1, got {options.samples}")
    if options.networks is not None and options.networks < calibration.FEWEST:
        raise UserError(f"--networks: expected at least {calibration.FEWEST}, got {options.networks}")
    patience_seconds = common.patience(options)
    study = _study(options)
    size = f"{study.data.size[0]}x{study.data.size[1]}"
    common.say(f"is {study.asked} reachable at {size}?")
    common.look_at_space(study, options.study)
    target = parse_target(study.target) if study.target else default_target()

    from nas.latency import Meter  # loading this takes seconds, so errors above come first
    from nas.search.measure.reachability import explore
    from nas.search.propose.limits import limits_of

    dataset = common.loaded(study.data)
    targets = target.in_precisions(study.precisions)  # those that a search would time
    common.say(f"{study.asked} on {', '.join(map(str, targets))} at {size}, {dataset.num_classes} classes")

    def meter_of(target: Target) -> Meter:
        return Meter(target, study.data.size, dataset.num_classes, patience_seconds=patience_seconds)

    tables, unknown = _tables_of(targets, meter_of, options.networks)
    allows = limits_of(study, dataset.num_classes)
    common.say(f"estimating {counted(options.samples, 'random draw')} and every published network, narrow and wide")

    def estimate(architecture: Architecture) -> float:
        return min(each.estimate(architecture, dataset.num_classes) for each in tables)

    reachability = explore(study, estimate, samples=options.samples, seed=options.seed, allows=allows)
    if study.frontier:
        reachability = _on_frontier(reachability, surely=not unknown)
        study = reachability.study
    print(f"\n{_published_table(reachability)}\n")
    print(_draws(reachability))
    for budget in study.asked if study.asked.several else ():
        if reason := reachability.refusal(budget):
            print(f"note: {budget} is out of reach: {reason}")
    if unknown:
        print(
            f"\nnote: networks may be faster on {', '.join(map(str, unknown))}, which have no latency table; `nas "
            "measure --calibrate --target TARGET` makes one where a target can be timed"
        )
    else:
        reachability.require()
    print(f"\n{_knobs(reachability)}\n")
    # Timing on a target without a table is assumed to take as long as on one with a table.
    measurement_seconds = sum(each.seconds for each in tables) * (1 + len(unknown) / len(tables))
    print(_forecast(study, reachability, measurement_seconds, len(dataset.train), dataset.num_classes))


def _tables_of(
    targets: Sequence[Target], meter_of: Callable[[Target], Meter], networks: int | None
) -> tuple[tuple[LatencyTable, ...], tuple[Target, ...]]:
    """The tables of targets, and the targets that can be timed but have no table. The highest precision that can be
    timed always gets a table. Targets that cannot be timed are left out, as in a search, and a note says so.

    Raises: TargetError when no target can be timed.
    """
    from nas.errors import TargetError
    from nas.latency.estimates.calibration import kept_table

    tables: list[LatencyTable] = []
    unknown: list[Target] = []
    refused: list[TargetError] = []
    for target in targets:
        with contextlib.ExitStack() as entered:
            try:
                meter = entered.enter_context(meter_of(target))
            except TargetError as error:
                refused.append(error)
                continue
            table = kept_table(meter) if tables else _table(meter, networks)
        if table is None:
            unknown.append(target)
        elif tables:
            print(
                f"{target}: estimated from a latency table of its own, and each network counts in its fastest precision"
            )
        if table is not None:
            tables.append(table)
    if not tables:
        raise refused[0]
    for reason in refused:
        print(f"note: left out: {reason}")
    return tuple(tables), tuple(unknown)


def _table(meter: Meter, networks: int | None) -> LatencyTable:
    """The device's own latency table, the one that comes with the package, or a new one from `networks` measured
    networks. Prints which one it is, and its error.
    """
    from dataclasses import replace
    from time import monotonic

    import space
    from nas.latency.estimates import calibration
    from nas.latency.estimates.shipped import shipped_table
    from nas.terminal import ProgressLine

    table = calibration.kept_table(meter)
    if table is None and networks is None and shipped_table(meter.target, meter.size, 1.0) is not None:
        small, within = space.load(SMALL), calibration.SAMPLES_WITHIN
        common.say(f"timing {SMALL}, to learn the speed of this device")
        reference = meter.measure(small, within=within).reference_milliseconds
        begun = monotonic()
        meter.measure(small, within=within)  # timed alone: the first measurement includes one-time preparation
        table = shipped_table(meter.target, meter.size, reference)
        assert table is not None, "it was found above"
        print(
            f"estimated from a latency table that comes with the package: {table.error:.1%} off on average at other "
            f"sizes and threads of the CPU that it was made on; --networks {NETWORKS} makes one of this device"
        )
        return replace(table, seconds=monotonic() - begun)
    if table is None:
        networks = networks or NETWORKS
        precision = meter.target.precision
        kind = "at this size yet"
        if precision != "fp32":
            kind = f"in {precision} at this size yet, and none comes with the package"
        print(f"no latency table of this device {kind}: measuring {networks} random networks", flush=True)
        calibration.measure_networks(meter, networks, ProgressLine())
        table = calibration.calibrate(meter).table
    print(
        f"estimated from a latency table: fitted to {table.networks} measured networks, {table.error:.1%} off on "
        "average on networks left out of a fit"
    )
    if words := calibration.words_of_host(table, meter.environment):
        print(f"note: {words}")
    return table


def _study(options: argparse.Namespace) -> Study:
    from dataclasses import replace

    from nas.study import load_study, without_minutes_of_one
    from space.errors import UserError

    if options.study is None and not options.budgets:
        raise UserError("expected a study or a budget, got neither; try: nas profile --budget 10ms")
    study = common.built_in_study(options, options.budgets[0]) if options.study is None else load_study(options.study)
    if options.budgets:
        study = study.asking(options.budgets)
    if options.study is None:
        study = without_minutes_of_one(study)
    if options.target:
        study = replace(study, target=options.target)
    if options.input:
        study = replace(study, data=replace(study.data, size=common.input_size(options.input)))
    return study


def _on_frontier(reachability: Reachability, *, surely: bool) -> Reachability:
    """The same reachability for the budgets of a frontier, which a search derives from the fastest network's latency.

    Raises: BudgetError when there is no room for several budgets, unless that is not sure (`surely`), because networks
    may be faster on targets without a table.
    """
    from dataclasses import replace

    from nas.search.measure.narrowest import frontier
    from space.errors import BudgetError

    study = reachability.study
    try:
        budgets = frontier(study.asked.largest, reachability.lowest.narrowest)
    except BudgetError as error:
        if surely:
            raise
        common.say(f"note: {error}")
        return reachability
    common.say(f"budgets {budgets}, roughly: a search derives them from its measurements")
    return replace(reachability, study=study.asking(tuple(map(str, budgets))))


def _published_table(reachability: Reachability) -> str:
    from nas.terminal import table

    budgets = reachability.study.asked
    rows = [
        (
            each.name,
            f"{each.narrowest:.2f}",
            f"{each.own:.2f}",
            *(each.verdict(budget.milliseconds) for budget in budgets),
        )
        for each in reachability.published
    ]
    of_budgets = [str(budget) for budget in budgets] if budgets.several else ["budget"]
    return table(rows, ("published network", "narrowest (ms)", "own width (ms)", *of_budgets))


def _draws(reachability: Reachability) -> str:
    from nas.search.measure.reachability import extremes
    from nas.terminal import table

    budgets, lowest = reachability.study.asked, reachability.lowest
    drawn = {
        "narrowest": [each.narrowest for each in reachability.draws],
        "as drawn": [each.own for each in reachability.draws],
    }
    rows = [(name, *(f"{value:.2f}" for value in extremes(values))) for name, values in drawn.items()]
    header = (f"draws: {len(reachability.draws)}", "min (ms)", "median (ms)", "max (ms)")
    if budgets.several:
        inside = [
            (
                str(budget),
                *(f"{_inside(values, budget):.0%}" for values in drawn.values()),
                f"{reachability.fillable(budget):.0%}",
            )
            for budget in budgets
        ]
        of_budgets = ("budget", "narrowest inside", "as drawn inside", "filled by some width")
        lines = [table(rows, header), "", table(inside, of_budgets)]
    else:
        budget = budgets.largest
        shares = [f"{_inside(values, budget):.0%}" for values in drawn.values()]
        lines = [
            table([(*row, share) for row, share in zip(rows, shares, strict=True)], (*header, "inside the budget")),
            f"width can be chosen to fill the budget in {reachability.fillable(budget):.0%} of the draws",
        ]
    return "\n".join([*lines, f"fastest reached: {lowest.name} at its narrowest, {lowest.narrowest:.2f} ms"])


def _inside(milliseconds: Sequence[float], budget: Budget) -> float:
    """The share of latencies inside a budget."""
    return sum(value <= budget.milliseconds for value in milliseconds) / len(milliseconds)


def _knobs(reachability: Reachability) -> str:
    from nas.search.measure.reachability import knobs
    from nas.terminal import table

    found = knobs(reachability.draws)[:MOST_KNOBS]
    if not found:
        words = counted(len(reachability.draws), "draw is", "draws are")
        return f"{words} too few to compare the values of an axis; give more --samples"
    rows = [
        (knob.axis, f"{knob.spread:.2f}x", "  ".join(f"{value}: {factor:.2f}" for value, factor, _ in knob.factors))
        for knob in found
    ]
    title = "Factor of each choice on latency, all other choices being equal, over"
    draws = counted(len(reachability.draws), "draw")
    return f"{title} {draws}\n{table(rows, ('axis', 'spread', 'factor by value'))}"


def _forecast(
    study: Study, reachability: Reachability, measurement_seconds: float, training_images: int, num_classes: int
) -> str:
    import math

    from nas.latency.machine import lane
    from nas.latency.machine.gpu import training_device
    from nas.search.measure.reachability import forecast
    from nas.terminal import duration
    from nas.training.probe import step_seconds
    from nas.training.room import require_room

    wanted = math.log(study.asked.largest.milliseconds)
    closest = min(reachability.every, key=lambda each: abs(math.log(each.own) - wanted))
    network, recipe, size, device = closest.architecture, study.recipe, study.data.size, training_device()
    require_room(network, recipe, size, num_classes, recipe.stages(network, None), device=device)
    step = step_seconds(network, recipe, size, num_classes, device=device, guard=lane.shared_on(device))
    found = forecast(study, training_images, step, measurement_seconds)
    limit = study.search.minutes
    return (
        f"forecast of the search: {duration(found.training_seconds)} of training steps at {step:.2f} s each (timed on "
        f"{closest.name}, {closest.own:.1f} ms) and {duration(found.measuring_seconds)} of measuring "
        f"about {counted(found.candidates, 'candidate')}, plus scoring and export"
        + (f"; fewer are tried if that exceeds {counted(limit, 'minute')}" if limit else "")
    )
