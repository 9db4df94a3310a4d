"""What processes that train together compute is what one computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas.data.share import WHOLE, Share
from nas.training.loss import labels_at, total_loss
from space import Architecture, published
from space.scale import scale_width

PROGRAM = Path(__file__).parent / "joint_steps.py"


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(architecture: Architecture) -> None:
    """Batches of five, two and one images, with void pixels and weights of classes, with batch norms and without."""
    text = architecture.to_yaml().replace("dropout: 0.03", "dropout: 0.0").replace("dropout: 0.2", "dropout: 0.0")
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        input=text,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    without, having = [json.loads(line) for line in done.stdout.splitlines()]
    assert (without["norms"], having["norms"]) == (False, True)
    assert not any("norm" in name for name in without["apart"])
    assert any("running_var" in name for name in having["apart"])
    for told in (without, having):
        assert told["losses"] == pytest.approx(told["wanted"], rel=1e-5)
        assert max(told["apart"].values()) < 1e-5


def test_the_first_process_of_each_machine_enters_for_those_that_are_there() -> None:
    shares = [Share(rank=rank, count=4, machines=(0, 0, 1, 1)) for rank in range(4)]
    assert [[share.stands_for(machine) for share in shares] for machine in range(shares[0].machine_count)] == [
        [True, False, False, False],
        [False, False, True, False],
    ]
    assert Share(count=4).machine_count == WHOLE.machine_count == 1
    assert [Share(rank=rank, count=2).stands_for(0) for rank in range(2)] == [True, False]


@pytest.mark.share(6)
@pytest.mark.parametrize("name", published())
def test_every_network_takes_a_share_without_images(name, shallow) -> None:
    network = scale_width(shallow(name), 0.125).build(3, auxiliary=True, trained=True).eval()
    outputs = network.outputs(torch.empty(0, 3, 64, 96))
    assert {tuple(each.shape[:2]) for each in outputs} == {(0, 3)}
    labels = labels_at(torch.empty(0, 64, 96, dtype=torch.int64), tuple(outputs[0].shape[-2:]))
    total_loss(outputs, network.auxiliary_weights, labels, torch.ones(3)).backward()
    assert all(float(each.grad.abs().sum()) == 0 for each in network.parameters() if each.grad is not None)
