"""Names, sizes and answers of networks, and the end of one search, are as recorded (see `record.py`)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from space import Architecture

SEARCHED = 2  # epochs of a candidate before it is finished


@pytest.fixture(scope="module")
def drawn(record: ModuleType) -> list[tuple[str, Architecture]]:
    return list(record.architectures())


@pytest.mark.share(8)
@pytest.mark.parametrize("part", range(8))
def test_architectures_keep_their_recorded_keys_and_sizes(
    part: int, drawn: list[tuple[str, Architecture]], record: ModuleType
) -> None:
    expected = record.read("names.csv")
    assert len(expected) > record.DRAWN
    assert [record.names(*each) for each in drawn[part::8]] == expected[part::8]


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
def test_networks_with_fixed_weights_keep_their_recorded_answers(
    part: int, drawn: list[tuple[str, Architecture]], record: ModuleType
) -> None:
    expected = record.read("answers.csv")[part::4]
    found = [record.answers(*each) for each in list(record.computed(drawn))[part::4]]
    assert [name for name, *_ in found] == [name for name, *_ in expected]
    for (name, *numbers), (_, *wanted) in zip(found, expected, strict=True):
        assert [float(number) for number in numbers] == pytest.approx([float(number) for number in wanted], rel=1e-8), (
            name
        )


@pytest.mark.slow
@pytest.mark.parametrize("prune", [False, True])
def test_a_search_with_a_fixed_seed_ends_as_recorded(prune: bool, tmp_path: Path, record: ModuleType) -> None:
    """The default run tests it by the interrupted search in `tests/nas/search/test_search_end_to_end.py`.

    Latencies are the simulated device's, and exact; training rounds differently from processor to processor. The
    recorded winner was pruned; without pruning, the winner is the one finalist.
    """
    found = list(record.search(tmp_path, prune=prune))
    expected = record.read("search.csv")
    if not prune:
        expected = [row for row in expected[:-1] if row[0] != record.PRUNED]
        (finalist,) = (row for row in expected if row[0] not in record.PUBLISHED and len(row[4].split()) > SEARCHED)
        expected.append(("winner", *finalist[1:4], finalist[4].split()[-1]))
    assert [row[:4] for row in found] == [row[:4] for row in expected]
    for (name, *_, mious), (*_, wanted) in zip(found, expected, strict=True):
        scores, wanted_scores = ([float(score) for score in text.split()] for text in (mious, wanted))
        assert scores == pytest.approx(wanted_scores, abs=0.05), name
