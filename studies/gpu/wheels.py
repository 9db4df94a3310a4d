"""Fetch what a GPU machine without a network lacks, as wheels that are carried there.

    python studies/gpu/wheels.py         # wheels/*.whl, for Python 3.12 on Linux

Ray's wheel, of 76 MiB, is packed anew, tighter and without what Java programs need, so that they and this checkout fit
into 64 MiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PACKAGES = (
    *("ray==2.60.0", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "tensorboardX"),
    *("pydantic==2.14.3", "pydantic-core==2.50.4", "annotated-types", "typing-inspection"),
    *("optuna==5.0.0", "alembic", "sqlalchemy", "mako", "colorlog", "torch-pruning==1.6.1"),
)
LEFT_OUT = ("ray/jars/",)


def fetch(folder: Path) -> None:
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    subprocess.run([*command, "--python-version", PYTHON, *platforms, *PACKAGES], check=True)


def packed_anew(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as whole:
        kept = [each for each in whole.infolist() if not each.filename.startswith(LEFT_OUT)]
        new = wheel.with_suffix(".new")
        with zipfile.ZipFile(new, "w", zipfile.ZIP_LZMA) as smaller:
            for each in kept:
                content = whole.read(each)
                if each.filename.endswith(".dist-info/RECORD"):
                    lines = content.decode().splitlines(keepends=True)
                    content = "".join(line for line in lines if not line.startswith(LEFT_OUT)).encode()
                each.compress_type = zipfile.ZIP_LZMA
                smaller.writestr(each, content)
    new.rename(wheel)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("wheels"))
    folder = parser.parse_args().out
    fetch(folder)
    for wheel in folder.glob("ray-*.whl"):
        packed_anew(wheel)
    print(f"{folder}: {sum(each.stat().st_size for each in folder.glob('*.whl')) / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
