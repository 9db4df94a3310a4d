"""Prefixes of layer names, and what can be read from a name: the part of the network, the block, and its place in the
order of computation.
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
"""All prefixes; parts that may occur several times are followed by a number."""
BEHIND = 1000
"""A place after all numbered ones."""


def part_of(name: str) -> str | None:
    """The entry of `PARTS` that a layer or module belongs to, by its name; None for an unknown name. `lateral_norm` is
    part of `lateral`: a part of a single layer may have its normalisation beside it.
    """
    found = re.match(rf"({'|'.join(PARTS)})\d*(_norm)?(\.|$)", name)
    return None if found is None else found[1]


def block_of(layer: str) -> str:
    """The unit of a network that a layer belongs to, by its name: the stem, a block, a stage's downsampler or fusion,
    an exchange, a block or another numbered part of a decoder, the rest of the decoder, the context, a head.

    Weights are transferred between networks by whole units.
    """
    found = re.match(
        rf"({STAGE}|{DETAIL})\d+\.[a-z]+\d*|{DECODER}\.step\d+\.block\d+|{DECODER}\.[a-z]+\d+|[a-z]+\d*", layer
    )
    return layer if found is None else found[0]


def branch_start(layers: Iterable[str]) -> int:
    """Index of the stage beside the first part of a detail branch; without a branch, the number of stages."""
    parts = {found[0] for layer in layers if (found := re.match(rf"({STAGE}|{DETAIL})\d+", layer))}
    return sum(1 if part_of(part) == STAGE else -1 for part in parts)


def place_of(block: str, start: int) -> tuple[int, int, int]:
    """Sort key of a block in the order of computation: its stage; then trunk, detail branch or exchange; then its
    position in the stage. The stem comes first; parts after the stages come last, steps of a decoder after the others.
    `start`: the `branch_start` of the network.
    """
    found = re.match(rf"({STAGE}|{DETAIL}|{EXCHANGE}|{DECODER}\.step)(\d+)(?:\.([a-z]+)(\d*))?", block)
    if found is None:
        return (-1 if block == STEM else BEHIND, 0, 0)
    part, row, kind, number = found[1], int(found[2]), found[3], found[4]
    within = int(number) if number else BEHIND if kind == "fuse" else -1  # the downsampler, `down`, comes first
    if part == f"{DECODER}.step":
        return BEHIND, 1 + row, within
    return row + (0 if part == STAGE else start), (STAGE, DETAIL, EXCHANGE).index(part), within
