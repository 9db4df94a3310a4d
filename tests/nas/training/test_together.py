"""Processes that train together compute the same as one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from nas.data.share import WHOLE, Share
from nas.training.loss import labels_at, total_loss
from nas.training.together import SharedNorm
from space import Architecture, published
from space.scale import scale_width

PROGRAM, UNLIKE = (Path(__file__).parent / name for name in ("joint_steps.py", "unlike_gradients.py"))


def run(*words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program whose processes find the same modules as this one."""
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, input=text, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(architecture: Architecture) -> None:
    """Batches have five, two and one images, void pixels and class weights; networks have batch norms or none."""
    text = architecture.to_yaml().replace("dropout: 0.03", "dropout: 0.0").replace("dropout: 0.2", "dropout: 0.0")
    done = run(PROGRAM, text=text)
    assert done.returncode == 0, done.stderr
    without, having = [json.loads(line) for line in done.stdout.splitlines()]
    assert (without["norms"], having["norms"]) == (False, True)
    assert not any("norm" in name for name in without["apart"])
    assert any("running_var" in name for name in having["apart"])
    for told in (without, having):
        assert told["losses"] == pytest.approx(told["wanted"], rel=1e-5)
        assert max(told["apart"].values()) < 1e-5


def test_the_first_process_of_each_machine_stands_for_all_processes_on_it() -> None:
    shares = [Share(rank=rank, count=4, machines=(0, 0, 1, 1)) for rank in range(4)]
    assert [[share.stands_for(machine) for share in shares] for machine in range(shares[0].machine_count)] == [
        [True, False, False, False],
        [False, False, True, False],
    ]
    assert Share(count=4).machine_count == WHOLE.machine_count == 1
    assert [Share(rank=rank, count=2).stands_for(0) for rank in range(2)] == [True, False]


@pytest.mark.share(6)
@pytest.mark.parametrize("name", published())
def test_every_network_trains_with_a_share_without_images(name, shallow) -> None:
    network = scale_width(shallow(name), 0.125).build(3, auxiliary=True, training_form=True).eval()
    outputs = network.outputs(torch.empty(0, 3, 64, 96))
    assert {tuple(each.shape[:2]) for each in outputs} == {(0, 3)}
    labels = labels_at(torch.empty(0, 64, 96, dtype=torch.int64), tuple(outputs[0].shape[-2:]))
    total_loss(outputs, network.auxiliary_weights, labels, torch.ones(3)).backward()
    assert all(float(each.grad.abs().sum()) == 0 for each in network.parameters() if each.grad is not None)


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("images", [0, 2])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_shared_norm_accepts_any_number_of_images_on_any_device(device, images, kind) -> None:
    """Torch's own norm is for GPUs and has no gradients for an empty share. The meta device stands for a GPU."""
    norm = SharedNorm(4).to(device)
    x = torch.ones(images, 4, 3, 5, dtype=kind, device=device, requires_grad=True)
    y = norm(x)
    assert (y.shape, y.dtype, y.device.type) == (x.shape, kind, device)
    y.sum().backward()
    assert norm.weight.grad.shape == norm.bias.grad.shape == (4,)
    assert x.grad.shape == x.shape


@pytest.mark.usefixtures("group")
def test_a_shared_norm_has_the_running_statistics_of_a_norm_in_one_process() -> None:
    generator = torch.Generator().manual_seed(0)
    for momentum in (0.1, None):
        shared, alone = SharedNorm(3, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum)
        for _ in range(3):
            x = torch.randn(2, 3, 4, 5, generator=generator)
            assert torch.allclose(shared(x), alone(x), atol=1e-6)
        for name, expected in alone.state_dict().items():
            assert torch.allclose(shared.state_dict()[name], expected, atol=1e-6), name


def test_processes_with_unlike_gradients_end_instead_of_waiting() -> None:
    done = run(UNLIKE)
    assert done.returncode
    assert "gradients from each process, got others" in done.stderr


def test_processes_that_cannot_begin_raise_an_error() -> None:
    """The processes cannot import the function that they should run."""
    lines = (
        "from nas.runs.processes import work_together",
        "def work(share): ...",
        "work_together(work, 2, on_gpus=False)",
    )
    done = run("-c", "\n".join(lines))
    assert done.returncode
    assert "WorkerError" in done.stderr
