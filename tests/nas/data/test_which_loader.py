"""The choice of a loader for a device, and refused requests for loaders."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from nas.data import Dataset, make_loader
from nas.data import loader as loader_module
from nas.data.loader import usual_threads
from nas.errors import DataError
from nas.host.cores import usable_cores


def test_pytorch_reads_without_dali_and_logs_it_once(
    load_tiny: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setattr(loader_module, "_dali_is_installed", lambda: False)
    loader_module.dali_works.cache_clear()
    with caplog.at_level(logging.WARNING):
        loaders = [make_loader(load_tiny(), "train", batch_size=2, augmentation=None) for _ in range(2)]
    loader_module.dali_works.cache_clear()
    assert [loader.backend for loader in loaders] == ["torch", "torch"]
    assert caplog.text.count("DALI is not installed") == 1
    with pytest.raises(DataError, match="pip install"):
        make_loader(load_tiny(), "train", batch_size=2, augmentation=None, backend="dali")


def test_pictures_for_a_gpu_are_made_by_all_cores_by_default() -> None:
    assert usual_threads("cpu") == 1, "whose cores are at work on the batch before"
    assert usual_threads("cuda") == usual_threads("cuda:1") == usable_cores()


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"threads": 0}, {"seed": -1}])
def test_impossible_loaders_are_refused(load_tiny: Callable[..., Dataset], wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        make_loader(load_tiny(), "train", **{"batch_size": 2, "augmentation": None, **wrong})  # type: ignore[arg-type]


def test_a_batch_too_large_for_memory_is_refused_with_a_fitting_size(load_tiny: Callable[..., Dataset]) -> None:
    side = math.isqrt(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 100)
    for size, advice in (((side, side), "give a batch of 2 at most"), ((4 * side, 4 * side), "give a smaller size")):
        with pytest.raises(DataError, match=rf"got 5 images of {size[0]}x{size[1]} .*{advice}"):
            make_loader(replace(load_tiny(), size=size), "train", batch_size=8, augmentation=None)


def test_a_dali_that_does_not_work_on_the_device_is_found_before_reading(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("DALI works on a GPU here")
    loader_module.dali_works.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert loader_module.dali_works("cpu") == loader_module._dali_is_installed()
        assert not loader_module.dali_works("cuda:0")
    loader_module.dali_works.cache_clear()
    assert "DALI does not work on cuda:0" in caplog.text or "DALI is not installed" in caplog.text
