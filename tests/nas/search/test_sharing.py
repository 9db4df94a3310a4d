"""The number of trainings that share a GPU: values of a study, and the choice of a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from nas.data import DataSpec
from nas.search.train import sharing
from nas.search.train.sharing import Pace, choose, probe
from nas.study import SearchPlan, Study, built_in_study
from space import strict
from space.errors import UserError

SMALL = """
data: {name: road_scenes, size: [48, 64], train_images: 4, validation_images: 2}
budget: 10ms
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 2}
search: {trials_per_gpu: %s}
"""
GIGABYTE = 10**9


@pytest.mark.parametrize("given", ["0", "-1", "0.5", "1.5", "some", "33", "true", "[2]"])
def test_impossible_numbers_of_trainings_per_gpu_are_refused_in_one_line(given: str) -> None:
    with pytest.raises(UserError, match="trials_per_gpu") as refused:
        strict.parse(SMALL % given, Study, "study.yaml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", [1, 2, 32, "auto"])
def test_a_study_keeps_its_number_of_trainings_per_gpu(given: int | str) -> None:
    study = strict.parse(SMALL % given, Study, "study.yaml")
    assert study.search.trials_per_gpu == given
    assert strict.parse(study.to_yaml(), Study, "study.yaml") == study


def test_a_study_without_shared_gpus_is_written_as_in_earlier_versions() -> None:
    assert SearchPlan().trials_per_gpu == 1
    assert "trials_per_gpu" not in built_in_study("10ms").to_yaml()


@pytest.mark.parametrize(
    ("rates", "room", "expected"),
    [
        ({1: 100, 2: 110}, 80, 1),  # barely faster
        ({1: 100, 2: 180, 4: 190}, 80, 2),
        ({1: 100, 2: 180, 4: 300}, 80, 4),
        ({1: 100, 2: 180}, 30, 2),  # four do not fit into memory and are not tried
        ({1: 100}, 19, 1),
        ({1: 100, 2: None}, 80, 1),  # two trainings fail
        ({1: None}, 80, 1),
    ],
)
def test_trainings_share_a_gpu_if_all_together_are_faster_and_fit_into_memory(
    rates: Mapping[int, float | None], room: int, expected: int
) -> None:
    def paces(count: int) -> Pace | None:
        rate = rates[count]
        return None if rate is None else Pace(images_per_second=rate, most_bytes=10 * GIGABYTE)

    assert choose(paces, room * GIGABYTE).count == expected


@pytest.mark.slow
def test_a_probe_trains_side_by_side_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "SECONDS", 0.5)
    monkeypatch.setattr(sharing, "WORTH", 0.0)  # the speed of this machine must not matter
    monkeypatch.setattr(sharing, "COUNTS", (1, 2))
    small = built_in_study("10ms")
    study = replace(
        small,
        data=DataSpec(size=(48, 64), train_images=4, validation_images=2),
        recipe=replace(small.recipe, crop=None, batch_size=2),
        search=SearchPlan(seeds=("ndnet45-fcn32",)),
    )
    found = probe(study, 3, "cpu")
    assert found.count == 2, found.words
    assert "GB alone" in found.words
