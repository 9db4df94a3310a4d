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
    """With `pytest -n 2` each worker and its child processes keep to one core, which no other worker uses.

    Timings need not wait for the other worker's training steps either: each worker has its own folder of locks.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
        folder = Path(tempfile.gettempdir()) / f"framebudget-tests-{os.getuid()}-{worker}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


_keep_to_one_core()  # before any import of a module that remembers the cores of its start


def pytest_configure() -> None:
    """Undo ignored signals: in a shell's background or under nohup, child processes would inherit them."""
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
    """Keep loaded modules out of garbage collections, which would take seconds to look through them again and again."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks of test size are slower with several threads than with one, and far slower beside another process."""
    import torch  # here, so that the process that only distributes tests does not load it

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests have a cache of their own: they neither read nor fill the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shallow() -> Callable[[str], Architecture]:
    """A published network with one block in each stage: all its kinds of layers, but few layers to export."""
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
    """The module that records results which must not change."""
    return _module_in("unchanged/record.py")


@pytest.fixture(scope="session")
def others() -> ModuleType:
    """Networks of other projects in plain PyTorch, whose weights have the names of their published files."""
    return _module_in("nas/training/networks_of_others.py")


def _module_in(file: str) -> ModuleType:
    """A helper module in a folder of tests, which is no package."""
    path = Path(__file__).parent / file
    specification = importlib.util.spec_from_file_location(f"tests_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
