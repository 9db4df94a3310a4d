"""The zoo: winners of our own studies that come with the package, each a winner's folder with a name.

In a checkout, `winners/` has links to their folders among the studies; an installed package has the folders themselves.
A winner is described by its certificate.
"""

from __future__ import annotations

from pathlib import Path

from nas.runs.certificate import CERTIFICATE

WINNERS = Path(__file__).with_name("winners")


def names() -> tuple[str, ...]:
    """Names of the winners, sorted."""
    return tuple(sorted(file.parent.name for file in WINNERS.glob(f"*/{CERTIFICATE}")))
