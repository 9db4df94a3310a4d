"""`nas report`: a run as an HTML file, as data and as a summary on the terminal; several runs as means over seeds."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from nas.commands.shared import common, output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nas.report.summary import Summary
    from nas.runs.folder import RunFolder

EPILOG = """\
Given several runs of the same study with different seeds, it prints the mIoU of their winners and their gain over three
networks of the same run: the best scaled published network, the best published one at its own width, and the best
random draw inside the budget. Each is a mean over the runs with its 95 % interval.

examples:
  nas report runs/night
  nas report runs/seed0 runs/seed1 runs/seed2 --out seeds.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    parser.add_argument(
        "run_folders",
        metavar="RUN",
        nargs="+",
        type=common.path,
        help="a run's folder, finished or not; or several folders",
    )
    parser.add_argument(
        "--out",
        metavar="DIR|FILE",
        type=common.path,
        help="folder for the page and its data (default: the run's); with several runs, a YAML file for the data",
    )


def run(options: argparse.Namespace) -> None:
    """Print a summary and write report.html and report.yaml into the run's folder or another one; for several runs,
    print means over them.

    Raises: UserError when there is no run in a folder, one of its files is damaged, several runs differ in more than
    seeds, --out exists already, or the run's folder cannot be written to.
    """
    from pathlib import Path

    from nas.runs.folder import FIGURES, RunFolder
    from nas.terminal import answering
    from space.errors import UserError

    folders = [RunFolder.open(Path(each)) for each in options.run_folders]
    if len(folders) > 1:
        _several(folders, options.out)
        return
    (folder,), out = folders, Path(options.out or folders[0].root)
    if options.out:
        _require_place(out)
    common.say(f"reading {folder.root}")

    from nas.latency.machine import lane

    with lane.shared():  # also while matplotlib loads, which takes long
        from nas.report import summarize
        from nas.report.page import write_summary

        summary = summarize(folder)
        with answering():
            _print(summary)  # first, so that it appears even if the page cannot be written
        try:
            page = write_summary(folder, summary, out)
        except OSError as error:
            raise UserError(f"expected a folder that the page can be written to: {error}; give another --out") from None
    with answering():
        print(f"\n{page} (the same as data: {FIGURES} beside it)")


def _require_place(out: Path) -> None:
    """Raises: UserError for a folder that the page of one run cannot be written to without losing other files."""
    from nas.report.page import MARKS
    from space.errors import UserError

    if out.suffix in (".yaml", ".html"):
        raise UserError(f"--out: expected a folder for the page of one run, got {out}; give {out.with_suffix('')}, say")
    output.require_folder(out)
    output.require_replaceable(out, MARKS, "report")


def _print(summary: Summary) -> None:
    from nas.report.going import going_words
    from nas.report.sentences import efforts, headline
    from nas.report.terminal import frontier_table, leaderboard_table

    print(headline(summary))
    if summary.going.steps:
        print(going_words(summary.going))
    for note in summary.notes:
        print(f"note: {note}")
    if summary.leaderboard:
        print(f"\n{leaderboard_table(summary)}\n")
        for words in efforts(summary):
            print(words)
    if summary.answers:
        print(f"\n{frontier_table(summary)}", flush=True)


def _several(folders: Sequence[RunFolder], out: str | None) -> None:
    """Print the winners of several runs and their gain over other networks as means, and write them to `out`."""
    from pathlib import Path

    from nas.runs.alike import require_alike
    from nas.terminal import answering

    if out:
        _require_new(Path(out))
        output.require_folder(Path(out).parent)  # before anything is read
    common.say(f"reading {len(folders)} runs")
    require_alike(folders)

    from nas.latency.machine import lane

    with lane.shared():
        from nas.report import summarize
        from nas.report.several import several_table, summarize_several

        several = summarize_several([summarize(each) for each in folders])
    with answering():
        print(several_table(several))
    if out:
        from nas.storage.files import write_text
        from space import strict

        _require_new(Path(out))  # one may have appeared meanwhile
        write_text(Path(out), strict.dump(several))
        with answering():
            print(f"\n{out}")


def _require_new(out: Path) -> None:
    """Raises: UserError for an existing file, or another suffix."""
    from space.errors import UserError

    if out.suffix != ".yaml" or os.path.lexists(out):
        raise UserError(f"--out: expected a new file that ends in .yaml, got {out}; give another one")
