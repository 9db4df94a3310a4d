"""The zoo: winners of our own studies that come with the package, each a winner's folder, by name.

`winners/` links to where they lie among the studies, and holds them where the package is installed. What is known of
one is what its certificate says.
"""

from __future__ import annotations

from pathlib import Path

from nas.runs.certificate import CERTIFICATE

WINNERS = Path(__file__).with_name("winners")


def names() -> tuple[str, ...]:
    """Names of the winners, sorted."""
    return tuple(sorted(file.parent.name for file in WINNERS.glob(f"*/{CERTIFICATE}")))
