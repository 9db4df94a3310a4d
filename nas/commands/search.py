"""`nas search`: search, train and certify."""

from __future__ import annotations

import argparse
import errno
import re
from typing import TYPE_CHECKING

from nas.commands.shared import common, ending, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.latency.budget import Verdict
    from nas.runs.folder import RunFolder
    from nas.study import Study

EXAMPLES = """examples:
  nas search --budget 10ms                        the built-in road scenes on this machine
  nas search studies/camvid/study.yaml            a study of your own
  nas search --budget 10ms --budget 20ms          a winner for each budget, from one search
  nas search --frontier --budget 40ms             a winner for each of up to five budgets, the largest 40 ms
  nas search --resume runs/night --budget 8ms     continue with another budget (a run with several: with one more)
  nas search other.yaml --from runs/night         a new run that uses the results of an earlier one
  nas search --resume runs/night --data /new/place    continue after the data were moved"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas search`."""
    parser.epilog = EXAMPLES
    common.add_study(parser)
    common.add_budgets(parser, "give it several times for a winner each")
    parser.add_argument(
        "--frontier",
        action="store_true",
        help="find a winner for each of up to five budgets, from the fastest network's latency up to --budget",
    )
    parser.add_argument("--target", metavar="TARGET", help="runtime and device to time on, such as onnxruntime@cpu:1")
    parser.add_argument("--out", metavar="DIR", type=common.path, help="the run's folder (default: a new one in runs/)")
    parser.add_argument("--resume", metavar="RUN", type=common.path, help="continue the run in this folder")
    parser.add_argument(
        "--from",
        metavar="RUN",
        dest="earlier",
        type=common.path,
        action="append",
        default=[],
        help="use the results of an earlier run on the same data; may be given several times",
    )
    parser.add_argument("--data", metavar="DIR", type=common.path, help="folder of the study's or run's data")
    parser.add_argument(
        "--minutes",
        metavar="N",
        help="finish in about N minutes: stop proposing candidates when the finalists can just be finished in time, "
        "even if trials of the study are left. With --resume, N covers all commands of the run; another --budget "
        "starts the count anew. 0: no limit",
    )
    parser.add_argument(
        "--company",
        metavar="NAMES",
        help="published networks, separated by commas, to train at their own width as long as a finalist; 'all': every "
        "published network",
    )
    common.add_patience(parser)
    parser.add_argument("--address", metavar="HOST:PORT", help="train on this Ray cluster; 'auto' finds a local one")


def run(options: argparse.Namespace) -> Verdict | None:
    """Search, as the owner of the run's folder. Returns the verdict of the winner's certificate, the worst one of
    several budgets. A new run that is refused leaves no folder.

    Raises: UserError for options, studies and budgets that do not fit, and when the run is in use; HaltedError when
    something other than a candidate stopped the search.
    """
    from pathlib import Path

    from nas.errors import HaltedError
    from nas.runs.folder import STUDY, RunFolder
    from nas.search.cluster.address import address_of, require_plain_paths, require_short_folder
    from space.errors import UserError

    if options.address is None:
        require_short_folder()
        require_plain_paths()
    else:
        address_of(options.address)
    earlier = [RunFolder.open(Path(each)) for each in options.earlier]
    folder, study = _resumed(options) if options.resume else _new(options)
    with output.owned(folder.root, resume=bool(options.resume)):
        common.say(f"searching within {study.asked}, run {folder.root}")
        from nas.search.engine import search  # takes seconds to load, so errors above come first

        before = None
        if options.resume:
            before = _ask(folder, study, options.budgets)
        else:
            output.require_folder_for("a run", folder.root, STUDY)
            RunFolder.create(folder.root, study, earlier=earlier)
        known = _known(folder)
        with ending.told(lambda: f"nothing finished is lost; go on with: {folder.resume}"):
            try:
                found = search(folder, address=options.address)
                return _worst([each.verdict for each in found.values()], missing=len(folder.study().asked) - len(found))
            except (HaltedError, BrokenPipeError):
                raise
            except OSError as error:
                raise HaltedError(
                    f"{error}; nothing finished is lost: make room on the disk, or correct what the error names, then "
                    f"go on with: {folder.resume}"
                ) from error
            except UserError:
                if before is None:
                    folder.withdraw()
                elif _known(folder) == known:  # refused before anything was measured or trained for it
                    folder.put_back(before)
                raise


def _worst(verdicts: Sequence[Verdict | None], missing: int) -> Verdict | None:
    """The worst of the verdicts on all budgets; if any winner is `missing`, FAIL."""
    order: tuple[Verdict, ...] = ("FAIL", "UNSURE", "PASS")
    return "FAIL" if missing else next((each for each in order if each in verdicts), None)


def _ask(folder: RunFolder, study: Study, budgets: Sequence[str]) -> dict[str, str | None]:
    """Write a resumed run's study, and have those of `budgets` tried again that were given up. Returns the texts of the
    run's question as they were before. If the question is another one, the run's time limit starts anew.
    """
    from nas.latency.budget import Budgets
    from nas.runs.spent import forget_spent
    from nas.runs.unreached import ask_again

    question, before = folder.question(), folder.study()
    again = bool(budgets) and ask_again(folder, Budgets.parse(budgets))
    if before != study:
        folder.write_study(study)
    if again or (before.asked, before.frontier) != (study.asked, study.frontier):
        forget_spent(folder)
    return question


def _known(folder: RunFolder) -> list[tuple[str, float, int, int]]:
    """The progress of each trial of a run: its key, the budget it was made for, and its epochs of search and finish."""
    return [
        (
            trial.architecture.key,
            trial.budget_milliseconds,
            len(folder.progress(trial, "search").history),
            len(folder.progress(trial, "finish").history),
        )
        for trial in (*folder.trials(), *folder.company())
    ]


def _new(options: argparse.Namespace) -> tuple[RunFolder, Study]:
    """A folder for a new run, and its study."""
    from dataclasses import replace
    from datetime import datetime
    from pathlib import Path

    from nas.runs.folder import RunFolder
    from nas.study import load_study, without_minutes_of_one
    from space.errors import UserError

    if options.data and options.study is None:
        raise UserError("--data: expected --resume or a study, whose data it replaces, got neither; give one of them")
    if options.study is None and not options.budgets:
        raise UserError("expected a study or a budget, got neither; try: nas search --budget 10ms")
    study = common.built_in_study(options, options.budgets[0]) if options.study is None else load_study(options.study)
    if options.data:
        study = _with_data_in(options.data, study)
    if options.budgets:
        study = study.asking(options.budgets)
    if options.frontier:
        _require_one(study.budgets)
        study = replace(study, frontier=True)
    if options.study is None:
        study = without_minutes_of_one(study)
    if options.target:
        study = replace(study, target=options.target)
    study = _with_effort(options, study)
    common.look_at_space(study, options.study)
    if options.out:
        return RunFolder(Path(options.out)), study
    name = Path(options.study).stem if options.study else "road_scenes"
    try:
        return RunFolder.claim(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"), study
    except OSError as error:
        if error.errno == errno.ENOSPC:  # another folder on the same disk would not help
            raise
        raise output.unwritable(Path("runs"), error) from None


def _resumed(options: argparse.Namespace) -> tuple[RunFolder, Study]:
    """The folder of a run to resume, and its study with the options of this command."""
    from dataclasses import replace
    from pathlib import Path

    from nas.runs.folder import RunFolder
    from nas.storage.files import expanded
    from nas.study import has_built_in_minutes, without_minutes_of_one
    from space.errors import UserError

    if options.earlier:
        raise UserError("--from is for new runs, which take over earlier results when they begin; leave it out")
    for name in ("study", "target", "out"):
        if getattr(options, name):
            raise UserError(f"--resume continues a run as it began; leave out {name}, or start a new run")
    folder = RunFolder.open(Path(options.resume))
    study = folder.study()
    if options.data:
        study = _with_data_in(options.data, study)
    elif study.data.root is not None and not expanded(study.data.root).is_dir():
        raise UserError(
            f"{study.data.root}, which held the data of this run, is not a folder here; go on with: "
            f"{folder.resume} --data DIR"
        )
    several = bool(study.budgets)
    if options.budgets:
        study = study.asking_also(options.budgets)
    if options.frontier:
        if several:
            common.say(f"note: --frontier: this run has several budgets already, and keeps {study.asked}")
        else:
            _require_one(study.budgets)
            study = replace(study, frontier=True)
    if not several and has_built_in_minutes(study):
        study = without_minutes_of_one(study)
    return folder, _with_effort(options, study)


def _with_effort(options: argparse.Namespace, study: Study) -> Study:
    """The study with the company, minutes and patience of the options."""
    from dataclasses import replace

    if options.company:
        company = tuple(name.strip() for name in options.company.split(","))
        study = replace(study, search=replace(study.search, company=company))
    if options.patience:
        study = replace(study, patience_seconds=common.patience(options))
    if options.minutes is not None:
        study = replace(study, search=replace(study.search, minutes=_minutes(options.minutes)))
    return study


def _minutes(text: str) -> float:
    from space.errors import UserError

    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text.strip()):
        raise UserError(f"--minutes: expected a number of minutes such as 45 or 2.5, got {text!r}; 0 is no limit")
    return float(text)


def _require_one(budgets: Sequence[str]) -> None:
    """Raises: UserError when there are several budgets; a frontier has one, its largest."""
    from space.errors import UserError

    if budgets:
        raise UserError(
            f"--frontier: expected one budget, the largest of the frontier, got {', '.join(budgets)}; leave "
            "--frontier out, or give one --budget"
        )


def _with_data_in(data: str, study: Study) -> Study:
    """The study with its data set in the folder `data`; like other commands it also takes `SET:DIR`.

    Raises: UserError for a path that is no folder, and for a data set that is generated.
    """
    from dataclasses import replace

    from nas.data import DataSpec
    from nas.storage.files import expanded
    from space.errors import UserError

    name = study.data.name
    if name == DataSpec().name:
        raise UserError(f"--data: the data of this search, {name}, are generated and in no folder; leave it out")
    folder = expanded(data.removeprefix(f"{name}:"))
    if not folder.is_dir():
        raise UserError(f"--data: expected the folder that holds the images of {name}, got {data}; check the path")
    return replace(study, data=replace(study.data, root=str(folder.absolute())))
