"""The command line: one file per command in `nas/commands/`, one place where errors become one line.

What is imported here is next to nothing: from the first line of `main` on, whatever happens is answered in one line,
Ctrl-C while the libraries load too.
"""

from __future__ import annotations

import os
import sys

from nas import __version__

TYPE_CHECKING = False  # of `typing`, which would be imported before anything is answered
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType

COMMANDS = {
    "search": "find the most accurate network inside a frame budget",
    "profile": "is a budget reachable here, and by how much of the space?",
    "prune": "cut a network's channels down to a budget",
    "quantize": "lower precision, kept only where it is faster and as good",
    "measure": "time networks under one protocol",
    "train": "train one network",
    "evaluate": "per-class IoU of a trained network",
    "predict": "colour overlays to look at",
    "show": "a network's layers, parameters and multiply-adds",
    "export": "ONNX, OpenVINO or TensorRT, checked against PyTorch",
    "zoo": "trained winners by name, usable as ARCH",
    "report": "a run as one HTML file and as data",
    "data": "what a data set holds, and what is odd about it",
    "doctor": "what this machine can do, and what is missing",
}

EXIT_OUR_FAULT = 1
EXIT_USER_ERROR = 2
EXIT_OF_VERDICT = {"FAIL": 3, "UNSURE": 4}
"""A command that judges a budget did all that it was asked, but nothing that is surely inside came of it."""
EXIT_UNREAD = 141
"""As a shell has it of a program that SIGPIPE ends."""
ONLY_PRINT = ("profile", "show", "data", "doctor")
"""Whoever stops reading them has what was wanted; of others that is the answer (`nas.terminal.answering`)."""
SIGNALS = {"SIGINT": "interrupted", "SIGTERM": "told to end", "SIGHUP": "its terminal was closed"}
GRACE_SECONDS = 8.0  # for tidying up after a signal; `docker stop` kills after 10
LONGEST_REASON = 200  # characters of a library's words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0, 1 for faults of ours, 2 for what the user can put right, 3 for a budget that
    is not kept and 4 for one that is not known to be, 128 + N after signal N, 141 where nobody reads what it prints any
    more and there was more to do than to print.

    With no `arguments` it is the program, which answers signals; they are left alone otherwise.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((word for word in given if not word.startswith("-")), "")
    name = f"nas {chosen}" if chosen in COMMANDS else "nas"
    heard: list[int] = []  # signals
    verdict, done = None, False
    try:
        if arguments is None:
            _open_streams()
            sys.meta_path.insert(0, _BesideThis())
            _listen(heard, name)
            collect_less_often()
        try:
            verdict, done = _run(given, chosen), True
        except SystemExit:  # argparse has said everything
            done = True
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # while what keeps it from being written can still be said
    except BaseException as error:
        if heard or isinstance(error, KeyboardInterrupt):
            code = _interrupted(name, heard, _kept(error))
            if arguments is None:
                os._exit(code)  # what libraries would do at the end is not fit for being half loaded
            return code
        if isinstance(error, SystemExit):
            raise
        if not (isinstance(error, BrokenPipeError) and _nobody_reads()):
            return _answer(name, error)
        _quiet()
        if not (done or chosen in ONLY_PRINT):
            _say(f"{name}: ended, for nobody reads what it prints any more; {_kept(error)}")
            return EXIT_UNREAD
    finally:
        if arguments is None:
            _listen_no_more()
    return EXIT_OF_VERDICT.get(verdict, 0) if verdict else 0


def _run(given: Sequence[str], chosen: str) -> str | None:
    """The verdict of a command that judges a budget."""
    import argparse
    import importlib
    import io
    import logging

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding does not have is no reason to end.
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
    """`--budget -3ms` as `--budget=-3ms`: an answer about budgets is better than one about option syntax."""
    words = list(given)
    for index in range(len(words) - 1, 0, -1):
        if words[index - 1] == "--budget" and words[index].startswith("-"):
            words[index - 1 : index + 1] = [f"--budget={words[index]}"]
    return words


def _open_streams() -> None:
    """Have standard input, output and errors go nowhere that are closed, as some daemons start programs: what is opened
    next would take their place.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115 (until the end)


class _BesideThis:
    """Finds our packages beside this one, whatever PYTHONPATH has of their names; nothing else that lies there, such as
    what is installed of a name of Python's own.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        from importlib.machinery import PathFinder

        here = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
        return PathFinder.find_spec(name, here) if name in ("space", "pruning") else None


def _listen(heard: list[int], name: str) -> None:
    """Answer the signals that end programs by KeyboardInterrupt, once: whoever tidies up is not interrupted again.

    Those that are ignored stay so (`nohup`). A library may swallow the exception, and tidying up may hang: after
    GRACE_SECONDS the process ends in any case, and what it has started ends with it.
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
    """Have signals end the process as they do programs that answer none: all is said, and what libraries do at Python's
    end would answer an exception with a traceback.
    """
    import signal

    for each in SIGNALS:
        number = getattr(signal, each)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def collect_less_often() -> None:
    """To look for garbage among what the libraries load, where there is none, takes a sixth of the start."""
    import gc

    gc.set_threshold(200_000, 30, 30)


def _kept(error: BaseException | None) -> str:
    """What is kept of a command that an error ended: in its own words, if it has any (`nas.commands.shared.ending`)."""
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
    from space.errors import UserError

    code, kept = EXIT_USER_ERROR, _kept(error)
    if isinstance(error, UserError):
        text = str(error)
    elif is_shortage(error):
        said = line_of_shortage(str(error)) or type(error).__name__
        text = (
            f"there is not enough memory ({said[:LONGEST_REASON]}); ask for a smaller batch, input or network, end "
            f"what else holds it, or raise what `ulimit -v` and `ulimit -u` allow; {kept}"
        )
    elif isinstance(error, OSError):  # a full disk, a folder that cannot be written
        advice = "make room there, then try again; " if error.errno == errno.ENOSPC else ""
        text = f"{error}; {advice}{kept}"
    else:
        from nas.latency.worker.replies import was_ended

        code, text = (code, str(error)) if was_ended(error) else (EXIT_OUR_FAULT, _fault(error))
    _say(f"{name}: {' '.join(text.split())}")
    _quiet()
    return code


def _fault(error: BaseException) -> str:
    """What to say of an error that nobody expected; its traceback is left in a file."""
    import tempfile
    import traceback

    last = (str(error).strip().splitlines() or [""])[-1]  # of a message that is a traceback itself
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
    for stream, words in ((sys.stdout, ""), (sys.stderr, f"{text}\n")):  # what was printed before comes first
        try:
            stream.write(words)
            stream.flush()
        except (OSError, ValueError):  # the terminal is gone
            continue


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose other end is closed: `head`, say, has seen enough."""
    import select

    try:
        output = select.poll()
        output.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in output.poll(0))
    except (OSError, ValueError):  # it is no file at all
        return False


def _quiet() -> None:
    """Let what cannot be written any more go: Python would complain of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    if not sys.flags.safe_path:  # the current folder is first, where a random.py would be taken for Python's own
        sys.path.pop(0)
    sys.exit(main())
