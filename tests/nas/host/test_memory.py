"""Networks, inputs and batches too large for memory are refused before they are built, with a size that fits."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import space
from nas.errors import BusyError, TargetError
from nas.host.memory import Room, fitting_batch, images_at_once, require_inference, require_training
from nas.host.room import free_bytes, is_shortage, whole_bytes
from nas.latency import Meter, parse_target
from space import Architecture, ArchitectureError
from space.count import memory
from space.scale import scale_width

ROOM = 16_000_000_000


@pytest.fixture(autouse=True)
def sixteen_gigabytes() -> Iterator[None]:
    """Limit this process to sixteen gigabytes, whatever the machine has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="module")
def giant() -> Architecture:
    """A network of 13 thousand million parameters."""
    whole = space.load("erfnet")
    last = replace(whole.stages[-1], width=4096, depth=64)
    return replace(whole, stages=(*whole.stages[:-1], last))


def test_estimated_memory_is_close_to_the_tensors_of_a_network() -> None:
    architecture, size = scale_width(space.load("swiftnet-rn18"), 0.25), (64, 96)
    network = architecture.build(5)
    outputs: list[int] = []
    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, given, output: outputs.append(output.numel()))
    network(torch.zeros(2, 3, *size))
    counted = memory(architecture, size, 5)
    assert counted.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert sum(outputs) / 2 <= counted.outputs <= 2 * sum(outputs) / 2  # outputs include sums, resizing and the image
    assert max(outputs) / 2 < counted.alive < counted.outputs
    assert counted.inference_bytes(2) == 4 * (counted.parameters + 2 * counted.alive)
    assert counted.training_bytes(2) == 4 * (4 * counted.parameters + 2 * (counted.outputs + counted.alive))


def test_the_error_for_too_wide_a_network_names_a_fitting_width(giant: Architecture) -> None:
    with pytest.raises(
        ArchitectureError, match=r"needs 51\.\d\d GB or more, .*use at most 0\.\d\d of its width"
    ) as told:
        require_inference(giant, (180, 240), 11)
    share = float(re.findall(r"at most (0\.\d\d) of its width", str(told.value))[0])
    require_inference(scale_width(giant, 0.95 * share), (180, 240), 11)


def test_the_error_for_too_large_an_input_names_a_fitting_size() -> None:
    with pytest.raises(ArchitectureError, match=r"at 100000x200000.*an input of at most \d+x\d+") as told:
        require_inference(space.load("erfnet"), (100000, 200000), 11)
    height, width = map(int, re.findall(r"at most (\d+)x(\d+)", str(told.value))[0])
    assert width in (2 * height, 2 * height + 1)
    require_inference(space.load("erfnet"), (int(0.95 * height), int(0.95 * width)), 11)


def test_the_error_for_too_large_a_batch_names_a_fitting_size() -> None:
    with pytest.raises(ArchitectureError, match=r"batches of at most \d+, or") as told:
        require_training(space.load("erfnet"), (512, 1024), 11, batch_size=100_000)
    fits = int(re.findall(r"batches of at most (\d+)", str(told.value))[0])
    assert memory(space.load("erfnet"), (512, 1024), 11).training_bytes(fits) <= whole_bytes()


def test_batches_have_as_many_images_as_fit_into_memory() -> None:
    for size, count in (((64, 96), 4), ((100_000, 200_000), 1)):
        assert images_at_once(space.load("erfnet"), size, 11, most=4) == count


def test_the_memory_of_the_measuring_host_counts() -> None:
    erfnet, size = space.load("erfnet"), (64, 96)
    needed = memory(erfnet, size, 11).inference_bytes()
    require_inference(erfnet, size, 11, there=Room(host="board", free_bytes=needed, whole_bytes=needed))
    with pytest.raises(ArchitectureError, match=r"of board's memory free; use an input of at most \d+x\d+"):
        require_inference(erfnet, size, 11, there=Room(host="board", free_bytes=needed - 1, whole_bytes=needed - 1))
    with pytest.raises(BusyError, match="of board's memory free; end other processes that hold it"):
        require_inference(erfnet, size, 11, there=Room(host="board", free_bytes=needed - 1, whole_bytes=needed))


def test_a_memory_limit_of_the_process_counts() -> None:
    """Batch systems set such a limit."""
    program = "from nas.host.room import free_bytes, whole_bytes; print(free_bytes(), whole_bytes())"
    limit = 3_000_000_000

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    run = subprocess.run(
        [sys.executable, "-c", program], preexec_fn=limited, capture_output=True, text=True, timeout=60, check=True
    )
    free, whole = map(int, run.stdout.split())
    assert whole <= limit
    assert free < whole


def test_free_memory_is_part_of_all_memory() -> None:
    free = free_bytes()
    assert 0 < free <= whole_bytes()
    assert fitting_batch(lambda batch: batch * free // 8, 16, "cpu") in range(4, 13)  # others take and give meanwhile
    assert fitting_batch(lambda batch: 8 * free, 16, "cpu") == 0


@pytest.mark.slow
def test_a_measuring_process_refuses_too_large_a_network_and_goes_on(giant: Architecture) -> None:
    with Meter(parse_target("null@cpu:1"), (64, 96), 4) as meter:
        with pytest.raises(TargetError, match="expected a network that fits into memory"):
            meter.measure(giant)
        assert meter.measure(space.load("ndnet29-fcn32")).p50_milliseconds > 0


def test_an_import_error_about_static_thread_storage_is_no_shortage_of_memory() -> None:
    words = "/usr/lib/libgomp.so.1: cannot allocate memory in static TLS block"
    assert not is_shortage(ImportError(words))
    assert is_shortage(OSError("[Errno 12] Cannot allocate memory"))
