"""The first code that runs on a host where this package is not installed: it receives modules and runs the agent.

`python3 -c` on the host reads the text of this file from the connection (`nas.latency.worker.parcel`). One line of JSON
follows, then a zip of as many bytes as that line says. The modules are imported from memory; no file is written. This
file runs on any Python 3, so that an interpreter that is too old can be reported in words.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import sys
import zipfile


class Sent(importlib.abc.ExecutionLoader):
    """Finder and loader of the modules in a zip."""

    def __init__(self, parcel: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(parcel)) as files:
            self._texts = {name: files.read(name).decode("utf-8") for name in files.namelist()}

    def _file(self, fullname: str) -> str:
        """The name of a module's file; empty if it was not sent."""
        base = fullname.replace(".", "/")
        return next((name for name in (f"{base}.py", f"{base}/__init__.py") if name in self._texts), "")

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> "importlib.machinery.ModuleSpec | None":
        """The spec of a module, as the import system requires of a finder."""
        return importlib.util.spec_from_loader(fullname, self) if self._file(fullname) else None

    def is_package(self, fullname: str) -> bool:
        """Whether a module is a package, as the import system requires of a loader."""
        return self._file(fullname).endswith("__init__.py")

    def get_filename(self, fullname: str) -> str:
        """The file name that tracebacks show."""
        return f"sent/{self._file(fullname)}"

    def get_source(self, fullname: str) -> str:
        """The source text of the module."""
        return self._texts[self._file(fullname)]


def missing(order: dict) -> str:  # type: ignore[type-arg]  # Python 3.6 has no dict[str, Any]
    """What this host lacks, in words; empty if it has everything."""
    here, (major, minor) = tuple(sys.version_info[:2]), order["oldest"]
    if here < (major, minor):
        return (
            f"expected Python {major}.{minor} or later, got {here[0]}.{here[1]} ({sys.executable}); install one, and "
            "set FRAMEBUDGET_PYTHON there to it"
        )
    lacking = [name for name in order["needs"] if importlib.util.find_spec(name) is None]
    if lacking:
        return (
            f"expected {' and '.join(order['needs'])} for {sys.executable}, got no {' and no '.join(lacking)}; "
            f"`pip install {' '.join(lacking)}` there"
        )
    return ""


def main() -> int:
    """Run the agent until the connection ends."""
    order = json.loads(sys.stdin.buffer.readline().decode("ascii"))
    parcel = sys.stdin.buffer.read(order["bytes"])
    if len(parcel) < order["bytes"]:  # nobody is left to answer
        return 1
    lacking = missing(order)
    if lacking:
        print(json.dumps({"refused": lacking, "kind": "TargetError"}), flush=True)
        return 1
    sys.meta_path.insert(0, Sent(parcel))  # first, before installed modules of the same names
    from nas.latency.worker.agent import main as serve

    return serve(order)


if __name__ == "__main__":
    sys.exit(main())
