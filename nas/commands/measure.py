"""`nas measure`: a leaderboard of latencies under one protocol."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.commands.shared import certified, common, ending, output
from nas.host.words import counted

if TYPE_CHECKING:
    from nas.errors import UnmeasuredError
    from nas.latency import Meter
    from nas.latency.budget import Budget, Verdict
    from nas.latency.estimates.calibration import Calibration
    from nas.latency.record import Latency
    from nas.latency.target import Target
    from nas.terminal import ProgressLine
    from space.architecture import Architecture

EPILOG = """\
Networks are timed untrained, on the CPU each in a process of its own. They take turns, and each alternates call by call
with one frozen reference network. Milliseconds are the median ratio times the reference's latency on this device. With
--out, three files are written: a table (latency.csv; its column `flagged` says why a latency is not reliable, and is
empty otherwise), the medians of all blocks of calls behind it (blocks.csv) and a chart (latency.png).

If all given networks have certificates that agree on target, input size and number of classes, these are the defaults,
and a network certified in lower precision is timed as it ships. On other terms its architecture is timed.

--calibrate measures random networks of the whole space instead, fits a latency table to them, and prints the error of
its estimates on left-out networks. 550 networks take 35 to 45 minutes, once per device, input size and version of the
libraries. Repeating an interrupted calibration continues it, and measures disturbed networks again. `nas profile` reads
the table.

examples:
  nas measure                                                  all published networks
  nas measure erfnet runs/night/winner --target onnxruntime@cpu:1 --input 512x1024 --out board
  nas measure --calibrate --input 360x480                      a latency table of this device"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas measure`."""
    parser.epilog = EPILOG
    parser.add_argument(
        "architectures",
        metavar="ARCH",
        nargs="*",
        type=common.readable_path,
        help=f"{common.ARCH} (default: all published)",
    )
    common.add_target(parser)
    common.add_input(parser)
    common.add_classes(parser)
    parser.set_defaults(input=None, classes=None)  # certificates may set them
    common.add_within(parser)
    common.add_patience(parser)
    parser.add_argument(
        "--processes",
        metavar="N",
        type=common.whole_number,
        help="time each network in N processes, in rounds over all networks, and report the median process with an "
        "interval that spans those of all (default: 1)",
    )
    parser.add_argument(
        "--budget", metavar="TIME", help="judge which networks keep this budget: 10ms, 100fps or '10ms p90'"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=common.path, help="folder for latency.csv, blocks.csv and latency.png"
    )
    parser.add_argument("--calibrate", action="store_true", help="fit a latency table to random networks")
    parser.add_argument(
        "--networks",
        type=common.whole_number,
        metavar="N",
        help="with --calibrate: number of networks to measure (default: 550)",
    )


def run(options: argparse.Namespace) -> Verdict | None:
    """Measure the networks in turns and print them from the fastest to the slowest, or calibrate. Returns the verdict
    on a budget, if there is one: PASS if all networks are inside, FAIL if one is over, else UNSURE, also if one cannot
    be timed.

    Raises: UserError for unknown architectures, and targets that cannot be timed here.
    """
    import space
    from nas.latency import Meter
    from nas.latency.budget import Budget
    from nas.latency.estimates import calibration
    from nas.latency.rounds import in_rounds, why_none
    from nas.runs.trained import load_architecture
    from nas.storage.files import require_utf8
    from nas.terminal import ProgressLine
    from space.errors import UserError

    if options.calibrate and options.architectures:
        raise UserError(f"--calibrate draws its networks itself; leave out {' '.join(options.architectures)}")
    if not options.calibrate and options.networks is not None:
        raise UserError("--networks goes with --calibrate")
    if options.calibrate and options.within is not None:
        raise UserError("--calibrate measures many networks quickly; leave out --within, and give it more --networks")
    if options.calibrate and options.budget is not None:
        raise UserError("--calibrate judges no network; leave out --budget")
    budget = None if options.budget is None else Budget.parse(options.budget)
    given = tuple(dict.fromkeys(options.architectures))
    architectures = {name: load_architecture(name) for name in given}
    if not given and not options.calibrate:  # not folders that have the same names
        architectures = {name: space.load(name) for name in space.published()}
    if options.out:  # names are written to files there
        for name in architectures:
            require_utf8(name)
        marks = _marks(options)
        output.require_replaceable(Path(options.out), marks, "measure", table=next(iter(marks)))
    terms = certified.measured_as_certified(options, given)
    size, classes, within = common.input_size(options.input), common.class_count(options), common.within(options)
    processes = _processes(options)
    networks = calibration.NETWORKS if options.networks is None else options.networks
    if networks < calibration.FEWEST:
        raise UserError(f"--networks: expected at least {calibration.FEWEST}, got {networks}")
    lost, progress = ending.begins_anew("what was timed"), ProgressLine()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ending.told(lambda: words_of_kept(progress.done) if options.calibrate else lost))
        out = stack.enter_context(output.folder(options.out)) if options.out else None
        target = common.target(options)  # last, because finding the default target may take timing
        if target.on_cuda and processes > 1:
            raise UserError("--processes: all networks on a GPU are timed by one process; leave it out")
        meter = Meter(target, size, classes, patience_seconds=common.patience(options))
        what = counted(networks, "random network") if options.calibrate else counted(len(architectures), "network")
        of_classes = "" if options.calibrate else f", {classes} classes"
        graphs = _deployed_graphs(given, target, size, classes)
        # Printed before the meter starts its process, which takes seconds.
        common.say(f"{what} on {target} at {size[0]}x{size[1]}, batch 1{of_classes}{terms}")
        certified.say_untrained([name for name in given if name not in graphs], target, size, classes)
        stack.enter_context(meter)
        if options.calibrate:
            _calibrate(meter, networks, out, progress)
            return None
        measured, refused = in_rounds(meter, architectures, graphs, processes, within, progress)
        if not measured:
            raise why_none(refused, target)
        return _leaderboard(meter, architectures, measured, refused, out, budget)


def _processes(options: argparse.Namespace) -> int:
    from nas.latency.budget import MOST_PROCESSES
    from space.errors import UserError

    given: int | None = options.processes
    if given is not None and options.calibrate:
        raise UserError("--calibrate measures each network once; leave out --processes")
    if given is not None and not 1 <= given <= MOST_PROCESSES:
        raise UserError(f"--processes: expected 1 to {MOST_PROCESSES}, got {given}")
    return given or 1


def _marks(options: argparse.Namespace) -> Mapping[str, str]:
    """The files written to --out, each with the text that identifies an earlier one."""
    from nas.report import calibration, leaderboard

    return calibration.MARKS if options.calibrate else leaderboard.MARKS


def words_of_kept(networks: int) -> str:
    """The words for an interrupted calibration that keeps `networks` networks, including those of earlier commands."""
    if networks:
        return "what was measured so far is kept: the same command goes on from there"
    return "nothing was measured yet: the same command begins anew, or goes on where an earlier one was interrupted"


def _calibrate(meter: Meter, networks: int, out: Path | None, progress: ProgressLine) -> None:
    from nas.latency.estimates import calibration
    from nas.report.calibration import ESTIMATES, write_calibration
    from nas.report.calibration import PICTURE as SCATTER
    from nas.terminal import answering

    failed = calibration.measure_networks(meter, networks, progress)
    if failed:
        print(
            f"not measured: {counted(len(failed), 'network')}, for example: {failed[0]}; the same command tries again"
        )
    found = calibration.calibrate(meter)
    with answering():
        _print_fit(found)
    if out:
        write_calibration(out, found)
        with answering():
            print(f"{out}: {ESTIMATES} {SCATTER}")


def _print_fit(found: Calibration) -> None:
    """Print how well a new latency table estimates."""
    from nas.report.calibration import comparison

    judged = counted(len(found.left_out), "that was", "that were")
    print(f"\nfitted to {found.table.networks} networks; judged on {judged} left out of a fit\n")
    print(comparison(found.left_out))
    if found.flagged:
        print(
            f"not used: {counted(found.flagged, 'measurement')}, taken while the machine was disturbed; "
            "the same command measures them again"
        )
    if found.refused:
        print(f"cannot be timed: {counted(len(found.refused), 'network')}, for example: {found.refused[0]}")
    if found.better is not None:
        more = found.better.networks
        print(f"the existing table, fitted to {more} networks, is kept: give --networks {more} to replace it")


def _deployed_graphs(names: Iterable[str], target: Target, size: tuple[int, int], classes: int) -> dict[str, bytes]:
    """The graphs to time for networks that are certified on these terms in lower precision, or as another graph."""
    from nas.runs.trained import deployed_graph

    found = {name: deployed_graph(name, target, size, classes) for name in names}
    return {name: graph for name, graph in found.items() if graph is not None}


def _leaderboard(
    meter: Meter,
    architectures: Mapping[str, Architecture],
    measured: Mapping[str, Latency],
    refused: Mapping[str, UnmeasuredError],
    out: Path | None,
    budget: Budget | None,
) -> Verdict | None:
    from nas.latency.rounds import judged
    from nas.terminal import answering

    latencies = _sorted(measured)
    with answering():
        _print_leaderboard(meter, latencies, architectures, refused, budget)
    if out:
        from nas.report.leaderboard import BLOCKS, PICTURE, TABLE, write_leaderboard

        write_leaderboard(out, latencies)
        with answering():
            print(f"{out}: {TABLE} {BLOCKS} {PICTURE}")
    if budget is None:
        return None
    with answering():
        print_settling(latencies, budget, meter.num_classes)
    return judged(latencies.values(), budget, refused)


def _print_leaderboard(
    meter: Meter,
    latencies: Mapping[str, Latency],
    architectures: Mapping[str, Architecture],
    refused: Mapping[str, UnmeasuredError],
    budget: Budget | None,
) -> None:
    """Print the table, the scopes of the timings, the flagged latencies and the networks that could not be timed."""
    print(f"\n{_table(latencies, architectures, meter.size, meter.num_classes, budget)}\n")
    scopes = dict.fromkeys(latency.scope for latency in latencies.values())
    for scope in scopes:
        names = ", ".join(name for name, latency in latencies.items() if latency.scope == scope)
        print(f"timed{f' of {names}' if len(scopes) > 1 else ''}: {scope}")
    for name, latency in latencies.items():
        if latency.flagged:
            print(f"! {name}: {'; '.join(latency.flagged)}")
    for name, reason in refused.items():
        print(f"! {name} {'failed in a later round' if name in latencies else 'cannot be timed'}: {reason}")


def print_settling(latencies: Mapping[str, Latency], budget: Budget, num_classes: int) -> None:
    """Print how to settle each verdict that is unsure."""
    from nas.latency.budget import settling, settling_in

    for name, latency in latencies.items():
        if budget.verdict(latency) == "UNSURE":
            print(f"? {name}: {settling_in(settling(latency, budget, num_classes), name)}")


def _sorted(latencies: Mapping[str, Latency]) -> dict[str, Latency]:
    return dict(sorted(latencies.items(), key=lambda item: item[1].p50_milliseconds))


def _table(
    latencies: Mapping[str, Latency],
    architectures: Mapping[str, Architecture],
    size: tuple[int, int],
    classes: int,
    budget: Budget | None,
) -> str:
    from nas.terminal import table
    from space import multiply_adds, parameters

    rows = []
    for name, one in latencies.items():
        half = (one.ci_high_milliseconds - one.ci_low_milliseconds) / 2
        rows.append(
            (
                name,
                f"{one.p50_milliseconds:.2f}",
                f"{half:.2f}",
                f"{one.p90_milliseconds:.2f}",
                f"{one.p99_milliseconds:.2f}",
                f"{1000 / one.p50_milliseconds:.1f}",
                f"{one.ratio:.3f}",
                f"{parameters(architectures[name], classes):,}",
                f"{multiply_adds(architectures[name], size, classes) / 1e9:.2f}",
                "!" if one.flagged else "",
                *(() if budget is None else (budget.verdict(one),)),
            )
        )
    header = ("network", "p50 ms", "+-", "p90 ms", "p99 ms", "fps", "ratio", "parameters", "G mult-adds", "flagged")
    return table(rows, header if budget is None else (*header, str(budget)))
