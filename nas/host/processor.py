"""Support for lower precision, of the processor by its flags and of a GPU by its compute capability."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
INT8_DOTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # they sum products of 8-bit numbers in 32 bits
BF16 = ("amx_bf16", "avx512_bf16", "bf16")
TENSOR_CORES = {"fp16": (7, 0), "int8": (7, 2)}  # least compute capability with tensor cores for a precision
X86 = ("x86_64", "AMD64")


@functools.cache
def flags() -> frozenset[str]:
    """Instruction sets by the kernel's names; empty if it does not report them."""
    try:
        lines = CPUINFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()
    )


def saturates() -> bool:
    """Whether the processor sums two products of 8-bit numbers in 16 bits, which may overflow, as x86 without VNNI."""
    return platform.machine() in X86 and not flags() & set(INT8_DOTS)


def has_bf16() -> bool:
    """Whether the processor computes in bfloat16."""
    return bool(flags() & set(BF16))


def precision_words(precision: str) -> str:
    """What to expect of a precision on this processor, in words; empty for full precision."""
    if precision == "int8":
        found = [name for name in INT8_DOTS if name in flags()]
        if found:
            return f"{', '.join(found)}: 8-bit products at several times the rate of fp32"
        return "without VNNI or AMX some networks gain, others lose; `nas quantize` measures which"
    return ", ".join(name for name in BF16 if name in flags()) if precision == "bf16" else ""


def gpu_precision_words(precision: str, capability: tuple[int, int]) -> str:
    """What to expect of a precision on an NVIDIA GPU, in words; empty for full precision."""
    if precision not in TENSOR_CORES:
        return ""
    first = TENSOR_CORES[precision]
    if capability >= first:
        return f"tensor cores compute in {precision}; `nas quantize` measures whether that pays"
    return f"no tensor cores for it before compute capability {first[0]}.{first[1]}; `nas quantize` measures it"
