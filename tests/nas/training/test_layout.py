"""Networks whose training, channels last, would end the process: PyTorch's strided 1x1 convolution of few channels."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEP = """
import torch
import space
from nas.training import load_recipe
from nas.training.compute_mode import usual_mode
from space.scale import scale_width
torch.set_num_threads(1)
network = scale_width(space.load("swiftnet-rn18"), 0.05).build(11)
mode = usual_mode(network, torch.device("cpu"), load_recipe("quick"))
network.to(memory_format=mode.memory_format)
network(torch.randn(4, 3, 256, 352).contiguous(memory_format=mode.memory_format)).sum().backward()
print(mode.layout)
"""


@pytest.mark.slow
def test_a_training_step_of_a_very_narrow_network_does_not_crash() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"code {done.returncode}: {done.stderr}"
    assert done.stdout == "plain\n"
