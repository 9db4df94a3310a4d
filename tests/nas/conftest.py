"""The command line in this process."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nas.cli import main
from space import extensions


class WrongAnswerError(Exception):
    """A command ended otherwise than a test expects."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one line that answers a user's mistake.

        Raises: WrongAnswerError when the command ended otherwise.
        """
        lines = self.err.splitlines()
        if self.code != 2 or len(lines) != 1 or not lines[0].startswith("nas "):
            raise WrongAnswerError(f"expected one line and code 2, got {self.code}:\n{self.out}{self.err}")
        return lines[0]

    def done(self) -> Answer:
        """This answer, of a command that succeeded.

        Raises: WrongAnswerError when the command ended otherwise.
        """
        if self.code != 0:
            raise WrongAnswerError(f"expected code 0, got {self.code}:\n{self.out}{self.err}")
        return self


BRITTLE = """
import os, signal

PRECISIONS = {"cpu": ("fp32", "int8")}
LIBRARY = "onnxruntime"

def available(target):
    return None

def versions():
    return {}

def settle(target):
    pass

def prepare(network, image, target):
    raise AssertionError("it is given graphs")

def quantized_of(graph):
    import onnx

    nodes = onnx.load_from_string(graph).graph.node
    grids = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.input[0] in grids for node in nodes if node.op_type == "Conv"]

def open_graph(graph, image, target):
    from nas.latency.runtimes import onnxruntime

    call, found = onnxruntime.open_graph(graph, image, target), quantized_of(graph)
    if os.environ["BRITTLE"] == "refuses" and any(found):
        raise RuntimeError("no kernel")

    def run():
        if {"all": any(found), "part": any(found) and not all(found)}.get(os.environ["BRITTLE"]):
            os.kill(os.getpid(), signal.SIGSEGV)
        return call()

    return run
"""

Nas = Callable[..., Answer]
Scalars = dict[str, list[tuple[int, float]]]
"""Steps and values of each curve, by its name."""


@pytest.fixture(scope="session")
def scalars() -> Callable[[Path], Scalars]:
    """Reads the event files in a folder, one after the other."""
    from tensorboardX.proto.event_pb2 import Event

    def read(folder: Path) -> Scalars:
        found: Scalars = {}
        for file in sorted(folder.iterdir()):
            content = file.read_bytes()
            while content:  # a length and its check, an event and its check
                end = 12 + int.from_bytes(content[:8], "little")
                event = Event.FromString(content[12:end])
                for value in event.summary.value:
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
                content = content[end + 4 :]
        return found

    return read


@contextlib.contextmanager
def one_core(cache: Path) -> Iterator[None]:
    """As on a machine with one core (several threads on cores that others use crawl), with a cache of its own."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        os.sched_setaffinity(0, {max(cores)})
        torch.set_num_threads(1)
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def single_core(cache: Path) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """`one_core`, for work that is not a command."""
    return lambda: one_core(cache)


@pytest.fixture(scope="session")
def nas(cache: Path) -> Nas:
    """`nas(words...)` runs one command and gives its answer."""

    def run(*words: str | Path) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with one_core(cache), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(word) for word in words])
            except SystemExit as end:  # argparse: --help, or words that it does not know
                code = int(end.code or 0)
        return Answer(code=code, out=out.getvalue(), err=err.getvalue())

    return run


@pytest.fixture
def brittle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs the runtime `brittle` of another package, which runs graphs by ONNX Runtime. `brittle("all")` has it
    crash as it runs one with a quantized convolution, "part" where others are not quantized; "refuses" opens none.
    """
    folder = tmp_path / "site"
    metadata = folder / "brittle-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "brittle.py").write_text(BRITTLE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: brittle\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[framebudget.runtimes]\nbrittle = brittle\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("BRITTLE", "")
    extensions.modules.cache_clear()
    yield lambda at: monkeypatch.setenv("BRITTLE", at)
    extensions.modules.cache_clear()
