from __future__ import annotations

import gc
import importlib.util
import os
import signal
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

import space
from nas.cli import collect_less_often
from space import Architecture
from space.head import Head
from space.stage import Stage
from space.stem import Stem

if TYPE_CHECKING:
    from torch import Tensor, nn

THIN = Stem(kind="convs", width=4)


def _keep_to_one_core() -> None:
    """With `pytest -n 2` each worker, and all that it starts, keeps to one core, where it times alone.

    So its timings need not wait for the other worker's training steps either: it has its own folder of locks.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
        folder = Path(tempfile.gettempdir()) / f"framebudget-tests-{os.getuid()}-{worker}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


_keep_to_one_core()  # before other files of this kind are imported, and what remembers the cores that it begins with


def pytest_configure() -> None:
    """In the background of a shell, or under nohup, signals are ignored, and children would inherit that."""
    collect_less_often()
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `share(n)` one in n of its cases is run by default, the others are slow.

    Which ones depends on the test's name: every network is looked at by some tests of each kind, and every test looks
    at some networks.
    """
    tests: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("share") is not None:
            tests[item.nodeid.partition("[")[0]].append(item)
    for name, cases in tests.items():
        share = cases[0].get_closest_marker("share").args[0]
        first = zlib.crc32(name.encode()) % min(share, len(cases))
        for index, case in enumerate(cases):
            if index % share != first:
                case.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """All that was loaded stays: to look for garbage among it, over and over, takes seconds."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks of test size are slower with several threads than with one, and far slower beside another process."""
    import torch  # not by the process that only deals the tests out

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is found in, or left in, the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shallow() -> Callable[[str], Architecture]:
    """A published network with one block in each stage: every kind of layer that it has, and few of each to export."""
    return _shallow


def _shallow(name: str) -> Architecture:
    whole = space.load(name)
    return replace(whole, stages=tuple(stage.kept((0,)) for stage in whole.stages))


@pytest.fixture(scope="session")
def plain_network() -> Callable[..., Architecture]:
    """A tiny network of `plain` blocks under a linear head: stages of some widths and depths, each of stride 2."""
    return _plain_network


def _plain_network(*stages: tuple[int, int], stem: Stem = THIN, rep: bool = False) -> Architecture:
    return Architecture(
        stem=stem,
        stages=tuple(Stage(block="plain", width=width, depth=depth, stride=2) for width, depth in stages),
        context=None,
        decoder=None,
        head=Head(kind="linear"),
        activation="relu",
        levels=1,
        norm_epsilon=0.001,
        bias=False,
        align_corners=False,
        rep=rep,
    )


@pytest.fixture(scope="session")
def flops() -> Callable[[nn.Module, Tensor], int]:
    """The floating-point operations of a network's answer to an image, by PyTorch's own formulas."""
    counted: Callable[[nn.Module, Tensor], int] = _module_in("flops.py").flops_of
    return counted


@pytest.fixture(scope="session")
def record() -> ModuleType:
    """What is recorded of results that must not change, and how."""
    return _module_in("unchanged/record.py")


@pytest.fixture(scope="session")
def others() -> ModuleType:
    """Networks of others in plain PyTorch, with the names of their files."""
    return _module_in("nas/training/networks_of_others.py")


def _module_in(file: str) -> ModuleType:
    """A module beside tests, which are not packages."""
    path = Path(__file__).parent / file
    specification = importlib.util.spec_from_file_location(f"tests_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
