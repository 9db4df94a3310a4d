"""The study on a GPU, which takes a machine of its own: it starts anywhere, and its commands exist."""

from __future__ import annotations

import argparse
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "studies" / "gpu"


def test_it_starts_without_a_gpu() -> None:
    done = subprocess.run([sys.executable, STUDY / "gpu.py", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--wheels" in done.stdout


@pytest.mark.parametrize("setting", ["GPU", "DRY"])
def test_each_part_has_a_command_that_exists(setting: str, tmp_path: Path) -> None:
    study = runpy.run_path(str(STUDY / "parts.py"))
    place = study["Place"](setting=study[setting], out=tmp_path / "out", work=tmp_path)
    parts = [*study["parts"](place, dry=setting == "DRY"), *study["parts_of_two_gpus"](place)]
    assert len({part.name for part in parts}) == len(parts) == 12
    for part in parts:
        python, *words = part.command()
        assert python == sys.executable
        if words[:2] == ["-m", "nas.cli"]:
            parser = argparse.ArgumentParser(exit_on_error=False)
            importlib.import_module(f"nas.commands.{words[2]}").add_arguments(parser)
            assert parser.parse_args(words[3:])
        else:
            assert words[:2] == ["-m", "pytest"] or Path(words[0]).is_file()
