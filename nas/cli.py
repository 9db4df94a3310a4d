"""The command line: one file per command in `nas/commands/`, one place where errors become one line."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "search": "find the most accurate network inside a frame budget",
    "profile": "is a budget reachable here, and by how much of the space?",
    "prune": "cut a network's channels down to a budget",
    "measure": "time networks under one protocol",
    "train": "train one network",
    "evaluate": "per-class IoU of a trained network",
    "data": "what a data set holds, and what is odd about it",
    "predict": "colour overlays to look at",
    "show": "a network's layers, parameters and multiply-adds",
    "export": "ONNX, checked against PyTorch",
    "report": "a run as one HTML file and as data",
    "doctor": "what this machine can do, and what is missing",
}

EXIT_USER_ERROR = 2
EXIT_OF_VERDICT = {"FAIL": 3, "UNSURE": 4}
"""A command that judges a budget did all that it was asked, but nothing that is surely inside came of it."""
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0, 2 for the user's mistakes, 3 for a budget that is not kept and 4 for one that
    is not known to be, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="nas",
        description="The most accurate real-time segmentation network that your device runs within your frame budget.",
        epilog="example: nas search --budget 10ms",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in given if not word.startswith("-")), "")
    for name, purpose in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=purpose,
            description=purpose[0].upper() + purpose[1:],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:  # so that --help of one command does not load the others
            module = importlib.import_module(f"nas.commands.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    options = parser.parse_args(_attached(given))
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("nas").setLevel(logging.INFO)
    return _answer(options)


def _attached(given: Sequence[str]) -> list[str]:
    """`--budget -3ms` as `--budget=-3ms`: an answer about budgets is better than one about option syntax."""
    words = list(given)
    for index in range(len(words) - 1, 0, -1):
        if words[index - 1] == "--budget" and words[index].startswith("-"):
            words[index - 1 : index + 1] = [f"--budget={words[index]}"]
    return words


def _answer(options: argparse.Namespace) -> int:
    from space.errors import UserError

    try:
        verdict = options.run(options)
    except UserError as error:
        print(f"nas {options.command}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder that cannot be written
        print(f"nas {options.command}: {error}; what was finished is kept", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"\nnas {options.command}: interrupted; what was finished is kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OF_VERDICT.get(verdict, 0)


if __name__ == "__main__":
    sys.exit(main())
