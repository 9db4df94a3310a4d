"""Descriptions of architectures in words: every part of a network is described."""

from __future__ import annotations

from dataclasses import replace

import space
from nas.report.words import describe


def test_a_network_of_two_branches_is_described_part_by_part() -> None:
    parts = describe(space.load("rdrnet-s-simple"))
    assert {"Detail branch", "Context", "Convolutions"} <= parts.keys()
    assert "parallel paths" in parts["Convolutions"]
    assert "Convolutions" not in describe(space.load("ddrnet23-slim"))


def test_labels_that_stand_for_several_pixels_are_described() -> None:
    assert "Labels" not in describe(space.load("fast-scnn"))
    assert describe(replace(space.load("fast-scnn"), label_stride=4))["Labels"] == (
        "at 1/4 of the image size: one label for 4x4 pixels"
    )
