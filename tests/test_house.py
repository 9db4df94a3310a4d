"""Rules of the house that no single module can keep alone: who may know whom, what is never called, and lint."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import space

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("space", "pruning", "nas")
MAY_IMPORT = {"space": {"space"}, "pruning": {"space", "pruning"}, "nas": {"space", "pruning", "nas"}}
TOP_LEVEL = {
    ".ci",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "docs",
    "nas",
    "pruning",
    "pyproject.toml",
    "space",
    "studies",
    "tests",
}
HEAVY = {"torch", "ray", "optuna", "onnx", "onnxruntime", "nvidia", "matplotlib", "torch_pruning"}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, those inside functions and type checks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def dotted(node: ast.expr) -> str:
    """`torch.load` of the expression that reads so, or nothing."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def test_there_is_something_to_look_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_rooms_know_only_the_rooms_below(path: Path) -> None:
    """`nas` may use `pruning`, which may use `space`; never back, and no relative imports to hide it."""
    modules = set(imported(ast.parse(path.read_text("utf-8"))))
    assert not [module for module in modules if module.startswith(".")]
    rooms = {module.split(".")[0] for module in modules} & {*PACKAGES, "tests"}
    assert rooms <= MAY_IMPORT[path.relative_to(ROOT).parts[0]]


def unsafe_calls(tree: ast.AST) -> Iterator[str]:
    """Calls and imports that could execute what a file contains."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            options = {keyword.arg: keyword.value for keyword in node.keywords}
            weights_only = options.get("weights_only")
            if called == "torch.load" and not (isinstance(weights_only, ast.Constant) and weights_only.value is True):
                yield "torch.load without weights_only=True"
            if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system"):
                yield called
            if called.startswith("subprocess.") and "shell" in options:
                yield f"{called} with a shell"
        if isinstance(node, ast.Attribute) and dotted(node).startswith("pickle.") and node.attr != "UnpicklingError":
            yield dotted(node)
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            yield "from pickle import"
    for module in imported(tree):
        if module.split(".")[0] in ("cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"):
            yield f"import {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_that_is_read_can_run_code(path: Path) -> None:
    assert list(unsafe_calls(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "value = pickle.load(file)",
        "class Reader(pickle.Unpickler): ...",
        "import dill as pickle",
        "from pickle import loads",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_the_rule_above_sees_what_it_forbids(line: str) -> None:
    assert list(unsafe_calls(ast.parse(line)))


def git(*arguments: str) -> list[str]:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if run.returncode != 0:
        pytest.skip("not a git checkout")
    return run.stdout.split("\0")[:-1]


def test_only_known_names_at_the_top() -> None:
    assert {path.split("/")[0] for path in git("ls-files", "-z")} <= TOP_LEVEL


def test_only_text_and_nothing_large_is_tracked() -> None:
    large = [
        path for path in git("ls-files", "-z") if (file := ROOT / path).is_file() and file.stat().st_size > 500_000
    ]
    assert large == []


def run_module(*arguments: str) -> None:
    if importlib.util.find_spec(arguments[0]) is None:
        pytest.skip(f"{arguments[0]} is not installed")
    run = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


def test_ruff_has_no_complaint() -> None:
    run_module("ruff", "check", *PACKAGES, "tests")


def test_types_are_consistent() -> None:
    run_module("mypy", "space", "pruning")


@pytest.mark.parametrize("module", ["space", "nas", "nas.cli"])
def test_starting_the_program_loads_no_heavy_library(module: str) -> None:
    """A command's help must not wait for PyTorch: heavy libraries are imported by the functions that need them."""
    program = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) & HEAVY == set()


def public_parts() -> list[object]:
    """What `space` exports, the functions and classes of its modules, and the methods of those classes."""
    parts: list[object] = []
    for path in sorted((ROOT / "space").glob("*.py")):
        module = importlib.import_module("space" if path.stem == "__init__" else f"space.{path.stem}")
        parts.append(module)
        for each_name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__
            if each_name.startswith("_") or not own or not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            parts.append(value)
            if inspect.isclass(value):
                parts += [
                    method
                    for method_name, method in vars(value).items()
                    if not method_name.startswith("_") and inspect.isfunction(method)
                ]
    return parts


def test_the_public_parts_of_space_are_documented() -> None:
    undocumented = [repr(part) for part in public_parts() if not (getattr(part, "__doc__", "") or "").strip()]
    assert undocumented == []


def test_everything_that_space_exports_exists() -> None:
    assert all(hasattr(space, exported) for exported in space.__all__)
    assert list(space.__all__) == sorted(space.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_stay_small_enough_to_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 550
