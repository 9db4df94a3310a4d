"""The winner of a run that was asked for one budget, where it is asked for several now."""

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
    """Put the winner of the one budget that was asked for before among those of several, once these are certified: a
    search that is refused leaves it where it was. Where there is one for that budget already, it is the newer one.
    What somebody put beside one stays. What to say of one that is left where it is, else nothing.
    """
    if not (study.budgets and (run.winner / CERTIFICATE).is_file()):
        return ""
    try:
        asked = read_certificate(run.winner).budget
    except UserError as error:
        return f"the winner of before is left where it is: {error}"
    if asked is None:  # no search put it there
        return ""
    place = run.root / WINNERS / Budget.parse(asked).name
    if (place / CERTIFICATE).is_file():
        _remove_network(run.winner)
        return ""
    _remove_network(place)  # without a certificate it is none
    if place.exists():
        return f"the winner of before is left where it is: {place} holds something else"
    place.parent.mkdir(exist_ok=True)
    run.winner.rename(place)
    return ""


def _remove_network(folder: Path) -> None:
    """Remove what `write_winner` puts in a folder, and the folder if nothing else is in it."""
    for name in (CERTIFICATE, ARCHITECTURE, WEIGHTS, MODEL, DATA_SEEN):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
