"""The process that measures: `python -m nas.latency.worker TARGET HEIGHT WIDTH CLASSES`, driven by `nas.latency.Meter`.

It speaks JSON, one line each way. On start it says {"ready": true, "environment": {...}}. A request

    {"networks": [{"architecture": "<yaml>", "weights": "<safetensors in base64>" or null}, ...], "within": 0.015}

is answered with {"latencies": [{...}, ...]}, {"refused": "<message>", "kind": "TargetError"} for what a user can put
right, or {"failed": "<traceback>"}. It ends when its input does. What libraries print goes to standard error.

On the CPU each request is answered by a child of its own, forked before anything was computed: a process ages. Where
networks were built, exported and run before, small ones take 3 to 9 % longer than in a new process, as one that is
deployed is (their memory is what the others left). On a GPU the process answers itself.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import ctypes
import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from nas.latency import anchor, device, device_cache, lane, protocol, runtimes
from nas.latency.anchor import Anchor
from space import strict
from space.errors import TargetError, UserError
from space.latency import Latency
from space.target import Target

if TYPE_CHECKING:
    from torch import Tensor, nn

# Least share of pixels on which a timed graph must agree with PyTorch in fp32, and what still counts as a tie between
# two classes, as a share of the range of logits. PyTorch lets convolutions use TF32 (10 bits) for fp32 on a GPU.
SAME_LABELS = 0.999
AS_EXACT = 2.0  # labels that differ from those of exact arithmetic, as a multiple of how many of PyTorch's do
OPEN = 2.0  # standard deviations: most activations of an untrained network are positive, and below relu6's bound
PR_SET_PDEATHSIG = 1  # linux/prctl.h
TIES = {("fp32", "cpu"): 1e-4, ("fp32", "cuda"): 5e-3, ("fp16", "cuda"): 2e-2}


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the process of one measurement hands on to the next one's."""

    anchor: Anchor | None = None  # one per worker, so that all of its milliseconds compare
    patience_seconds: float = protocol.PATIENCE_SECONDS  # for a machine that is not as it was anchored


class Bench:
    """One target, one input size, and the networks that stand beside every candidate, prepared on it."""

    def __init__(self, target: Target, size: tuple[int, int]) -> None:
        from nas.latency.reference import CANARY_SIZE, NAME, Canary, Reference

        self.target = target
        self.size = size
        self.runtime = runtimes.require(target)
        self.threads = target.thread_count()
        self.runtime.settle(target)
        self.image = _noise(size)
        self.company = protocol.Company(
            reference=self.runtime.prepare(Reference().eval(), self.image, target),
            canary=self.runtime.prepare(Canary().eval(), _noise(CANARY_SIZE), target),
        )
        self.environment = device.describe(target) | {"reference": NAME, "protocol": protocol.VERSION}
        self.kept = Kept()

    def measure(self, networks: Sequence[nn.Module], within: float = protocol.WITHIN) -> list[Latency]:
        """The latency of each network at batch 1, to `within` that share of it; they take turns.

        Raises: TargetError when the runtime's labels are not PyTorch's.
        """
        runs = [self.runtime.prepare(network, self.image, self.target) for network in networks]
        for network, run in zip(networks, runs, strict=True):
            self._check_labels(network, run())
        with lane.alone():
            anchored = self._anchored()
            taken = self._take(runs, anchored, within)
            if any(one.better for one in taken):
                anchored = anchor.renew(self.company, anchored, self.threads)
                taken = self._take(runs, anchored, within)
        # A machine that stays away is not waited for each time as long; one that came back is, little by little.
        away = any(one.out_of_patience for one in taken)
        patience = min(self.kept.patience_seconds * (0.5 if away else 2.0), protocol.PATIENCE_SECONDS)
        self.kept = Kept(anchor=anchored, patience_seconds=patience)
        return [
            protocol.summarise(
                one,
                anchor_milliseconds=anchored.milliseconds,
                anchor_flagged=anchored.flagged,
                target=self.target,
                size=self.size,
                environment=self.environment,
            )
            for one in taken
        ]

    def _take(self, runs: Sequence[protocol.Run], anchored: Anchor, within: float) -> list[protocol.Pairs]:
        conditions = protocol.Conditions(
            company=self.company,
            normal=anchored.normal,
            threads=self.threads,
            device=self.target.device,
            within=within,
            patience_seconds=self.kept.patience_seconds,
        )
        return protocol.measure(runs, conditions)

    def _anchored(self) -> Anchor:
        if self.kept.anchor is not None:
            return self.kept.anchor
        return anchor.obtain(self.company, device_cache.key_of(self.environment, self.size), self.threads)

    def _check_labels(self, network: nn.Module, labels: Tensor) -> None:
        from nas.export import logits_of, same_labels

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


def _noise(size: tuple[int, int]) -> Tensor:
    import torch

    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


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

    def settled() -> dict[str, Any]:
        # Before torch is imported: its thread pools copy the cores that they may use, and schedulers like Ray set one
        # thread for all that they start.
        device.pin(target)
        if not target.on_cuda:
            os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(target.thread_count()))
            import nas.export  # noqa: F401 (here, so that no child imports it again, nor torch)
        return {}

    target = Target.parse(target_text)
    answer = _answer if target.on_cuda else _answer_by_a_child
    bench = functools.cache(lambda: Bench(target, size))  # of this process: each child makes its own
    refused = _answer(settled)
    if not say(refused or answer(lambda: {"ready": True, "environment": bench().environment})):
        return 1
    kept = strict.dump(Kept())
    for line in sys.stdin:
        request = json.loads(line)

        def work(request: dict[str, Any] = request, kept: str = kept) -> dict[str, Any]:
            bench().kept = strict.parse(kept, Kept, "what the last process left")
            networks = [build(one["architecture"], one["weights"], num_classes) for one in request["networks"]]
            latencies = [latency.to_dict() for latency in bench().measure(networks, request["within"])]
            return {"latencies": latencies, "kept": strict.dump(bench().kept)}

        reply = answer(work)
        kept = reply.pop("kept", kept)
        say(reply)
    return 0


def _answer(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, or why it gave nothing."""
    try:
        return work()
    except UserError as error:
        return {"refused": str(error), "kind": type(error).__name__}
    except Exception:
        return {"failed": traceback.format_exc()}


def _answer_by_a_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives in a process that is forked for it and ends with it. As it dies, so do we."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it holds the lane
        with contextlib.suppress(BaseException), os.fdopen(writing, "w") as reply:
            json.dump(_answer(work), reply)
        os._exit(0)  # nothing of the parent's is to be tidied up
    os.close(writing)
    with os.fdopen(reading) as reply:
        text = reply.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    answered: dict[str, Any] = json.loads(text)
    return answered


def _own_stdout() -> TextIO:
    """Standard output for replies alone; what libraries print, in Python or C, goes to standard error."""
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return replies


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
