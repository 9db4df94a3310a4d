"""Moves the winner of a run that was asked for one budget, once the run is asked for several."""

from __future__ import annotations

import contextlib
from pathlib import Path

from nas.latency.budget import Budget
from nas.runs.certificate import CERTIFICATE, MODEL, read_certificate
from nas.runs.data_seen import FILE as DATA_SEEN
from nas.runs.folder import WINNERS, RunFolder
from nas.runs.labelling import ARCHITECTURE, WEIGHTS
from nas.study import Study
from space.errors import UserError


def gather_winners(run: RunFolder, study: Study) -> str:
    """Move the winner of the run's former single budget among those of several budgets. Call it once these are
    certified, so that a search that is refused leaves the old winner in place. Where there is a winner for that budget
    already, it is newer, and the old one is removed. Other files beside a winner stay. Returns why the old winner was
    not moved, or an empty string.
    """
    if not (study.budgets and (run.winner / CERTIFICATE).is_file()):
        return ""
    try:
        asked = read_certificate(run.winner).budget
    except UserError as error:
        return f"the earlier winner stays in {run.winner}: {error}"
    if asked is None:  # certified without a budget, so not by a search
        return ""
    place = run.root / WINNERS / Budget.parse(asked).name
    if (place / CERTIFICATE).is_file():
        _remove_network(run.winner)
        return ""
    _remove_network(place)  # files without a certificate are no winner
    if place.exists():
        return f"the earlier winner stays in {run.winner}: {place} holds something else"
    place.parent.mkdir(exist_ok=True)
    run.winner.rename(place)
    return ""


def _remove_network(folder: Path) -> None:
    """Remove the files that `write_winner` puts into a folder, and the folder if nothing else is in it."""
    for name in (CERTIFICATE, ARCHITECTURE, WEIGHTS, MODEL, DATA_SEEN):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
