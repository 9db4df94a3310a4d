"""The help of every command, which loads no heavy library, and the version of the program."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from nas.cli import COMMANDS

HEAVY = ("torch", "ray", "nvidia", "onnx", "onnxruntime", "optuna", "matplotlib", "torch_pruning", "pandas", "cv2")


def loaded_by(*words: str) -> tuple[str, set[str]]:
    """The output of a command, and the packages that it has loaded when it ends."""
    code = (
        "import sys\nfrom nas.cli import main\n"
        f"try:\n    main({list(words)!r})\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed, _, loaded = done.stdout.rpartition("LOADED")
    return printed, set(loaded.split())


def test_help_of_the_program_lists_every_command_and_an_example(nas):
    answer = nas("--help")
    assert answer.code == 0
    assert all(f"    {name} " in answer.out for name in COMMANDS)
    assert "nas search --budget 10ms" in answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(nas, command):
    answer = nas(command, "--help")
    assert answer.code == 0
    assert answer.err == ""
    usage, _, examples = answer.out.partition("example")
    assert f"usage: nas {command}" in usage
    assert f"nas {command}" in examples


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("predict", "--help"), ("search", "--help")])
def test_help_loads_no_heavy_library(words):
    printed, loaded = loaded_by(*words)
    assert "usage: nas" in printed
    assert "argparse" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_word_that_is_no_command_ends_with_code_2(nas):
    answer = nas("sarch")
    assert answer.code == 2
    assert "invalid choice: 'sarch'" in answer.err


def test_the_program_prints_its_version(nas) -> None:
    assert nas("--version").done().out == f"nas (framebudget) {version('framebudget')}\n"
