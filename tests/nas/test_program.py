"""The program and the world around it: signals, closed pipes, full disks, odd terminals, homeless users, others' files.

Whatever happens is answered in one line, and never by a traceback.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from PIL import Image

from nas.cli import COMMANDS, main
from nas.commands import show
from nas.latency import WorkerError
from nas.runs.folder import RunFolder
from nas.study import built_in_study

ROOT = Path(__file__).parents[2]


def environment(**changes: str | None) -> dict[str, str]:
    """What the program is told: this checkout, and the changes; None takes a variable away."""
    told = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {name: text for name, text in told.items() if text is not None}


def nas(*words: str, folder: Path | None = None, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """What one command answered."""
    return subprocess.run(
        [sys.executable, "-m", "nas.cli", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(**changes),
        timeout=120,
        errors="replace",
    )


def refusal(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """Its one line."""
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def measuring(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A command whose measuring processes are at work: `nas measure`, in a session of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "nas.cli", "measure", "--target", "torch@cpu:1", "--input", "64x96"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment(XDG_CACHE_HOME=str(tmp_path)),
    ) as process:
        for _ in range(600):
            if len(measuring_processes(process.pid)) > 1:  # the one that gives turns, and a network's own
                break
            time.sleep(0.1)
        yield process
        process.kill()


def family(process: int) -> list[int]:
    """A process and all that descends from it."""
    try:
        tasks = [each.read_text().split() for each in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:
        return [process]
    return [process, *(each for children in tasks for child in children for each in family(int(child)))]


def measuring_processes(process: int) -> list[int]:
    """Those of its family that measure; a library that loads may start some program for a moment."""
    return [each for each in family(process) if b"nas.latency.worker" in command_of(each)]


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def living(processes: list[int]) -> list[int]:
    def runs(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [each for each in processes if runs(each)]


def gone(processes: list[int]) -> bool:
    """Whether they end within five seconds."""
    end = time.monotonic() + 5
    while living(processes) and time.monotonic() < end:
        time.sleep(0.05)
    return not living(processes)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGTERM, "terminated"),
        pytest.param(signal.SIGINT, "interrupted", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "its terminal was closed", marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_it_with_clean_words_and_nothing_stays(
    measuring: subprocess.Popen[str], number: int, words: str
) -> None:
    processes = family(measuring.pid)
    assert len(measuring_processes(measuring.pid)) > 1
    measuring.send_signal(number)
    said, _ = measuring.communicate(timeout=30)
    assert measuring.returncode == 128 + number, said
    kept = "what was timed so far is not kept: the same command begins anew"
    assert said.splitlines()[-1] == f"nas measure: {words}; {kept}"
    assert "Traceback" not in said
    assert gone(processes)


def test_what_measures_ends_with_a_killed_owner(measuring: subprocess.Popen[str]) -> None:
    processes = family(measuring.pid)
    assert len(measuring_processes(measuring.pid)) > 1
    measuring.kill()
    measuring.wait()
    assert gone(processes)


@pytest.mark.slow
def test_a_killed_measuring_process_is_told(measuring: subprocess.Popen[str]) -> None:
    os.kill(measuring_processes(measuring.pid)[0], signal.SIGKILL)
    said, _ = measuring.communicate(timeout=30)
    assert measuring.returncode == 2, said
    assert said.splitlines()[-1].startswith("nas measure: the process measuring on torch@cpu:1 was killed by signal 9;")
    assert "Traceback" not in said


@pytest.mark.share(4)
@pytest.mark.parametrize("module", ["nas.commands", "numpy", "torch._utils", "torch.nn"])
def test_ctrl_c_while_libraries_load(module: str, tmp_path: Path) -> None:
    """Before the program's first line it is Python that answers."""
    with subprocess.Popen(
        [sys.executable, "-v", "-m", "nas.cli", "train", "erfnet", "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if f"import '{module}'" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "nas train: interrupted; nothing finished is lost" in said.splitlines()
    assert "Traceback" not in said


def test_signals_that_are_ignored_stay_so() -> None:
    """As under nohup."""
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); sys.argv[1:] = ['show', 'erfnet']\n"
        "from nas.cli import main; main(); signal.raise_signal(signal.SIGHUP); print('still here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60
    )
    assert done.stdout.endswith("still here\n"), done.stderr


@pytest.mark.parametrize("words", [["show", "erfnet"], ["show", "erfnett"], ["show", "--help"]])
def test_a_signal_while_python_ends_leaves_no_traceback(words: list[str]) -> None:
    """All is said then; what libraries do at the end takes a while."""
    code = (
        f"import atexit, signal, sys; sys.argv[1:] = {words}\n"
        "atexit.register(lambda: (signal.raise_signal(signal.SIGTERM), print('still here')))\n"
        "from nas.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60
    )
    assert done.returncode == -signal.SIGTERM
    assert "still here" not in done.stdout
    assert len(done.stderr.splitlines()) == (words[-1] == "erfnett")


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    for words in (["show", "erfnet"], ["--help"], ["show", "--help"]):
        reads, writes = os.pipe()
        os.close(reads)
        done = subprocess.run(
            [sys.executable, "-m", "nas.cli", *words],
            stdout=writes,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
        )
        os.close(writes)
        assert (done.returncode, done.stderr) == (0, b""), words


def head(lines: int, *words: str, unbuffered: str | None = None) -> tuple[int, str]:
    """The exit code of a command of whose output so many lines are read, and what it says to its terminal."""
    with subprocess.Popen(
        [sys.executable, "-m", "nas.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED=unbuffered),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        return process.wait(), said


@pytest.mark.parametrize("unbuffered", [None, "1"])
def test_a_verdict_holds_whoever_reads_it(unbuffered: str | None, tmp_path: Path) -> None:
    words = ("measure", "ndnet29-fcn32", "--target", "null@cpu:1", "--input", "64x96", "--within", "20%")
    out = ("--out", str(tmp_path / "out"))
    code, said = head(1, *words, *out, "--budget", "0.001ms", unbuffered=unbuffered)
    assert (code, said) == (3, ""), "FAIL"
    assert (tmp_path / "out" / "latency.csv").is_file()


@pytest.mark.parametrize("unbuffered", [None, "1"])
def test_what_is_written_is_written_whoever_reads_of_it(unbuffered: str | None, tmp_path: Path) -> None:
    copy = ("zoo", "camvid-searched", "--out", str(tmp_path / "copy"))
    assert head(0, *copy, unbuffered=unbuffered) == (0, "")
    assert (tmp_path / "copy" / "certificate.yaml").is_file()
    code, said = head(0, *copy, unbuffered=unbuffered)  # what it replaces it says before
    assert code == 141
    assert said.startswith("nas zoo: stopped: its output pipe was closed")
    assert head(0, "zoo", unbuffered=unbuffered) == (0, "")


def test_what_was_cut_short_has_not_done_what_it_was_asked(tmp_path: Path) -> None:
    size = ("--input", "32x48")
    code, said = head(3, "train", "erfnet-encoder", *size, "--epochs", "9", "--out", str(tmp_path / "out"))
    assert code == 141
    begun = "no epoch was finished: the same command begins anew"
    later = f"--resume goes on from the last finished epoch, in {tmp_path / 'out'}"
    ended = "nas train: stopped: its output pipe was closed"
    assert said.splitlines()[-1] in (f"{ended}; {begun}", f"{ended}; {later}")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_fault(closed: str, tmp_path: Path) -> None:
    """As daemons start programs. A traceback, which might have nowhere to go, would end them with 1."""
    for words, code in (("--version", 0), ("show nosuch", 2)):
        done = subprocess.run(
            ["sh", "-c", f"exec '{sys.executable}' -m nas.cli {words} {closed}"],
            capture_output=True,
            text=True,
            env=environment(TMPDIR=str(tmp_path)),
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == [], "no fault was written down"


def test_output_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nas.cli", "show", "erfnet"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=60,
        )
    assert done.returncode == 2
    assert (
        done.stderr
        == "nas show: [Errno 28] No space left on device; make room there, then try again; nothing finished is lost\n"
    )


@pytest.mark.share(3)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_are_shown_on_every_terminal(encoding: str) -> None:
    done = nas("show", "歩行者-Straße", PYTHONIOENCODING=encoding)
    assert "expected a published network or a YAML file" in refusal(done)


def test_paths_that_cannot_be_written_down_are_told_first(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/stra\xdfe"
    os.mkdir(odd)
    train = ["train", "erfnet", "--input", "32x48"]
    search = ["search", "--budget", "10ms", "--target", "null@cpu:1"]
    shutil.copy(ROOT / "space" / "published" / "erfnet.yaml", os.fsdecode(odd))
    show = [sys.executable, "-m", "nas.cli", "show", odd + b"/erfnet.yaml"]
    assert subprocess.run(show, env=environment()).returncode == 0, "nothing of it is written down"
    os.unlink(odd + b"/erfnet.yaml")
    for words, folder in (
        ([*search, "--out", odd + b"/run"], tmp_path),
        ([*train, "--data", b"folder:" + odd], tmp_path),
        ([*train, "--out", odd], tmp_path),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "nas.cli", *words], capture_output=True, text=True, cwd=folder, env=environment()
        )
        assert done.returncode == 2
        assert "expected a path in UTF-8, got b'" in done.stderr
        assert "stra\\xdfe" in done.stderr
        assert "fault of the program" not in done.stderr
    assert os.listdir(odd) == []


def test_a_fault_of_ours_is_one_line_and_a_file(tmp_path: Path) -> None:
    code = (
        "import sys, nas.commands.show as show\n"
        "def broken(options): raise KeyError('of ours')\n"
        "show.run = broken\nfrom nas.cli import main\nsys.exit(main(['show', 'erfnet']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        timeout=60,
    )
    said = refusal(done, code=1)
    (file,) = tmp_path.iterdir()
    assert str(file) in said
    assert "KeyError: 'of ours'" in said
    assert "in broken" in file.read_text()


def test_want_of_memory_is_no_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of this process, and of one of several in its traceback."""
    with pytest.raises(RuntimeError) as here:
        torch.empty(2**50, dtype=torch.uint8)
    there = WorkerError("".join(traceback.format_exception(here.value)))
    on_gpu = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    threads = RuntimeError("can't start new thread")  # ulimit -u
    for error in (here.value, there, on_gpu, MemoryError(), threads):

        def short(options: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(show, "run", short)
        assert main(["show", "erfnet"]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "there is not enough memory (" in said
        assert "use a smaller batch, input or network" in said
        assert "`ulimit -v` and `ulimit -u`" in said


def test_a_library_without_room_is_want_of_memory_only_where_that_is_limited() -> None:
    """What the loader says then it also says of a disk that is mounted `noexec`."""
    code = (
        "import resource, sys; from nas.host.room import is_shortage\n"
        "error = ImportError('libtorch_cpu.so: failed to map segment from shared object')\n"
        "print(is_shortage(error)); resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)); print(is_shortage(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_what_lies_in_the_current_folder_is_no_module_of_ours(tmp_path: Path) -> None:
    for name in ("nas", "space", "random", "onnx", "torch", "typing", "argparse", "numpy"):
        (tmp_path / f"{name}.py").write_text("print('somebody has run this')\nraise SystemExit(99)")
    code = "import sys; from nas.cli import main; sys.exit(main())"  # what the installed script does
    words = ["measure", "ndnet29-fcn32", "--target", "null@cpu:1", "--input", "64x96", "--within", "20%"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")),
        timeout=120,
    )
    assert "somebody" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_what_is_installed_beside_ours_is_not_taken_for_pythons_own(tmp_path: Path) -> None:
    """Of a backport (`argparse` 1.4.0, say), in a folder as pip makes it."""
    installed = tmp_path / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    installed.mkdir(parents=True)
    for name in ("nas", "space", "pruning"):
        (installed / name).symlink_to(ROOT / name)
    for name in ("argparse", "dataclasses", "pathlib"):
        (installed / f"{name}.py").write_text("raise SystemExit(99)")
    code = (
        "import sys; at = 1 + max(place for place, each in enumerate(sys.path) if each.endswith('lib-dynload'))\n"
        f"sys.path.insert(at, {str(installed)!r})\nfrom nas.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "show", "erfnet"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(PYTHONPATH=None),
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_packages_of_our_names_elsewhere_are_not_ours(tmp_path: Path) -> None:
    for name in ("space", "pruning"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    done = nas("show", "erfnet", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 0, done.stderr


def test_run_as_a_module_it_leaves_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit(99)")
    assert nas("show", "erfnet", folder=tmp_path).returncode == 0


HEAVY = {"torch", "ray", "optuna", "onnx", "onnxruntime", "matplotlib"}
REFUSED = [
    ["search", "--budget", "10"],
    ["search", "--budget", "10ms", "--address", "jetson"],
    ["search", "nosuch.yaml"],
    ["search", "--resume", "nosuch"],
    ["profile", "--budget", "10"],
    ["measure", "--budget", "10"],
    ["show", "nosuch"],
    ["train", "nosuch"],
    ["data", "nosuch"],
    ["report", "nosuch"],
    ["evaluate", "erfnet"],
    ["predict", "erfnet", "nosuch.png"],
    ["predict", "erfnet", "--video", "nosuch.mp4"],
    ["export", "erfnet"],
]


def test_what_can_be_refused_at_once_waits_for_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import json, sys; from nas.cli import main\n"
        "print(*[main(words) for words in json.loads(sys.argv[1])])\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(REFUSED)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=60,
    )
    *_, codes, modules = done.stdout.splitlines()
    assert codes.split() == ["2"] * len(REFUSED), done.stderr
    assert not HEAVY & set(modules.split())


FIRST_WORDS = {
    "search --budget 10ms --target null@cpu:1 --out new": "searching within 10ms, run new",
    "search --resume run": "searching within 10ms, run run",
    "profile --budget 10ms --target null@cpu:1": "is 10ms reachable at 180x240?",
    "prune erfnet --weights w.safetensors --budget 6ms --out pruned": "pruning erfnet to 6ms",
    "quantize erfnet --weights w.safetensors --target openvino@cpu:1 --out quantized": "quantizing erfnet",
    "measure erfnet --target null@cpu:1": "1 network on null@cpu:1 at 180x240, batch 1, 11 classes",
    "measure --calibrate --target null@cpu:1": "550 random networks on null@cpu:1 at 180x240, batch 1",
    "train erfnet --out trained": "training erfnet in trained",
    "evaluate erfnet --weights w.safetensors --data folder:data": "evaluating erfnet",
    "predict erfnet --weights w.safetensors a.png b.png": "segmenting with erfnet",
    "show erfnet --latency --target null@cpu:1": "timing the layers of erfnet in PyTorch, then all of it on null@cpu:1",
    "export erfnet --weights w.safetensors": "exporting erfnet to model.onnx",
    "report run": "reading run",
    "data folder:data": "looking at 1 training and 1 validation images of folder",
    "doctor": "python ",
    "zoo": "name ",
}


def test_every_command_says_what_it_does_before_anything_that_takes_long(tmp_path: Path) -> None:
    """Before a heavy library is loaded, that is, without which no data are looked at and nothing is timed."""
    assert {words.split()[0] for words in FIRST_WORDS} == set(COMMANDS)
    RunFolder.create(tmp_path / "run", built_in_study("10ms"))
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            Image.new("L", (32, 32)).save(tmp_path / "data" / split / kind / "a.png")
    (tmp_path / "data" / "classes.txt").write_text("road\ncar\n")
    code = (
        "import json, os, sys; import nas.latency, nas.runs.trained, nas.study; from nas.cli import main\n"
        "class Ear:\n"
        "    def write(self, text):\n"
        "        os.write(1, json.dumps([text, *{name.split('.')[0] for name in sys.modules}]).encode() + b'\\n')\n"
        "        os._exit(0)\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    if not os.fork():\n"
        "        sys.stdout = Ear()\n"
        "        main(words.split())\n"
        "        os._exit(1)\n"
        "    os.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(list(FIRST_WORDS))],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")),
        timeout=120,
    )
    assert (done.stderr, len(done.stdout.splitlines())) == ("", len(FIRST_WORDS)), done.stdout
    for (words, first), line in zip(FIRST_WORDS.items(), done.stdout.splitlines(), strict=True):
        text, *modules = json.loads(line)
        assert text.startswith(first), words
        assert not HEAVY & set(modules), words


def test_what_answers_otherwise_than_ray_is_no_cluster(tmp_path: Path) -> None:
    server = "import http.server as s; h = s.HTTPServer(('127.0.0.1', 0), s.SimpleHTTPRequestHandler);"
    server += "print(h.server_port, flush=True); h.serve_forever()"
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as web:
        assert web.stdout is not None
        address = f"127.0.0.1:{int(web.stdout.readline())}"
        done = nas(
            "search", "--budget", "10ms", "--out", str(tmp_path / "run"), "--address", "auto", RAY_ADDRESS=address
        )
        web.kill()
    assert refusal(done).startswith(f"nas search: RAY_ADDRESS: the server at {address} is not Ray")


def test_a_long_folder_for_temporary_files_is_reported_first(tmp_path: Path) -> None:
    long = tmp_path / "slurm_jobdir" / "1355700" / "people" / "somebody"
    long.mkdir(parents=True)
    done = nas("search", "--budget", "10ms", "--out", str(tmp_path / "run"), TMPDIR=str(long))
    assert "set TMPDIR to a shorter one" in refusal(done)
    assert not (tmp_path / "run").exists()


def test_a_path_that_ray_misreads_is_reported_first(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with tempfile.TemporaryDirectory(prefix="o'", dir="/tmp") as temporary:
        done = nas("search", "--budget", "10ms", "--out", str(out), TMPDIR=temporary)
        assert f"got {temporary}; set TMPDIR to another one" in refusal(done)
    (tmp_path / "o'brien").symlink_to(sys.prefix)
    python = tmp_path / "o'brien" / Path(sys.executable).relative_to(sys.prefix)
    words = [python, "-m", "nas.cli", "search", "--budget", "10ms", "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=120)
    assert f"got {python}; install this program in an environment in another folder" in refusal(done)
    assert not out.exists()


def test_it_tells_its_version(nas) -> None:
    assert nas("--version").done().out == f"nas (framebudget) {version('framebudget')}\n"
