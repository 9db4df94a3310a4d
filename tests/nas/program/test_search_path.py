"""The program's search path for modules: no files of other packages or of the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]
Environment = Callable[..., dict[str, str]]
Program = Callable[..., subprocess.CompletedProcess[str]]


def test_files_of_the_current_folder_are_not_imported(tmp_path: Path, environment: Environment) -> None:
    for name in ("nas", "space", "random", "onnx", "torch", "typing", "argparse", "numpy"):
        (tmp_path / f"{name}.py").write_text("print('somebody has run this')\nraise SystemExit(99)")
    code = "import sys; from nas.cli import main; sys.exit(main())"  # as the installed script
    words = ["measure", "ndnet29-fcn32", "--target", "null@cpu:1", "--input", "64x96", "--within", "20%"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")),
        timeout=120,
    )
    assert "somebody" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_installed_packages_do_not_replace_pythons_own_modules(tmp_path: Path, environment: Environment) -> None:
    """The packages are backports (`argparse` 1.4.0, for example), in a folder as pip makes it."""
    installed = tmp_path / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    installed.mkdir(parents=True)
    for name in ("nas", "space", "pruning"):
        (installed / name).symlink_to(ROOT / name)
    for name in ("argparse", "dataclasses", "pathlib"):
        (installed / f"{name}.py").write_text("raise SystemExit(99)")
    code = (
        "import sys; at = 1 + max(place for place, each in enumerate(sys.path) if each.endswith('lib-dynload'))\n"
        f"sys.path.insert(at, {str(installed)!r})\nfrom nas.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "show", "erfnet"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(PYTHONPATH=None),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_modules_of_the_same_names_elsewhere_are_not_imported(tmp_path: Path, program: Program) -> None:
    for name in ("space", "pruning"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    done = program("show", "erfnet", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 0, done.stderr


def test_the_program_run_as_a_module_does_not_import_from_the_current_folder(tmp_path: Path, program: Program) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit(99)")
    assert program("show", "erfnet", folder=tmp_path).returncode == 0
