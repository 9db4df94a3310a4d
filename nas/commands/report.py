"""`nas report`: a run as one HTML file, as data, and in short on the terminal."""

from __future__ import annotations

import argparse

from nas.commands import common

EPILOG = """\
example:
  nas report runs/night"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    parser.add_argument("run_folder", metavar="RUN", type=common.path, help="a run's folder, finished or not")


def run(options: argparse.Namespace) -> None:
    """Write report.html and report.yaml into the run's folder and print what matters most.

    Raises: UserError when there is no run in the folder, or one of its files is damaged.
    """
    from pathlib import Path

    from nas.runs.folder import RunFolder

    folder = RunFolder.open(Path(options.run_folder))
    common.say(f"reading {folder.root}")

    from nas.latency.machine import lane

    with lane.training_step():  # all that takes long, loading matplotlib too: nobody's timing is disturbed
        from nas.report import summarize
        from nas.report.going import going_words
        from nas.report.page import FIGURES, write_summary
        from nas.report.sentences import efforts, headline
        from nas.report.terminal import frontier_table, leaderboard_table

        summary = summarize(folder)
        page = write_summary(folder, summary)
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
        print(f"\n{frontier_table(summary)}")
    print(f"\n{page} (figures as data: {FIGURES} beside it)")
