"""Another host that lacks this package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

BarePython = Callable[..., Path]


@pytest.fixture
def bare_python(tmp_path: Path) -> BarePython:
    """Makes a program that is Python with the standard library and what is named, links to what is installed here."""

    def make(*names: str, python: str = sys.executable) -> Path:
        packages, program = tmp_path / "packages", tmp_path / "its-python"
        packages.mkdir()
        installed = Path(np.__file__).parents[1]
        for name in names:
            for found in (installed / name, installed / f"{name}.libs"):
                if found.exists():
                    (packages / found.name).symlink_to(found)
        program.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {python} -S -s "$@"\n')
        program.chmod(0o755)
        return program

    return make


@pytest.fixture(scope="session")
def family() -> Callable[[int], list[int]]:
    """A process that runs, and all that it and its own have started; nothing of one that has ended."""
    return _family


def _family(process: int) -> list[int]:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        tasks = [each.read_text().split() for each in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return []
    children = [] if state == "Z" else [int(child) for children in tasks for child in children]
    return [] if state == "Z" else [process, *(each for child in children for each in _family(child))]
