"""A runtime of another package: found through its entry point, listed, and measured like a built-in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas.errors import TargetError
from nas.latency import parse_target

TOY = """
PRECISIONS = {"cpu": ("fp32",)}
NOTE = "a toy"

def available(target):
    return None

def versions():
    return {"toy": "3.1"}

def settle(target):
    import torch
    torch.set_num_threads(target.thread_count())

def prepare(network, image, target):
    import torch

    def call():
        with torch.inference_mode():
            return network(image).argmax(1)

    return call
"""
MEASURE = """
import json, space
from nas.latency import Meter, parse_target
with Meter(parse_target("toy@cpu:1"), (64, 96), 4) as meter:
    latency = meter.measure(space.load("ndnet29-fcn32"), within=0.12)
print(json.dumps([latency.target, latency.samples, latency.ratio, latency.environment["toy"]]))
"""
LIST = """
from nas.latency import runtimes
print(*runtimes.names())
print(*runtimes.targets("toy"), runtimes.note(runtimes.load(runtimes.targets("toy")[0])))
"""


def install(site: Path, package: str, **runtimes: str) -> None:
    """Write the files that pip leaves of a package with entry points."""
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {module}" for name, module in runtimes.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[framebudget.runtimes]", *lines, ""]))


def python(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python process in which the packages of `site` are installed."""
    paths = os.pathsep.join([str(site), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(site / "cache")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, one of which has the runtime `toy`."""
    install(tmp_path, "toy_runtime", toy="toy_runtime.on_cpu")
    (tmp_path / "toy_runtime").mkdir()
    (tmp_path / "toy_runtime" / "__init__.py").write_text("")
    (tmp_path / "toy_runtime" / "on_cpu.py").write_text(TOY)
    return tmp_path


def test_a_runtime_of_another_package_is_listed_after_the_built_in_ones(site: Path) -> None:
    done = python(site, LIST)
    assert done.returncode == 0, done.stderr
    names, offers = done.stdout.splitlines()
    assert names.split()[-2:] == ["torch-compile", "toy"]
    assert offers == "toy@cpu a toy"


@pytest.mark.slow
def test_a_runtime_of_another_package_is_measured_like_the_built_in_ones(site: Path) -> None:
    done = python(site, MEASURE)
    assert done.returncode == 0, done.stderr
    target, samples, ratio, version = json.loads(done.stdout)
    assert (target, version) == ("toy@cpu:1", "3.1")
    assert samples >= 5
    assert ratio > 0
    (anchor,) = (site / "cache" / "framebudget" / "anchors").iterdir()
    assert anchor.name.startswith("toy-fp32-64x96-")


def test_a_runtime_that_is_not_installed_is_refused_with_the_known_runtimes() -> None:
    with pytest.raises(TargetError, match=r"expected a runtime of cudagraph, null, .*, got 'toy'"):
        parse_target("toy@cpu")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"torch": "toy_runtime.on_cpu"}, "expected one 'torch' in framebudget.runtimes"),
        ({"absent": "toy_runtime.absent"}, "'absent' cannot be loaded from toy_runtime.absent"),
    ],
)
def test_an_unusable_runtime_of_another_package_is_an_error_of_the_user(
    site: Path, entry: dict[str, str], complaint: str
) -> None:
    install(site, "another", **entry)
    (name,) = entry
    done = python(site, f"from nas.latency import parse_target; parse_target('{name}@cpu')")
    assert done.returncode == 1
    assert "space.errors.UserError" in done.stderr
    assert complaint in done.stderr
