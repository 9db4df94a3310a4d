"""A simulated device: latencies are computed from multiply-adds, and its clock advances only when a network runs.

It is for tests and for trying out a study: a network has the same latency everywhere, to the last digit, whatever the
machine does meanwhile, and calls take no time. Everything else is as on a real device: the process, the protocol, the
anchor and the records.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.latency.machine.load import Snapshot
from nas.latency.machine.watch import Watch
from nas.latency.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cpu": ("fp32",)}
NOTE = "simulated, for tests"
MULTIPLY_ADDS_PER_SECOND = 20_000_000_000  # per thread
CALL_NANOSECONDS = 50_000


@dataclass(kw_only=True)
class _Clock:
    """The simulated time of the device."""

    now: int = 0
    """Simulated nanoseconds."""

    def nanoseconds(self) -> int:
        return self.now

    def wait(self, nanoseconds: int) -> None:
        self.now += nanoseconds

    def sleep(self, seconds: float) -> None:
        self.wait(round(seconds * 1e9))

    def snapshot(self, device: str) -> Snapshot:
        """Counters of a machine that does nothing else."""
        seconds = self.now / 1e9
        return Snapshot(
            wall=seconds,
            own=seconds,
            waiting=0.0,
            pinned_busy=seconds,
            pinned_stolen=0.0,
            machine_busy=seconds,
            machine_cores=1,
            pinned_cores=1,
        )


_CLOCK = _Clock()  # one per process, shared by all its networks
WATCH = Watch(nanoseconds=_CLOCK.nanoseconds, sleep=_CLOCK.sleep, snapshot=_CLOCK.snapshot)


def available(target: Target) -> str | None:
    return None if importlib.util.find_spec("torch") else "pip install torch"


def versions() -> dict[str, str]:
    import torch

    return {"torch": str(torch.__version__)}


def settle(target: Target) -> None:
    """Nothing to do: no library executes the network."""


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    labels, multiply_adds = _counted(network, image)
    threads = target.threads or 1
    nanoseconds = CALL_NANOSECONDS + math.ceil(multiply_adds * 1_000_000_000 / (MULTIPLY_ADDS_PER_SECOND * threads))
    return functools.partial(_run, labels, nanoseconds)


def _counted(network: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Labels, and multiply-adds of convolutions. (FlopCounterMode counts the same, but imports 800 modules.)"""
    import torch

    from space.network import labels_of

    counts: list[int] = []

    def count(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        batch, _, height, width = (inputs[0] if isinstance(layer, torch.nn.ConvTranspose2d) else output).shape
        counts.append(batch * height * width * layer.get_parameter("weight").numel())

    convolutions = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, convolutions):
                hooks.callback(layer.register_forward_hook(count).remove)
        labels: torch.Tensor = labels_of(network, image)
    return labels, sum(counts)


def _run(labels: torch.Tensor, nanoseconds: int) -> torch.Tensor:
    _CLOCK.wait(nanoseconds)
    return labels
