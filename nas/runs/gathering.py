"""The winner of a run that was asked for one budget, where it is asked for several now."""

from __future__ import annotations

import shutil

from nas.latency.budget import Budget
from nas.runs.certificate import CERTIFICATE, read_certificate
from nas.runs.folder import WINNERS, RunFolder
from nas.study import Study
from space.errors import UserError


def gather_winners(run: RunFolder, study: Study) -> str:
    """Put the winner of the one budget that was asked for before among those of several, once these are certified: a
    search that is refused leaves it where it was. Where there is one for that budget already, it is the newer one.
    What to say of one that stays since its certificate cannot be read, else nothing.
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
        shutil.rmtree(run.winner)
        return ""
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)  # without a certificate it is none
    run.winner.rename(place)
    return ""
