"""`nas search`: the whole way."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    parser.add_argument("--address", metavar="HOST:PORT", help="train on this Ray cluster; 'auto' finds a local one")


def run(options: argparse.Namespace) -> None:
    """Search.

    Raises: UserError for options, studies and budgets that do not fit.
    """
    from nas.search.address import address_of, require_short_folder

    if options.address is None:
        require_short_folder()
    else:
        address_of(options.address)
    folder = _resumed(options) if options.resume else _new(options)
    from nas.search.engine import search

    try:
        search(folder, address=options.address)
    except KeyboardInterrupt:
        print(f"\nnothing finished is lost; go on with: nas search --resume {folder.root}", flush=True)
        raise


def _new(options: argparse.Namespace) -> RunFolder:
    from dataclasses import replace
    from datetime import datetime
    from pathlib import Path

    from nas.runs.folder import RunFolder
    from nas.study import built_in_study, load_study
    from space.errors import UserError

    if options.study is None and options.budget is None:
        raise UserError("expected a study or a budget, got neither; try: nas search --budget 10ms")
    study = built_in_study(options.budget) if options.study is None else load_study(options.study)
    if options.budget:
        study = replace(study, budget=options.budget)
    if options.target:
        study = replace(study, target=options.target)
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
    return folder
