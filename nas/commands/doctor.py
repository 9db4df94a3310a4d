"""`nas doctor`: print what this machine can do, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from nas.host.words import counted, one_line
from space.errors import UserError

if TYPE_CHECKING:
    from nas.latency.target import Target

EPILOG = """\
examples:
  nas doctor"""
LIBRARIES = ("ray", "optuna", "torch-pruning", "onnx", "onnxscript", "numpy", "safetensors", "matplotlib")
MISSING = "missing"
WIDTH = 22  # of the column of names, fixed because lines are printed as they are found
DALI = {"12": ("dali-cu12", "nvidia-dali-cuda120"), "13": ("dali-cu13", "nvidia-dali-cuda130")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`nas doctor` takes no arguments."""
    parser.epilog = EPILOG


def run(options: argparse.Namespace) -> None:
    """Print one line per item. Something missing is an answer, not an error."""
    for name, text in _facts():
        print(f"{name:{WIDTH}}  {one_line(text)}".rstrip(), flush=True)


def _facts() -> Iterator[tuple[str, str]]:
    """Names and texts of the lines, each as soon as it is known."""
    from nas.host.cores import usable_cores
    from nas.latency.machine.device import cpu_model

    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "cores", f"{usable_cores()} for this process, {os.cpu_count()} in all; {cpu_model()}"
    yield "memory", _memory()
    yield from _torch()
    yield "dali", _dali()
    yield from ((name, _library(name)) for name in LIBRARIES)
    yield from _runtimes()
    yield from _formats()
    yield "video", _answer(_video)
    yield "cache", _answer(_cache)


def dali_advice(cuda: str | None, installed: frozenset[str]) -> str:
    """Advice on DALI packages for a torch built for CUDA version `cuda` (None: a CPU build); empty if all is well."""
    major = (cuda or "13").partition(".")[0]
    extra, package = DALI.get(major, DALI["13"])
    wrong = sorted(name for name in installed if name != package)
    if package in installed and wrong:
        return f"two packages write the same files; pip uninstall {' '.join(wrong)}, and install {package} again"
    if cuda is not None and wrong:
        return f"{wrong[0]} is for another CUDA than torch's {cuda}; pip uninstall {wrong[0]}, pip install {package}"
    if not installed:
        return f"not installed, so Pillow and PyTorch read pictures; pip install '.[{extra}]' or pip install {package}"
    return ""


def _torch() -> list[tuple[str, str]]:
    from nas.latency.machine.gpu import training_device

    torch = _loaded("torch")
    if isinstance(torch, Exception):
        return [("torch", f"missing or broken ({torch}); pip install 'torch>=2.6,<2.14'")]
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    lines = [("torch", f"{torch.__version__}, {build}, {counted(torch.get_num_threads(), 'thread')}")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        capability = f"{properties.major}.{properties.minor}"
        lines.append((f"cuda:{index}", f"{properties.name}, {memory:.0f} GiB, compute capability {capability}"))
    if not torch.cuda.device_count():
        lines.append(("gpu", _answer(lambda: f"none; {training_device()} is used")))
    return lines


def _answer(work: Callable[[], str]) -> str:
    """The result of `work`, or its error as text."""
    try:
        return work()
    except (UserError, ImportError, OSError, MemoryError) as error:
        return str(error)


def _loaded(library: str) -> ModuleType | Exception:
    """A library, or the error when loading it: a broken one may raise anything."""
    try:
        return importlib.import_module(library)
    except Exception as error:
        return error


def _dali() -> str:
    installed = frozenset(package for _, package in DALI.values() if _version(package) != MISSING)
    torch = _loaded("torch")
    advice = dali_advice(None if isinstance(torch, Exception) else torch.version.cuda, installed)
    if not installed:
        return advice
    found = ", ".join(f"{package} {_version(package)}" for package in sorted(installed))
    dali = _loaded("nvidia.dali")
    if isinstance(dali, Exception):
        return f"{found} cannot be loaded ({dali}); {advice or 'install it again'}"
    return f"{found}; {advice}" if advice else found


def _runtimes() -> list[tuple[str, str]]:
    from nas.latency import default, runtimes

    def state(target: Target) -> str:
        if (missing := runtimes.missing(target)) is not None:
            return f"not here: {missing}"
        words = runtimes.note(runtimes.load(target)) or _precision_words(target)
        return f"ready: {words}" if words else "ready"

    lines = []
    for name in runtimes.names():
        try:
            targets = runtimes.targets(name)
        except UserError as error:  # a runtime of another package that cannot be loaded
            lines.append((name, f"not here: {error}"))
            continue
        lines += [(str(target), _answer(functools.partial(state, target))) for target in targets]

    def chosen() -> str:
        found = default.known()
        if found is None:
            names = ", ".join(map(str, default.ready_targets()))
            return f"the fastest of {names}: timed once, by the first command that needs it"
        return f"{found.target}: {found.reason}"

    return [*lines, ("default target", _answer(chosen))]


def _precision_words(target: Target) -> str:
    """What to expect of a precision on the device of a target that is ready, in words."""
    from nas.host.processor import gpu_precision_words, precision_words

    if not target.on_cuda:
        return precision_words(target.precision)
    import torch

    return gpu_precision_words(target.precision, torch.cuda.get_device_capability(torch.device(target.device)))


def _formats() -> list[tuple[str, str]]:
    """The formats that `nas export` can write here."""
    from nas.export import formats

    def state(name: str) -> str:
        form = formats.load(name)
        missing = form.missing()
        return f"ready: {form.TITLE} ({', '.join(form.SUFFIXES)})" if missing is None else f"not here: {missing}"

    return [(f"export {name}", _answer(functools.partial(state, name))) for name in formats.names()]


def _video() -> str:
    from nas.video.frames import opencv

    return f"ready: OpenCV {opencv().__version__}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _library(package: str) -> str:
    version = _version(package)
    return f"{version}; pip install {package}" if version == MISSING else version


def _memory() -> str:
    from nas.host.room import free_bytes, whole_bytes

    return f"{whole_bytes() / 2**30:.1f} GiB, {free_bytes() / 2**30:.1f} GiB available"


def _cache() -> str:
    from nas.storage.cache import cache_folder

    folder = cache_folder()
    # os.path.exists is False for anything inside a folder that may not be entered.
    existing = next(parent for parent in (folder, *folder.absolute().parents) if os.path.exists(parent))
    free = shutil.disk_usage(existing).free / 2**30
    writable = os.access(existing, os.W_OK | os.X_OK)
    problem = "" if writable else "; it cannot be written to, set XDG_CACHE_HOME to a folder that can"
    return f"{folder}, {free:.1f} GiB free{problem}"
