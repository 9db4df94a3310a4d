"""The command line: one file per command in `nas/commands/`, and the one place where errors become one line.

This module imports next to nothing, so that from the first line of `main` on every error is answered in one line, even
Ctrl-C while libraries load.
"""

from __future__ import annotations

import os
import sys

from nas import __version__

TYPE_CHECKING = False  # not imported from `typing`, which would load before `main` can answer a signal
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType

COMMANDS = {
    "search": "find the most accurate network inside a latency budget",
    "profile": "estimate whether a budget is reachable here, and by how much of the space",
    "prune": "prune channels and blocks into a latency budget",
    "quantize": "try lower precision, kept only where it is faster and as accurate",
    "measure": "time networks under one protocol",
    "train": "train one network",
    "evaluate": "print the per-class IoU of a trained network",
    "predict": "draw colour overlays of images or a video",
    "show": "list a network's layers, parameters and multiply-adds",
    "export": "write ONNX, OpenVINO, TFLite or TensorRT, checked against PyTorch",
    "zoo": "list or copy trained winners, usable as ARCH by name",
    "report": "write a run as one HTML file and as data",
    "data": "print what a data set holds, and what is odd about it",
    "doctor": "print what this machine can do, and what is missing",
}

EXIT_OUR_FAULT = 1
EXIT_USER_ERROR = 2
EXIT_OF_VERDICT = {"FAIL": 3, "UNSURE": 4}
"""Exit codes of a command that finished, but found no network that is surely inside the budget."""
EXIT_UNREAD = 141
"""Exit code where the reader of the output is gone: 128 + SIGPIPE, as shells report it."""
ONLY_PRINT = ("profile", "show", "data", "doctor")
"""Commands that only print: a closed output pipe ends them with exit code 0. Other commands mark the output that may be
cut short with `nas.terminal.answering`."""
SIGNALS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "its terminal was closed"}
GRACE_SECONDS = 8.0  # for cleaning up after a signal; `docker stop` kills after 10
LONGEST_REASON = 200  # characters of a library's message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0; 1 for a bug of ours; 2 for an error that the user can correct; 3 for
    a budget that is not kept; 4 for a budget that may or may not be kept; 128 + N after signal N; 141 if the output
    pipe was closed while there was more to do than to print.

    Without `arguments` it runs as the program: it takes them from `sys.argv` and handles signals, which it otherwise
    leaves alone.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((word for word in given if not word.startswith("-")), "")
    name = f"nas {chosen}" if chosen in COMMANDS else "nas"
    heard: list[int] = []  # numbers of the signals received
    verdict, done = None, False
    try:
        if arguments is None:
            _open_streams()
            sys.meta_path.insert(0, _BesideThis())
            _listen(heard, name)
            collect_less_often()
        try:
            verdict, done = _run(given, chosen), True
        except SystemExit:  # argparse has printed its message
            done = True
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # here, where an error in writing is still reported
    except BaseException as error:
        if heard or isinstance(error, KeyboardInterrupt):
            code = _interrupted(name, heard, _kept(error))
            if arguments is None:
                os._exit(code)  # exit handlers of half-loaded libraries would fail
            return code
        if isinstance(error, SystemExit):
            raise
        if not (isinstance(error, BrokenPipeError) and _nobody_reads()):
            return _answer(name, error)
        _quiet()
        if not (done or chosen in ONLY_PRINT):
            _say(f"{name}: stopped: its output pipe was closed; {_kept(error)}")
            return EXIT_UNREAD
    finally:
        if arguments is None:
            _listen_no_more()
    return EXIT_OF_VERDICT.get(verdict, 0) if verdict else 0


def _run(given: Sequence[str], chosen: str) -> str | None:
    """Parse the options and run the command; its verdict if it judges a budget."""
    import argparse
    import importlib
    import io
    import logging

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal's encoding lacks must not end the command.
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog="nas",
        description="The most accurate real-time segmentation network that your device runs within your frame budget.",
        epilog="example: nas search --budget 10ms",
    )
    parser.add_argument("--version", action="version", version=f"nas (framebudget) {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
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
    verdict: str | None = options.run(options)
    return verdict


def _attached(given: Sequence[str]) -> list[str]:
    """`--budget -3ms` as `--budget=-3ms`, so that the error is about the budget, not about option syntax."""
    words = list(given)
    for index in range(len(words) - 1, 0, -1):
        if words[index - 1] == "--budget" and words[index].startswith("-"):
            words[index - 1 : index + 1] = [f"--budget={words[index]}"]
    return words


def _open_streams() -> None:
    """Open standard input, output and error on /dev/null if they are closed, as when some daemons start a program:
    otherwise the next file that is opened would take their descriptors.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115 (open until the process ends)


class _BesideThis:
    """Finds our packages beside this one even if PYTHONPATH has others of the same names. It finds nothing else there,
    because site-packages may hold a package named like a module of Python's own.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        from importlib.machinery import PathFinder

        here = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
        return PathFinder.find_spec(name, here) if name in ("space", "pruning") else None


def _listen(heard: list[int], name: str) -> None:
    """Turn the first signal that would end the program into a KeyboardInterrupt; later ones do not interrupt the
    clean-up.

    Signals that are ignored stay ignored (`nohup`). A library may swallow the exception, and the clean-up may hang:
    after GRACE_SECONDS the process ends in any case, and the processes that it started end with it.
    """
    import signal
    import threading

    def stop(number: int, frame: FrameType | None) -> None:
        if not heard:
            heard.append(number)
            last = threading.Timer(GRACE_SECONDS, lambda: os._exit(_interrupted(name, heard, _kept(None))))
            last.daemon = True
            last.start()
            raise KeyboardInterrupt

    for each in SIGNALS:
        number = getattr(signal, each)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def _listen_no_more() -> None:
    """Restore the default handling of signals: everything is printed by now, and a KeyboardInterrupt in a library's
    exit handler would print a traceback.
    """
    import signal

    for each in SIGNALS:
        number = getattr(signal, each)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def collect_less_often() -> None:
    """Run the garbage collector less often: it finds nothing while libraries load, and takes a sixth of the start."""
    import gc

    gc.set_threshold(200_000, 30, 30)


def _kept(error: BaseException | None) -> str:
    """What is kept when an error ends a command: its note, if it added one (`nas.commands.shared.ending`)."""
    notes: list[str] = getattr(error, "__notes__", ["nothing finished is lost"])
    return notes[-1]


def _interrupted(name: str, heard: Sequence[int], kept: str) -> int:
    import signal

    number = signal.Signals(heard[0] if heard else signal.SIGINT)
    _say(f"\n{name}: {SIGNALS[number.name]}; {kept}")
    _quiet()
    return 128 + number


def _answer(name: str, error: BaseException) -> int:
    import errno

    from nas.host.room import is_shortage, line_of_shortage
    from nas.host.words import one_line
    from space.errors import UserError

    code, kept = EXIT_USER_ERROR, _kept(error)
    if isinstance(error, UserError):
        text = str(error)
    elif is_shortage(error):
        reason = line_of_shortage(str(error)) or type(error).__name__
        text = (
            f"there is not enough memory ({reason[:LONGEST_REASON]}); use a smaller batch, input or network, end other "
            f"programs that hold memory, or raise the limits `ulimit -v` and `ulimit -u`; {kept}"
        )
    elif isinstance(error, OSError):  # a full disk, a folder that cannot be written
        advice = "make room there, then try again; " if error.errno == errno.ENOSPC else ""
        text = f"{error}; {advice}{kept}"
    else:
        from nas.latency.worker.replies import was_ended

        code, text = (code, str(error)) if was_ended(error) else (EXIT_OUR_FAULT, _fault(error))
    _say(f"{name}: {one_line(text)}")
    _quiet()
    return code


def _fault(error: BaseException) -> str:
    """The message for an unexpected error, whose traceback is written to a file."""
    import tempfile
    import traceback

    last = (str(error).strip().splitlines() or [""])[-1]  # the message itself may be a traceback
    what = f"{type(error).__name__}: {last[:300]}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="nas-fault-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return f"this is a fault of the program ({what}); please report it; {_kept(error)}"
    return f"this is a fault of the program ({what}); please report it with {file.name}; {_kept(error)}"


def _say(text: str) -> None:
    for stream, words in ((sys.stdout, ""), (sys.stderr, f"{text}\n")):  # flush standard output first
        try:
            stream.write(words)
            stream.flush()
        except (OSError, ValueError):  # the terminal is gone
            continue


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose other end is closed, as after `| head`."""
    import select

    try:
        output = select.poll()
        output.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in output.poll(0))
    except (OSError, ValueError):  # standard output has no file descriptor
        return False


def _quiet() -> None:
    """Discard output that can no longer be written, about which Python would complain when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    if not sys.flags.safe_path:  # the current folder comes first: a random.py there would be imported for Python's own
        sys.path.pop(0)
    sys.exit(main())
