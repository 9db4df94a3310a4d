"""Rules that concern all modules together: allowed imports, forbidden calls, documentation, file sizes and lint.

Types are checked by mypy, in `.ci/run` and before every commit: it takes a minute where nothing is cached.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import space
from nas.latency.worker import parcel

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("space", "pruning", "nas")
# Each room may import those before it. Inside nas/latency, likewise.
ROOMS = (
    "space", "pruning", "nas.errors", "nas.host", "nas.storage", "nas.export", "nas.data", "nas.training",
    "nas.terminal", "nas.surrogate", "nas.samplers", "nas.latency",
    "nas.study", "nas.runs", "nas.quantization", "nas.video", "nas.prune", "nas.report", "nas.search", "nas.commands",
    "nas.cli",
)  # fmt: skip
SPACE_ROOMS = (
    "space.errors", "space.rules", "space.extensions", "space.strict", "space.choices", "space.scopes", "space.graph",
    "space.sizes", "space.channels", "space.gradients", "space.paths", "space.network", "space.layers", "space.block",
    "space.blocks", "space.fusion", "space.stem",
    "space.stage", "space.detail", "space.encoder", "space.context", "space.head", "space.decoder", "space.decoders",
    "space.architecture", "space.axes", "space.answers", "space.rates", "space.ends", "space.stage_questions",
    "space.questions", "space.search_space", "space.drawn", "space.scale", "space.count", "space.library",
)  # fmt: skip
LATENCY_ROOMS = (
    "nas.latency.target", "nas.latency.record", "nas.latency.budget", "nas.latency.machine", "nas.latency.runtimes",
    "nas.latency.protocol", "nas.latency.worker", "nas.latency.scope", "nas.latency.meter", "nas.latency.careful",
    "nas.latency.several", "nas.latency.rounds", "nas.latency.estimates", "nas.latency.layers", "nas.latency.default",
)  # fmt: skip
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "docs",
    "examples",
    "nas",
    "pruning",
    "pyproject.toml",
    "space",
    "studies",
    "tests",
}
HEAVY = {"torch", "ray", "optuna", "onnx", "onnxruntime", "nvidia", "matplotlib", "torch_pruning", "jinja2", "cv2"}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, including imports inside functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def dotted(node: ast.expr) -> str:
    """The source text of an expression such as `torch.load`; empty for any other kind of expression."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def test_all_three_packages_have_sources() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


def module_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def imports_of(path: Path) -> set[str]:
    """Modules of this project that a file imports: at its top, inside functions, for type checkers."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: write the whole name of what is imported"
            module = node.module or ""
            inside = {alias.name: f"{module}.{alias.name}" for alias in node.names}
            found |= {full if full in MODULES else module for full in inside.values()}
    return {module for module in found if module in MODULES and module != module_of(path)}


def test_every_import_of_openvino_also_works_for_users_without_a_home() -> None:
    """See `nas.host.home` for the reason."""
    bare, homes = [], 0
    for path in SOURCES:
        inside = {
            id(statement)
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.With) and ast.unparse(node.items[0]) == "some_home()"
            for statement in node.body
        }
        homes += len(inside)
        for node in ast.walk(tree_of(path)):
            is_import = isinstance(node, (ast.Import, ast.ImportFrom))
            if is_import and id(node) not in inside and re.match(r"(import|from) openvino\b", ast.unparse(node)):
                bare.append(name(path))
    assert bare == []
    assert homes


def room_of(module: str, rooms: tuple[str, ...]) -> str | None:
    """The room of a module, or None."""
    return next((room for room in rooms if module == room or module.startswith(f"{room}.")), None)


def circles(arrows: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other, directly or through other modules."""
    reached = {module: set(direct) for module, direct in arrows.items()}
    changed = True
    while changed:
        changed = False
        for known in reached.values():
            more = set().union(*(reached.get(each, set()) for each in known)) - known
            changed |= bool(more)
            known |= more
    inside = [{each for each in known if module in reached.get(each, ())} for module, known in reached.items()]
    return [each for place, each in enumerate(inside) if each and each not in inside[:place]]


def test_no_two_modules_import_each_other() -> None:
    assert circles({module: imports_of(path) for module, path in MODULES.items()}) == []


def test_circles_of_imports_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]


@pytest.mark.parametrize("rooms", [ROOMS, SPACE_ROOMS, LATENCY_ROOMS], ids=["all", "space", "latency"])
def test_rooms_import_only_the_rooms_before_them(rooms: tuple[str, ...]) -> None:
    upward = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in imports_of(path)
        if (here := room_of(module, rooms))
        and (there := room_of(other, rooms))
        and rooms.index(there) > rooms.index(here)
    ]
    assert upward == []


def test_every_module_is_in_a_room() -> None:
    assert [module for module in MODULES if room_of(module, ROOMS) is None] == ["nas"]
    inside = [module for module in MODULES if module.startswith("space.")]
    assert [module for module in inside if room_of(module, SPACE_ROOMS) is None] == []
    files = {module for module, path in MODULES.items() if path.name != "__init__.py"}
    loose = {module for module in files if re.fullmatch(r"nas\.\w+", module)}
    assert loose == {"nas.cli", "nas.errors", "nas.study", "nas.terminal"}


@pytest.mark.parametrize("package", ["nas", "pruning", "space"])
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


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


def test_no_call_can_run_code_from_a_file() -> None:
    found = {name(path): list(unsafe_calls(tree_of(path))) for path in SOURCES}
    assert {file: calls for file, calls in found.items() if calls} == {}


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
def test_each_kind_of_unsafe_call_is_found(line: str) -> None:
    assert list(unsafe_calls(ast.parse(line)))


def git(*arguments: str) -> list[str]:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if run.returncode != 0:
        pytest.skip("not a git checkout")
    return run.stdout.split("\0")[:-1]


def test_guards_are_requested_by_the_name_of_their_device() -> None:
    """`lane.shared_on` gives the guard of a device. `lane.shared`, which holds all cores, may only be entered."""
    passed_on = []
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        entered = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        named = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) not in entered)
        passed_on += [f"{name(path)}:{node.lineno}" for node in named if dotted(node) == "lane.shared"]
    assert not passed_on


def test_only_known_files_and_folders_are_at_the_top_level() -> None:
    assert {path.split("/")[0] for path in git("ls-files", "-z")} <= TOP_LEVEL


def test_only_weights_of_winners_are_tracked_as_large_files() -> None:
    winners = re.compile(r"studies/[\w-]+/winners/[\w.-]+/(weights\.safetensors|model\.onnx)")
    sizes = {path: file.stat().st_size for path in git("ls-files", "-z") if (file := ROOT / path).is_file()}
    large = [path for path, size in sizes.items() if size > (10_000_000 if winners.fullmatch(path) else 500_000)]
    assert large == []


def module_output(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a checking tool on this checkout."""
    if importlib.util.find_spec(arguments[0]) is None:
        pytest.skip(f"{arguments[0]} is not installed")
    run = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)
    return run.returncode, run.stdout + run.stderr


def test_ruff_has_no_complaint() -> None:
    code, told = module_output("ruff", "check")
    assert code == 0, told


def test_all_files_are_formatted() -> None:
    code, told = module_output("ruff", "format", "--check")
    assert code == 0, told


@pytest.mark.slow
def test_code_sent_to_other_hosts_passes_type_checks_for_their_oldest_python() -> None:
    """Boards have an older Python than this package asks for."""
    sent = {file for name in ("onnxruntime", "openvino") for file in parcel.sources(f"nas.latency.runtimes.{name}")}
    files = sorted(file for file in sent if (ROOT / file).read_text("utf-8").strip())
    version = ".".join(str(number) for number in parcel.OLDEST_PYTHON)
    options = ("--python-version", version, "--follow-imports", "silent", "--strict", "--ignore-missing-imports")
    code, told = module_output("mypy", "--config-file", os.devnull, "--explicit-package-bases", *options, *files)
    assert code == 0, told


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
    for name_of_module in sorted(each for each in MODULES if room_of(each, ("space",))):
        module = importlib.import_module(name_of_module)
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
    undocumented = [repr(part) for part in public_parts() if not (inspect.getdoc(part) or "").strip()]
    assert undocumented == []


def test_every_export_of_space_exists() -> None:
    assert all(hasattr(space, exported) for exported in space.__all__)
    assert list(space.__all__) == sorted(space.__all__)


def test_files_stay_small_enough_to_read() -> None:
    lines = {name(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert {file: count for file, count in lines.items() if count > 400} == {}
