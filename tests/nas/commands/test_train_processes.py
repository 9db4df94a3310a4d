"""`nas train --processes N`: several processes share one training and end together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from nas.latency.machine import lane
from nas.training.weights import load_weights
from space import Architecture
from space.scale import scale_width

RECIPE = """
optimizer: sgd
learning_rate: 0.02
epochs: 3
batch_size: 4
crop: [48, 64]
scale: [0.8, 1.2]
class_weighting: 1.1
batch_norm_batches: 2
gradient_clip: 1.0
ema_decay: 0.5
seed: 4
encoder: {share: 0.34, batch_size: 5, class_weighting: null, labels: coarse, bias: true}
"""
"""An epoch of the encoder in batches of five and one, which are joined; two of all in batches of four and two."""


@pytest.fixture(scope="module")
def plain(shallow: Callable[[str], Architecture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with an encoder, batch norms and no dropout, whose channels two processes would not drop alike."""
    file = tmp_path_factory.mktemp("plain") / "plain.yaml"
    file.write_text(scale_width(shallow("fplnet"), 0.25).to_yaml())
    return file


def command(plain: Path, pictures: Path, out: Path, *more: str) -> list[str]:
    recipe = out.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    data = ("--data", f"folder:{pictures}", "--input", "64x96", "--recipe", str(recipe), "--device", "cpu")
    return [sys.executable, "-m", "nas.cli", "train", str(plain), *data, "--out", str(out), *more]


def said(err: str) -> list[str]:
    """Lines of standard error, without the progress of a long or waiting training."""
    return [line for line in err.splitlines() if line and not re.search(r" images/s, |^timings run alone", line)]


def run(words: list[str]) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said(done.stderr) == []
    return done.stdout


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def are_gone(processes: list[int]) -> bool:
    """Whether all these processes end within some time."""
    until = time.monotonic() + 60
    while any(Path(f"/proc/{each}").exists() for each in processes) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(Path(f"/proc/{each}").exists() for each in processes)


@contextmanager
def training(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The process of a training whose first epoch is finished."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any(line.startswith("epoch 1/") for line in process.stdout)
            yield process
        finally:
            process.kill()


def same(first: Path, second: Path) -> None:
    """That two folders hold the same training, up to rounding."""
    histories = [yaml.safe_load((out / "progress.yaml").read_text())["history"] for out in (first, second)]
    assert [each["loss"] for each in histories[0]] == pytest.approx([each["loss"] for each in histories[1]], rel=1e-4)
    wanted, found = (load_weights(out / "weights.safetensors") for out in (first, second))
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def alone(plain: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a training in one process."""
    out = tmp_path_factory.mktemp("alone") / "alone"
    return out, run(command(plain, pictures, out))


@pytest.mark.slow
def test_several_processes_train_as_one_and_resume_after_one_of_them_was_killed(alone, plain, pictures, tmp_path):
    (alone, printed), three, killed = alone, tmp_path / "three", tmp_path / "killed"
    told = [printed, run(command(plain, pictures, three, "--processes", "3"))]
    assert "on cpu, in 3 processes" in told[1]
    epochs = [re.findall(r"^epoch (\d)/3.*  loss (\d+\.\d\d)", each, re.M) for each in told]
    assert "encoder 1/1" in told[1]
    assert [number for number, _ in epochs[0]] == ["1", "2", "3"]
    assert epochs[0] == epochs[1]
    assert sorted(file.name for file in alone.iterdir()) == sorted(file.name for file in three.iterdir())
    same(alone, three)

    words = command(plain, pictures, killed, "--processes", "2")
    with training(words) as process:
        members = children_of(process.pid)
        os.kill(members[-1], signal.SIGKILL)  # a helper of multiprocessing comes before it
        assert process.wait(timeout=60) == 2
        (line,) = said(process.stderr.read())
    assert line.startswith("nas train: process 2 of 2 was ended by SIGKILL")
    assert are_gone(members)
    assert "going on after epoch" in run([*command(plain, pictures, killed), "--resume"])
    same(alone, killed)


# Two nodes with addresses of their own and a processor each; the second training loses one of them.
CLUSTER = """
import os, subprocess, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster
both, lost, *words = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}") for number in (2, 3)]
cluster.wait_for_nodes()
words += ["--processes", "2", "--address", cluster.address, "--out"]
code = subprocess.call([*words, both])
with subprocess.Popen([*words, lost, "--epochs", "60"], stdout=subprocess.PIPE, text=True) as process:
    for line in process.stdout:
        if line.split("/")[0].split() == ["epoch", "1"]:
            cluster.remove_node(nodes[1], allow_graceful=False)
more = subprocess.run([*words, "refused", "--processes", "3"], capture_output=True, text=True)
cluster.shutdown()
print(code, process.returncode, more.returncode, more.stderr.splitlines()[-1])
"""


@pytest.mark.slow
def test_two_processes_on_two_nodes_train_as_one_and_resume_after_a_node_was_lost(alone, plain, pictures, tmp_path):
    both, lost = tmp_path / "both", tmp_path / "lost"
    words = [
        word for word in command(plain, pictures, tmp_path / "out") if word not in ("--out", str(tmp_path / "out"))
    ]
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, both, lost, *words], capture_output=True, text=True, timeout=600
    )
    assert done.stdout, done.stderr
    *told, last = done.stdout.splitlines()
    code, code_of_lost, code_of_more, refused = last.split(" ", 3)
    assert code == "0", done.stdout + done.stderr
    assert any(line.endswith("on cpu, in 2 processes") for line in told)
    assert [line for line in told if line.startswith("epoch 3/3")]
    assert sorted(file.name for file in alone[0].iterdir()) == sorted(file.name for file in both.iterdir())
    same(alone[0], both)

    assert code_of_lost == "2", done.stderr
    (line,) = [line for line in said(done.stderr) if line.startswith("nas train: ")]
    assert line.startswith("nas train: the cluster's node 127.0.0.3 is lost, and process ")
    assert line.endswith("see `ray status`, and go on with --resume")
    assert "going on after epoch" in run([*command(plain, pictures, lost, "--epochs", "60"), "--resume"])

    assert code_of_more == "2"
    assert refused == (
        "nas train: --processes: expected room for 3 processes, but the cluster's nodes have room for 1; give 1, or "
        "have another node join"
    )


@pytest.mark.slow
def test_a_whole_network_has_no_batches_of_its_encoder_to_share(alone, plain, pictures, tmp_path):
    init = str(alone[0] / "weights.safetensors")
    words = command(plain, pictures, tmp_path / "out", "--processes", "2", "--epochs", "2", "--init", init)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("batch_size: 5", "batch_size: 1"))
    assert "on cpu, in 2 processes" in run(words)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_several_gpus_train_as_one(plain, pictures, tmp_path):
    one, all_ = tmp_path / "one", tmp_path / "all"
    run([*command(plain, pictures, one), "--device", "cuda"])
    assert "processes" in run([*command(plain, pictures, all_, "--processes", "2"), "--device", "cuda"])
    losses = [
        [each["loss"] for each in yaml.safe_load((out / "progress.yaml").read_text())["history"]] for out in (one, all_)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # convolutions round to bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_worker_processes_end_with_the_process_that_started_them(number, plain, pictures, tmp_path):
    with training(command(plain, pictures, tmp_path / "out", "--processes", "2")) as process:
        members = children_of(process.pid)
        assert len(members) >= 2
        process.send_signal(number)
        code = process.wait(timeout=60)
        told = said(process.stderr.read())
    assert are_gone(members)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    kept = f"--resume goes on from the last finished epoch, in {tmp_path / 'out'}"
    assert told == ([] if number == signal.SIGKILL else [f"nas train: interrupted; {kept}"])


@pytest.mark.slow
def test_training_processes_and_timings_do_not_wait_for_each_other_for_ever(plain, pictures, tmp_path):
    """A circle would be: a step waits for another process, which waits for the timing, which waits for the step."""
    words = command(plain, pictures, tmp_path / "out", "--processes", "2", "--epochs", "6", "--batch-size", "2")
    taken = 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + 200
            while process.poll() is None and time.monotonic() < until:
                with lane.exclusive():
                    taken += 1
                time.sleep(0.01)  # time for a waiting process to enter
            assert process.poll() == 0
        finally:
            process.kill()
        assert "epoch 6/6" in process.stdout.read()
    assert taken > 10


@pytest.mark.slow
def test_an_error_in_several_processes_is_printed_once(plain, pictures, tmp_path):
    words = command(plain, pictures, tmp_path / "out", "--processes", "2")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("0.02", "1.0e+30"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    (line,) = said(done.stderr)
    assert "expected finite numbers" in line


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ("--processes", "0"),
            "--processes: expected a number from 1 to 1024, or gpus for one per GPU, got '0'",
        ),
        (
            ("--processes", "all"),
            "--processes: expected a number from 1 to 1024, or gpus for one per GPU, got 'all'",
        ),
        (("--processes", "gpus"), "--processes: expected GPUs for `gpus`, got the CPU"),
        (("--processes", "5"), "got 5 processes and 4 images at a time; give 4 at most, or a larger --batch-size"),
        (("--processes", "7", "--batch-size", "9"), "got 7 processes and 6 images at a time; give 6 at most"),
    ],
)
def test_impossible_numbers_of_processes_are_refused(nas, plain, pictures, tmp_path, given, expected):
    words = command(plain, pictures, tmp_path / "out", *given)
    assert expected in nas(*words[3:]).refusal()
    assert not (tmp_path / "out").exists()
