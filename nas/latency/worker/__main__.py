"""The process that measures: `python -m nas.latency.worker TARGET HEIGHT WIDTH CLASSES`, driven by `nas.latency.Meter`.

It speaks JSON, one line each way (`nas.latency.worker.replies`). On start it says {"ready": true, "environment":
{...}}. A request

    {"networks": [{"architecture": "<yaml>", "weights": "<safetensors in base64>" or null}, ...], "within": 0.015}

is answered with {"latencies": [{...}, ...]}. It ends when its input does. What libraries print goes to standard error.

On the CPU each network has a child process (`nas.latency.worker.children`), and this one only gives them turns and
writes the records. On a GPU it prepares and times them all itself.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from nas.latency import runtimes
from nas.latency.machine import device, device_cache, lane
from nas.latency.protocol import VERSION, anchor
from nas.latency.protocol.anchor import Anchor
from nas.latency.protocol.referee import Place, Referee
from nas.latency.protocol.stand import Beside, Company, Run
from nas.latency.target import Target
from nas.latency.worker import children
from nas.latency.worker.replies import answer
from space.errors import TargetError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

# Imported before any child is forked: none does it again, nor is one forked from a process that changes by it.
EARLY = ("nas.export.onnx", "torch.onnx", "onnx", "numpy.ma", "numpy.random")
# Least share of pixels on which a timed graph must agree with PyTorch in fp32, and what still counts as a tie between
# two classes, as a share of the range of logits. PyTorch lets convolutions use TF32 (10 bits) for fp32 on a GPU.
SAME_LABELS = 0.999
AS_EXACT = 2.0  # labels that differ from those of exact arithmetic, as a multiple of how many of PyTorch's do
OPEN = 2.0  # standard deviations: most activations of an untrained network are positive, and below relu6's bound
TIES = {("fp32", "cpu"): 1e-4, ("fp32", "cuda"): 5e-3, ("fp16", "cuda"): 2e-2}


class Bench:
    """One target, one input size, and what stands beside every candidate of this process, prepared on it."""

    def __init__(self, target: Target, size: tuple[int, int]) -> None:
        from nas.latency.protocol.reference import CANARY_SIZE, Canary, Reference

        self.target = target
        self.size = size
        self.runtime = runtimes.require(target)
        self.threads = target.thread_count()
        self.runtime.settle(target)
        self.image = _noise(size)
        self.company = Company(
            reference=self.runtime.prepare(Reference().eval(), self.image, target),
            canary=self.runtime.prepare(Canary().eval(), _noise(CANARY_SIZE), target),
            watch=runtimes.watch(self.runtime),
        )
        self.environment = _environment(target)

    def place(self, network: nn.Module) -> Spot:
        """The network prepared, beside the company.

        Raises: TargetError when the runtime's labels are not PyTorch's.
        """
        run = self.runtime.prepare(network, self.image, self.target)
        self._check_labels(network, run())
        return Spot(run, self)

    def anchored(self, instead_of: Anchor | None) -> Anchor:
        """The device's anchor, or a new one for a machine that turned out better than that one."""
        if instead_of is not None:
            return anchor.renew(self.company, instead_of, self.threads)
        return anchor.obtain(self.company, device_cache.key_of(self.environment, self.size), self.threads)

    def _check_labels(self, network: nn.Module, labels: Tensor) -> None:
        from nas.export.onnx import logits_of, same_labels

        kind = self.target.device.partition(":")[0]
        tie = TIES[self.target.precision, kind]
        logits = logits_of(network, self.image)
        share = same_labels(logits, labels.cpu(), tie)
        if share >= SAME_LABELS:
            return
        # An untrained network may amplify rounding until it decides the labels, PyTorch's own too.
        exact = logits_of(copy.deepcopy(network).double(), self.image.double())
        of_pytorch, of_runtime = same_labels(exact, logits.argmax(1), tie), same_labels(exact, labels.cpu(), tie)
        if not 1 - of_runtime <= max(1 - SAME_LABELS, AS_EXACT * (1 - of_pytorch)):
            raise TargetError(
                f"{self.target} gives other labels than PyTorch on {1 - share:.2%} of the pixels, so its time would be "
                "that of another network; choose another runtime or precision"
            )


def _environment(target: Target) -> dict[str, str]:
    from nas.latency.protocol.reference import NAME

    return runtimes.environment(target) | {"reference": NAME, "protocol": VERSION}


def _noise(size: tuple[int, int]) -> Tensor:
    import torch

    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


class Spot(Beside):
    """A candidate on a bench."""

    def __init__(self, candidate: Run, bench: Bench) -> None:
        super().__init__(candidate, bench.company, bench.target.device)
        self._bench = bench

    def anchored(self, instead_of: Anchor | None) -> Anchor:
        """See `nas.latency.protocol.referee.Place`."""
        return self._bench.anchored(instead_of)


def build(architecture_yaml: str, weights: str | None, num_classes: int) -> nn.Module:
    """The network to time: with trained weights, or untrained with activations of a trained one's magnitude.

    Raises: UserError when the architecture or its weights cannot be read, or do not belong together.
    """
    import torch

    from space.architecture import Architecture

    torch.manual_seed(0)
    network: nn.Module = Architecture.from_yaml(architecture_yaml, source="architecture").build(num_classes)
    if weights is None:
        _settle_norms(network)
    else:
        _load(network, weights)
    return network.eval()


def _load(network: nn.Module, weights: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = load(base64.b64decode(weights))
    except SafetensorError as error:
        raise UserError(f"expected weights as safetensors: {error}; train the network again") from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise UserError(f"the weights belong to another architecture: {problem}") from None


def _settle_norms(network: nn.Module) -> None:
    """Give untrained batch norms the statistics of noise: without them activations of deep networks may leave fp16.

    Their shift is set so that activations are mostly open. With zero shift each pair of normalisation and ReLU makes a
    difference 1.2 times larger: after fifty of them PyTorch's own rounding decides the labels, and no runtime could be
    told to agree with it.
    """
    import torch
    from torch import nn

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.constant_(norm.bias, OPEN)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def main(arguments: list[str]) -> int:
    """Serve requests until the input ends."""
    replies = _own_stdout()
    target_text, height, width, classes = arguments
    size, num_classes = (int(height), int(width)), int(classes)

    def say(reply: dict[str, Any]) -> bool:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        return "refused" not in reply and "failed" not in reply

    def start() -> dict[str, Any]:
        # Before torch is imported: its thread pools copy the cores that they may use, and schedulers like Ray set one
        # thread for all that they start.
        device.pin(target)
        if target.on_cuda:
            return {"ready": True, "environment": bench().environment}
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(target.thread_count()))
        for module in EARLY:
            importlib.import_module(module)
        runtimes.require(target)
        return {"ready": True, "environment": _environment(target)}

    def place(asked: dict[str, Any]) -> Spot:
        with lane.training_step():  # preparing is no timing: it would disturb another's
            return bench().place(build(asked["architecture"], asked["weights"], num_classes))

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        makers = [functools.partial(place, asked) for asked in request["networks"]]
        with contextlib.ExitStack() as stack:
            places: Sequence[Place]
            if target.on_cuda:
                places = [make() for make in makers]
            else:
                places = stack.enter_context(children.seats(makers, at_once=target.thread_count()))
            return {"latencies": [latency.to_dict() for latency in referee.measure(places, request["within"])]}

    target = Target.parse(target_text)
    bench = functools.cache(lambda: Bench(target, size))  # of this process: each child makes its own
    started = answer(start)
    if not say(started):
        return 1
    referee = Referee(target, size, started["environment"])
    for line in sys.stdin:
        say(answer(functools.partial(measure, json.loads(line))))
    return 0


def _own_stdout() -> TextIO:
    """Standard output for replies alone; what libraries print, in Python or C, goes to standard error."""
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return replies


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
