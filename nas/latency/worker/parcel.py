"""What is sent to a host where this package is not installed: the modules that the agent imports, and their start code.

The list of modules is computed: everything that `nas.latency.worker.agent` and the runtime import when they are
imported, and what those modules import. They may use only the standard library of Python 3.10 and NumPy, which a test
checks. Packages from which nothing is imported, such as `space` itself with its builder, are sent empty.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nas.host.python import OURS
from nas.latency.runtimes import Reader

AGENT = "nas.latency.worker.agent"
BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
OLDEST_PYTHON = (3, 10)
"""Oldest Python that the agent runs on, as found on embedded boards."""


def opening(reader: Reader, target: str) -> tuple[str, bytes]:
    """The code for `python3 -c` on the other host (without quotes in it), and the first bytes to write to its input.

    `target` is the target as that host names it.
    """
    text, modules = BOOTSTRAP.read_bytes(), _zipped(sources(reader.module))
    order = {
        "bytes": len(modules),
        "oldest": OLDEST_PYTHON,
        "needs": ["numpy", reader.library],
        "runtime": reader.module,
        "library": reader.library,
        "target": target,
    }
    # Files in the current folder must not be imported as modules; the option -P for this came with Python 3.11.
    code = f"import sys; sys.path[:] = [p for p in sys.path if p]; exec(sys.stdin.buffer.read({len(text)}))"
    return code, text + json.dumps(order).encode("ascii") + b"\n" + modules


def sources(runtime: str) -> dict[str, str]:
    """The text of every file that is sent for the module `runtime`, by its path."""
    roots = {"nas": OURS, "space": OURS}
    package = runtime.partition(".")[0]
    if package not in roots:  # a runtime of another package
        spec = importlib.util.find_spec(runtime)
        assert spec is not None
        assert spec.origin is not None
        file = Path(spec.origin)
        roots[package] = file.parents[runtime.count(".") + (file.name == "__init__.py")]
    found: dict[str, Path] = {}
    waiting = [AGENT, runtime]
    while waiting:
        module = waiting.pop()
        source = _file_of(module, roots)
        if source is None or module in found:
            continue
        found[module] = source
        package = module if source.name == "__init__.py" else module.rpartition(".")[0]
        waiting += _imports(ast.parse(source.read_text("utf-8")).body, package, roots)
    texts = {
        str(path.relative_to(roots[name.partition(".")[0]])): path.read_text("utf-8") for name, path in found.items()
    }
    parents = {f"{folder}/__init__.py" for name in texts for folder in Path(name).parents if folder.name}
    return dict.fromkeys(sorted(parents), "") | texts


def _file_of(module: str, roots: dict[str, Path]) -> Path | None:
    """The file of a module under `roots`; None for modules of libraries and for names that are no modules."""
    root = roots.get(module.partition(".")[0])
    if root is None:
        return None
    base = root / module.replace(".", "/")
    return next((file for file in (base.with_name(f"{base.name}.py"), base / "__init__.py") if file.is_file()), None)


def _imports(statements: list[ast.stmt], package: str, roots: dict[str, Path]) -> Iterator[str]:
    """Names of modules that these statements of a `package` import when they run, without imports for type checkers and
    those in functions.
    """
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            module = statement.module or ""
            if statement.level:
                above = package.split(".")[: len(package.split(".")) - statement.level + 1]
                module = ".".join([*above, *filter(None, [module])])
            for alias in statement.names:
                inside = f"{module}.{alias.name}"
                yield inside if _file_of(inside, roots) else module
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from _imports(statement.orelse, package, roots)
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            for block in ("body", "handlers", "orelse", "finalbody"):
                yield from _imports(getattr(statement, block, []), package, roots)
        elif isinstance(statement, ast.ExceptHandler):
            yield from _imports(statement.body, package, roots)


def _zipped(texts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as files:
        for name, text in texts.items():
            files.writestr(name, text)
    return buffer.getvalue()
