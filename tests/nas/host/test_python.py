"""The search path for modules that child processes get."""

from __future__ import annotations

import site
from pathlib import Path

import pytest

from nas.host import python


def test_installed_packages_do_not_come_before_pythons_own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine:")
    assert python.environment_variables()["PYTHONPATH"] == f"{python.OURS}:mine", "a checkout is found"
    monkeypatch.setattr(python, "OURS", Path(site.getsitepackages()[0]).resolve())
    assert python.environment_variables()["PYTHONPATH"] == "mine"
