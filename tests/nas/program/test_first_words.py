"""Commands answer before they load a heavy library: refusals, and a first line with the task."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from nas.cli import COMMANDS
from nas.runs.folder import RunFolder
from nas.study import built_in_study

Environment = Callable[..., dict[str, str]]
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


def test_refusals_load_no_heavy_library(tmp_path: Path, environment: Environment) -> None:
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


def test_every_command_prints_its_task_before_loading_a_heavy_library(tmp_path: Path, environment: Environment) -> None:
    """Without heavy libraries no data are read and no network is timed."""
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
