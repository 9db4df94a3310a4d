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
  nas search --resume runs/night --budget 8ms     go on, also with another budget
  nas search --resume runs/night --data /new/place    go on after the data were moved"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas search`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "study",
        nargs="?",
        metavar="STUDY",
        type=common.path,
        help="a study's YAML file (default: built-in road scenes)",
    )
    parser.add_argument("--budget", metavar="TIME", help="10ms, 100fps or '10ms p90'; overrides the study's")
    parser.add_argument("--target", metavar="TARGET", help="where latency counts, such as onnxruntime@cpu:1")
    parser.add_argument("--out", metavar="DIR", type=common.path, help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--resume", metavar="RUN", type=common.path, help="go on with the run in this folder")
    parser.add_argument("--data", metavar="DIR", type=common.path, help="with --resume: where the run's data are now")
    common.add_patience(parser)
    parser.add_argument("--address", metavar="HOST:PORT", help="train on this Ray cluster; 'auto' finds a local one")


def run(options: argparse.Namespace) -> Verdict | None:
    """Search; what the winner's certificate says.

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
        return search(folder, address=options.address).verdict
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

    if options.data:
        raise UserError(
            "--data goes with --resume, for data that were moved; a new search's study names its data itself"
        )
    if options.study is None and options.budget is None:
        raise UserError("expected a study or a budget, got neither; try: nas search --budget 10ms")
    study = built_in_study(options.budget) if options.study is None else load_study(options.study)
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
    from nas.storage.files import expanded
    from space.errors import UserError

    for name in ("study", "target", "out"):
        if getattr(options, name):
            raise UserError(f"--resume goes on with a run as it was asked; leave out {name}, or start a new run")
    folder = RunFolder.open(Path(options.resume))
    study = folder.study()
    if options.data:
        if study.data.root is None:
            raise UserError(f"--data: the data of this run, {study.data.name}, are drawn and lie nowhere; leave it out")
        study = replace(study, data=replace(study.data, root=_moved(options.data, study.data.name)))
    elif study.data.root is not None and not expanded(study.data.root).is_dir():
        raise UserError(
            f"{study.data.root}, where the data of this run were, is not a folder here; go on with: "
            f"nas search --resume {folder.root} --data DIR"
        )
    if options.budget:
        study = replace(study, budget=options.budget)
    if options.patience:
        study = replace(study, patience_seconds=common.patience(options))
    if study != folder.study():
        folder.write_study(study)
    return folder


def _moved(data: str, name: str) -> str:
    """The folder in `DIR`, or in `SET:DIR` as other commands take it.

    Raises: UserError when it is none.
    """
    from nas.storage.files import expanded
    from space.errors import UserError

    folder = expanded(data.removeprefix(f"{name}:"))
    if not folder.is_dir():
        raise UserError(f"--data: expected the folder that holds the run's data now, got {data}; check the path")
    return str(folder.absolute())
