"""`nas zoo`: list trained winners, or copy one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nas.commands.shared import common, output

if TYPE_CHECKING:
    from pathlib import Path

    from nas.runs.certificate import Certificate

EPILOG = """\
Every command takes a name as ARCH, with its weights. Milliseconds and mIoU are those of the winner's certificate;
`nas measure NAME` times it here, and `nas evaluate NAME` scores it on your own data.

examples:
  nas zoo                                   list all winners
  nas predict camvid-searched street.jpg    use one of them
  nas zoo camvid-searched --out mine        its files: YAML, weights, ONNX, certificate"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", metavar="NAME", help="the winner to copy (default: list all of them)")
    parser.add_argument(
        "--out", metavar="DIR", type=common.path, help="with NAME: folder for its files (default: NAME)"
    )


def run(options: argparse.Namespace) -> None:
    """Print the table of winners, or copy the files of one.

    Raises: UserError for an unknown name, a certificate that cannot be read, and files that are not those it certifies.
    """
    from pathlib import Path

    from nas.runs import zoo
    from nas.runs.certificate import read_certificate
    from nas.terminal import answering
    from space.errors import UserError, nearest

    if options.name is None:
        if options.out is not None:
            raise UserError("--out: expected the NAME of a winner with it, got none; `nas zoo` lists them")
        with answering():
            print(_table({name: read_certificate(zoo.WINNERS / name) for name in zoo.names()}))
    elif options.name not in zoo.names():
        raise UserError(f"expected a winner of `nas zoo`, got '{options.name}'; {nearest(options.name, zoo.names())}")
    else:
        _copy(zoo.WINNERS / options.name, Path(options.out or options.name))


def _copy(winner: Path, out: Path) -> None:
    import shutil

    from nas.runs.certificate import CERTIFICATE, read_certificate
    from nas.runs.data_seen import FILE as DATA_SEEN
    from nas.runs.trained import require_certified
    from nas.storage.files import replace_folder
    from nas.terminal import answering

    certificate = read_certificate(winner)
    for name in certificate.sha256:
        require_certified(winner / name)
    with output.owned_folder(out):
        output.require_same_network(out, certificate.architecture)
        with replace_folder(out, CERTIFICATE, goes=(DATA_SEEN,)) as folder:
            for name in (*certificate.sha256, CERTIFICATE):
                shutil.copyfile(winner / name, folder / name)
    with answering():
        print(f"{out}: {' '.join((*certificate.sha256, CERTIFICATE))}")


def _table(winners: dict[str, Certificate]) -> str:
    from nas.terminal import percent, table

    header = ("name", "data", "size", "target", "ms", "+-", "mIoU %", "parameters", "flagged")
    rows, processors = [], []
    for name, certificate in winners.items():
        latency = certificate.latency
        rows.append(
            (
                name,
                certificate.data,
                f"{latency.height}x{latency.width}",
                latency.target,
                f"{latency.p50_milliseconds:.2f}",
                f"{(latency.ci_high_milliseconds - latency.ci_low_milliseconds) / 2:.2f}",
                percent(certificate.miou),
                f"{certificate.parameters:,}",
                "!" if latency.flagged else "",
            )
        )
        processors.append(latency.environment.get("gpu") or latency.environment.get("cpu", "unknown"))
    flagged = [f"! {name}: {'; '.join(c.latency.flagged)}" for name, c in winners.items() if c.latency.flagged]
    note = f"milliseconds: median for one image, as certified on {', '.join(sorted(set(processors)))}"
    return "\n".join([table(rows, header), "", note, *flagged])
