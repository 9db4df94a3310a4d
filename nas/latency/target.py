"""Target: where a latency is measured, as one short string that parses and prints the same.

    onnxruntime@cpu          all cores that this process may use
    onnxruntime@cpu:1        one thread
    torch:fp16@cuda:0        half precision on the first GPU
    onnxruntime@ssh:jetson   all cores of another host, reached over ssh
    cudagraph:fp16@ssh:me@box/cuda:0

The grammar is `runtime[:precision]@[ssh:host/]device`: the default precision is `fp32`, and a host alone means its
`cpu`. This module knows only the grammar; `nas.latency.runtimes` knows which runtimes exist and are installed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from nas.errors import TargetError
from nas.host.cores import usable_cores
from nas.host.words import counted
from space.errors import nearest

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
DEVICES = ("cpu", "cuda")
EXAMPLES = "for example onnxruntime@cpu, onnxruntime@cpu:1 (1 thread), cudagraph:fp16@cuda:0 or onnxruntime@ssh:jetson"

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")  # as ssh accepts it; never what ssh would read as an option


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime at a precision on a device.

    Raises: TargetError when a part violates the grammar.
    """

    runtime: str
    precision: str = "fp32"
    device: str = "cpu"
    """`cpu` or `cuda:N`."""
    threads: int | None = None
    """CPU threads; None means one for every core that the process may use."""
    host: str = ""
    """Name of another machine for ssh; empty for this one."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.runtime):
            raise TargetError(f"expected the name of a runtime, got {self.runtime!r}; write {EXAMPLES}")
        if self.precision not in PRECISIONS:
            raise TargetError(
                f"expected one of the precisions {', '.join(PRECISIONS)}, got {self.precision!r}; "
                f"{nearest(self.precision, PRECISIONS)}"
            )
        if not re.fullmatch(r"cpu|cuda:\d+", self.device):
            raise TargetError(
                f"expected the device cpu or cuda:N, got {self.device!r}; "
                f"{nearest(self.device.partition(':')[0], DEVICES)}"
            )
        if self.host and not _HOST.fullmatch(self.host):
            raise TargetError(f"expected a host name for ssh, got {self.host!r}; write {EXAMPLES}")
        if self.threads is not None and (self.device != "cpu" or self.threads < 1):
            raise TargetError(
                f"expected at least 1 thread, on the cpu, got {self.threads} on {self.device}; write {EXAMPLES}"
            )

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that `text` names.

        Raises: TargetError when `text` is not `runtime[:precision]@[ssh:host/]device`.
        """
        left, at, right = text.strip().partition("@")
        runtime, colon, precision = left.partition(":")
        host = ""
        if right.startswith("ssh:"):
            host, slash, right = right.removeprefix("ssh:").partition("/")
            right = right if slash else "cpu"
            if not host:
                raise TargetError(f"expected a host name after ssh: in {text!r}; write {EXAMPLES}")
        if not at or not runtime or not right or (colon and not precision):
            raise TargetError(f"expected runtime[:precision]@device, got {text!r}; write {EXAMPLES}")
        kind, colon, number = right.partition(":")
        if kind not in DEVICES:
            raise TargetError(
                f"expected the device in {text!r} to be cpu or cuda, got {kind!r}; {nearest(kind, DEVICES)}"
            )
        if colon and not re.fullmatch(r"[0-9]{1,6}", number):
            raise TargetError(f"expected a number after {kind}: in {text!r}, got {number!r}; write {EXAMPLES}")
        return cls(
            runtime=runtime,
            precision=precision or "fp32",
            device="cpu" if kind == "cpu" else f"cuda:{int(number or 0)}",
            threads=int(number) if kind == "cpu" and colon else None,
            host=host,
        )

    def __str__(self) -> str:
        precision = "" if self.precision == "fp32" else f":{self.precision}"
        threads = "" if self.threads is None else f":{self.threads}"
        device = f"{self.device}{threads}"
        if self.host:
            device = f"ssh:{self.host}" if device == "cpu" else f"ssh:{self.host}/{device}"
        return f"{self.runtime}{precision}@{device}"

    def on_its_host(self) -> Target:
        """The same target as its own host names it."""
        return replace(self, host="")

    def in_precisions(self, precisions: Collection[str]) -> tuple[Target, ...]:
        """The same target in each of `precisions`, from the highest to the lowest in whatever order they are given;
        only the target itself if there are none.
        """
        return tuple(replace(self, precision=each) for each in PRECISIONS if each in precisions) or (self,)

    def of_reference(self) -> Target:
        """The target that the reference is timed on: on the CPU in full precision, so that all precisions share one
        anchor and can be compared.
        """
        return self if self.on_cuda else replace(self, precision="fp32")

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"

    def thread_count(self) -> int:
        """Number of CPU threads used, on the machine where this is called.

        Raises: TargetError when the target has more threads than the process has cores; they would only wait for each
        other.
        """
        cores = usable_cores()
        if self.threads is not None and self.threads > cores:
            raise TargetError(
                f"{self} asks for {self.threads} threads, but {counted(cores, 'core is', 'cores are')} available here; "
                f"ask for at most {cores}"
            )
        return self.threads or cores
