"""`nas search`: the whole way."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nas.commands import common

if TYPE_CHECKING:
    from nas.latency.budget import Verdict
    from nas.runs.folder import RunFolder

EXAMPLES = """examples:
  nas search --budget 10ms                        the built-in road scenes on this machine
  nas search studies/camvid/study.yaml            a study of your own
  nas search --resume runs/night --budget 8ms     go on, also with another budget"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas search`."""
    parser.epilog = EXAMPLES
    parser.add_argument("study", nargs="?", metavar="STUDY", help="a study's YAML file (default: built-in road scenes)")
    parser.add_argument("--budget", metavar="TIME", help="10ms, 100fps or '10ms p90'; overrides the study's")
    parser.add_argument("--target", metavar="TARGET", help="where latency counts, such as onnxruntime@cpu:1")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder")
    common.add_patience(parser)
    parser.add_argument("--address", metavar="HOST:PORT", help="train on this Ray cluster; 'auto' finds a local one")


def run(options: argparse.Namespace) -> Verdict | None:
    """Search; what the winner's certificate says.

    Raises: UserError for options, studies and budgets that do not fit.
    """
    folder = _resumed(options) if options.resume else _new(options)
    from nas.search.engine import search

    try:
        return search(folder, address=options.address).verdict
    except KeyboardInterrupt:
        print(f"\nnothing finished is lost; go on with: nas search --resume {folder.root}", flush=True)
        raise


def _new(options: argparse.Namespace) -> RunFolder:
    from dataclasses import replace
    from datetime import datetime
    from pathlib import Path

    from nas.runs.folder import RunFolder
    from nas.study import load_study
    from space.errors import UserError

    if options.study is None and options.budget is None:
        raise UserError("expected a study or a budget, got neither; try: nas search --budget 10ms")
    study = common.built_in_study(options) if options.study is None else load_study(options.study)
    if options.budget:
        study = replace(study, budget=options.budget)
    if options.target:
        study = replace(study, target=options.target)
    if options.patience:
        study = replace(study, patience_seconds=common.patience(options))
    name = Path(options.study).stem if options.study else "road_scenes"
    default = f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}"
    return RunFolder.create(Path(options.out or default), study)


def _resumed(options: argparse.Namespace) -> RunFolder:
    from dataclasses import replace
    from pathlib import Path

    from nas.runs.folder import RunFolder
    from space.errors import UserError

    for name in ("study", "target", "out"):
        if getattr(options, name):
            raise UserError(f"--resume goes on with a run as it was asked; leave out {name}, or start a new run")
    folder = RunFolder.open(Path(options.resume))
    if options.budget:
        folder.write_study(replace(folder.study(), budget=options.budget))
    if options.patience:
        folder.write_study(replace(folder.study(), patience_seconds=common.patience(options)))
    return folder
