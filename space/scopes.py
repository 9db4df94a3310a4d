"""What the names of a network's layers begin with, and what they tell: which part of it a layer is in, which block, and
where that is computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

STEM = "stem"
STAGE = "stage"
DETAIL = "detail"
EXCHANGE = "exchange"
CONTEXT = "context"
LATERAL = "lateral"
DECODER = "decoder"
HEAD = "head"
AUXILIARY = "auxiliary"
HEADS = (HEAD, AUXILIARY)
PARTS = (STEM, STAGE, DETAIL, EXCHANGE, CONTEXT, LATERAL, DECODER, *HEADS)
"""All of them, before a number where there may be several."""
BEHIND = 1000
"""A place behind all that are counted."""


def part_of(name: str) -> str | None:
    """The one of `PARTS` that a layer, or a larger piece of a network, is in by its name; None for a name of others. A
    part of one layer may have a normalisation beside it, `lateral_norm`.
    """
    found = re.match(rf"({'|'.join(PARTS)})\d*(_norm)?(\.|$)", name)
    return None if found is None else found[1]


def block_of(layer: str) -> str:
    """What of a network a layer is in, which is taken whole or not at all: the stem, a block, how a stage opens or what
    it fuses, an exchange, a step or another numbered part of a decoder, the rest of one, a context, a head.
    """
    found = re.match(
        rf"({STAGE}|{DETAIL})\d+\.[a-z]+\d*|{DECODER}\.step\d+\.block\d+|{DECODER}\.[a-z]+\d+|[a-z]+\d*", layer
    )
    return layer if found is None else found[0]


def branch_start(layers: Iterable[str]) -> int:
    """The stage beside which the first part of a detail branch stands; one more than there are without a branch."""
    parts = {found[0] for layer in layers if (found := re.match(rf"({STAGE}|{DETAIL})\d+", layer))}
    return sum(1 if part_of(part) == STAGE else -1 for part in parts)


def place_of(block: str, start: int) -> tuple[int, int, int]:
    """Where a block is computed, in an order: its stage; whether in the trunk, the branch or their exchange; which of
    its row it is. Behind the stages, where steps of a decoder come last. `start`: the `branch_start` of its network.
    """
    found = re.match(rf"({STAGE}|{DETAIL}|{EXCHANGE}|{DECODER}\.step)(\d+)(?:\.([a-z]+)(\d*))?", block)
    if found is None:
        return (-1 if block == STEM else BEHIND, 0, 0)
    part, row, kind, number = found[1], int(found[2]), found[3], found[4]
    within = int(number) if number else BEHIND if kind == "fuse" else -1  # a row begins with how it opens
    if part == f"{DECODER}.step":
        return BEHIND, 1 + row, within
    return row + (0 if part == STAGE else start), (STAGE, DETAIL, EXCHANGE).index(part), within
