"""The meter and its worker process, as the search uses them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import space
from nas.errors import HaltedError, TargetError
from nas.export.quantized import graph_in
from nas.latency import Meter, WorkerError, parse_target
from nas.latency.machine import device_key, lane
from nas.latency.machine.device import pin
from nas.latency.protocol import anchor
from space import Architecture
from space.errors import UserError

SIZE = (64, 96)
QUICK = 0.12  # requested half of the interval, as a share of the latency


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def meter(own_cache: None) -> Iterator[Meter]:
    """A meter of the simulated device, which has the same processes as others and spends no time on calls."""
    with Meter(parse_target("null@cpu:1"), SIZE, 4, patience_seconds=0) as meter:
        yield meter


@pytest.fixture(scope="module")
def torch_meter(own_cache: None) -> Iterator[Meter]:
    with Meter(parse_target("torch@cpu:1"), SIZE, 4, patience_seconds=0) as meter:
        yield meter


@pytest.fixture(scope="module")
def onnx_meter(own_cache: None) -> Iterator[Meter]:
    with Meter(parse_target("onnxruntime@cpu:1"), SIZE, 4, patience_seconds=0) as meter:
        yield meter


def worker_id(meter: Meter) -> int:
    return meter._worker._process.pid  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_network_is_measured_with_and_without_weights(torch_meter: Meter, tmp_path: Path) -> None:
    def kept_anchor() -> anchor.Anchor | None:
        """The current anchor, which a machine of changed speed takes anew after each measurement."""
        return anchor.read(anchor.path_of(device_key.key_of(torch_meter.environment, SIZE)))

    architecture = space.load("ndnet29-fcn32")
    untrained = torch_meter.measure(architecture)
    anchors = [kept_anchor()]
    weights = tmp_path / "weights.safetensors"
    save_file(architecture.build(4).state_dict(), weights)
    trained = torch_meter.measure(architecture, weights=weights, within=QUICK)
    anchors.append(kept_anchor())
    assert untrained.samples >= 40
    assert trained.samples >= 5
    for latency, kept in zip((untrained, trained), anchors, strict=True):
        assert kept is not None
        assert latency.reference_milliseconds == pytest.approx(kept.milliseconds)
        assert latency.ratio_low <= latency.ratio <= latency.ratio_high
        assert latency.p50_milliseconds == pytest.approx(latency.ratio * latency.reference_milliseconds)
        assert (latency.target, latency.height, latency.width, latency.batch) == ("torch@cpu:1", 64, 96, 1)
        assert latency.environment["threads"] == "1"
        assert {"cpu", "cores", "torch", "reference"} <= set(latency.environment)


def test_mistakes_of_the_user_are_refused_and_the_worker_lives_on(meter: Meter, tmp_path: Path) -> None:
    meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
    before = worker_id(meter)
    with pytest.raises(UserError, match="train the network first"):
        meter.measure(space.load("ndnet29-fcn32"), weights=tmp_path / "absent.safetensors")
    weights = tmp_path / "weights.safetensors"
    save_file(space.load("ndnet29-fcn32").build(5).state_dict(), weights)
    with pytest.raises(UserError, match="belong to another architecture"):
        meter.measure(space.load("ndnet29-fcn32"), weights=weights)
    weights.write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(UserError, match="expected weights as safetensors"):
        meter.measure(space.load("ndnet29-fcn32"), weights=weights)
    assert worker_id(meter) == before


def test_no_network_is_timed_during_a_training_step(meter: Meter) -> None:
    done = threading.Event()

    def measure() -> None:
        meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
        done.set()

    measuring = threading.Thread(target=measure)
    with lane.shared():
        measuring.start()
        assert not done.wait(2)
    measuring.join(timeout=120)
    assert done.is_set()


def test_a_dead_worker_is_reported_and_replaced(meter: Meter) -> None:
    meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
    first = worker_id(meter)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(WorkerError, match="killed by signal 9") as told:
        meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
    assert (told.value.code, told.value.ended) == (-9, True)
    assert meter.measure(space.load("ndnet29-fcn32"), within=QUICK).samples >= 5
    assert worker_id(meter) != first


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def child_of(process: int) -> int:
    """The process that measures a network, as soon as there is one."""
    for _ in range(200):
        if children := children_of(process):
            return children[0]
        time.sleep(0.05)
    raise TimeoutError("no child process was started")


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def living_meter(meter: Meter) -> Meter:
    """A meter whose worker is alive, even if an earlier test has killed one."""
    if meter._worker is None or not runs(worker_id(meter)):
        with contextlib.suppress(WorkerError):
            meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
        meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
    return meter


@pytest.mark.share(2)
@pytest.mark.parametrize("killed", ["the worker", "its child"])
def test_worker_and_measuring_process_end_together(living_meter: Meter, killed: str) -> None:
    worker = worker_id(living_meter)
    with ThreadPoolExecutor(1) as pool, lane.shared():  # so that the measurement waits, and can be killed
        measuring = pool.submit(living_meter.measure, space.load("ndnet29-fcn32"))
        child = child_of(worker)
        os.kill(worker if killed == "the worker" else child, signal.SIGKILL)
        with pytest.raises(WorkerError, match="killed by signal 9"):
            measuring.result(timeout=60)
        time.sleep(0.2)
        assert not runs(child)
    assert not runs(worker)


@pytest.mark.slow
def test_each_measurement_has_a_process_of_its_own(living_meter: Meter) -> None:
    """Earlier measurements must leave no memory behind, in which small networks would take longer."""

    def pages() -> int:
        """The pages that the worker has written to, without those of libraries, which come and go."""
        _, resident, shared, *_ = Path(f"/proc/{worker_id(living_meter)}/statm").read_text().split()
        return int(resident) - int(shared)

    before = pages()
    living_meter.measure(space.load("erfnet-encoder"), within=QUICK)
    assert abs(pages() - before) < 128  # half a megabyte; the measurement takes about fifty


@pytest.mark.slow
def test_networks_that_take_turns_have_a_process_each(living_meter: Meter) -> None:
    worker, seen = worker_id(living_meter), set[int]()
    names = ["ndnet29-fcn32", "ndnet45-fcn32", "ndnet61-fcn32"]
    with ThreadPoolExecutor(1) as pool, lane.shared():  # so that all networks are prepared, and none is timed
        measuring = pool.submit(living_meter.measure_together, [space.load(name) for name in names], within=QUICK)
        while len(seen) < len(names) and not measuring.done():
            seen = set(children_of(worker))
            time.sleep(0.05)
    latencies = measuring.result()
    assert len(seen) == len(names)
    assert all(latency.samples >= 5 for latency in latencies)
    assert not children_of(worker)


@pytest.mark.slow
def test_no_network_is_prepared_during_a_timing(onnx_meter: Meter, shallow: Callable[[str], Architecture]) -> None:
    def seconds(process: int) -> float:
        user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    with ThreadPoolExecutor(1) as pool:
        with lane.exclusive():
            measuring = pool.submit(onnx_meter.measure, shallow("erfnet"), within=QUICK)
            child = child_of(worker_id(onnx_meter))
            time.sleep(2)
            computed = seconds(child)
        assert measuring.result().samples >= 5
    assert computed < 0.1


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_ended_and_so_is_one_that_is_left() -> None:
    with Meter(parse_target("torch@cpu:1"), SIZE, 4, patience_seconds=0, limit_seconds=60) as meter:
        process = worker_id(meter)
        meter._limit_seconds = 0.5
        with lane.shared(), pytest.raises(WorkerError, match="no answer within"):
            meter.measure(space.load("ndnet29-fcn32"))
        assert not Path(f"/proc/{process}").exists()
        meter._limit_seconds = 60
        meter.measure(space.load("ndnet29-fcn32"), within=QUICK)
        process = worker_id(meter)
        assert Path(f"/proc/{process}").exists()
    assert not Path(f"/proc/{process}").exists()


@pytest.mark.slow
def test_several_networks_are_measured_in_turns(onnx_meter: Meter) -> None:
    fast, slow = onnx_meter.measure_together([space.load("ndnet29-fcn32"), space.load("erfnet-encoder")], within=QUICK)
    assert slow.ratio > fast.ratio
    assert slow.reference_milliseconds == fast.reference_milliseconds
    assert "onnxruntime" in fast.environment


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ssh that records its arguments; the host is this machine with an environment of its own."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"""#!/bin/sh
echo "$@" > {tmp_path}/arguments
while test "$1" = -o; do shift 2; done
test "$1" = nowhere && {{ echo "ssh: Could not resolve hostname nowhere" >&2; exit 255; }}
shift
exec env -i PATH="$PATH" XDG_CACHE_HOME="{tmp_path}/cache" FRAMEBUDGET_PYTHON="{sys.executable}" sh -c "$*"
"""
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.slow
def test_another_host_measures_over_ssh(host: Path, tmp_path: Path) -> None:
    architecture = space.load("ndnet29-fcn32")
    weights = tmp_path / "weights.safetensors"
    save_file(architecture.build(4).state_dict(), weights)
    with Meter(parse_target("torch@ssh:jetson/cpu:1"), SIZE, 4, patience_seconds=0) as meter:
        latency = meter.measure(architecture, weights=weights, within=QUICK)
    assert (latency.target, latency.environment["threads"]) == ("torch@ssh:jetson/cpu:1", "1")
    options, _, rest = (host / "arguments").read_text().partition(" jetson ")
    assert "-o BatchMode=yes" in options
    assert {"ConnectTimeout", "ServerAliveInterval", "ServerAliveCountMax"} <= set(re.findall(r"\w+(?==)", options))
    assert rest.startswith("${FRAMEBUDGET_PYTHON:-python3} -P -m nas.latency.worker torch@cpu:1 ")
    assert list((tmp_path / "cache" / "framebudget" / "anchors").iterdir())  # anchored where it was timed


def test_a_host_that_does_not_answer_is_an_error_of_the_user(host: Path) -> None:
    with (
        pytest.raises(TargetError, match="Could not resolve hostname nowhere; check that `ssh nowhere"),
        Meter(parse_target("torch@ssh:nowhere"), SIZE, 4),
    ):
        pass


def test_a_host_with_another_version_of_the_program_is_refused(host: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    old = {"ready": True, "program": "framebudget 0.0.9 (protocol 3)", "environment": {}}
    python.write_text(f"#!/bin/sh\necho '{json.dumps(old)}'\ncat\n")
    python.chmod(0o755)
    ssh = tmp_path / "ssh"
    ssh.write_text(ssh.read_text().replace(f'FRAMEBUDGET_PYTHON="{sys.executable}"', f'FRAMEBUDGET_PYTHON="{python}"'))
    with (
        pytest.raises(TargetError, match=r"jetson has framebudget 0\.0\.9 .* install the same there"),
        Meter(parse_target("torch@ssh:jetson/cpu:1"), SIZE, 4),
    ):
        pass


def test_a_target_that_cannot_be_timed_here_is_refused() -> None:
    with pytest.raises(TargetError, match="did you mean 'onnxruntime'"):
        parse_target("onnxruntme@cpu")
    with pytest.raises(TargetError, match="does not run fp16 on cpu"):
        parse_target("torch:fp16@cpu")
    with pytest.raises(TargetError, match="use a machine with cuda:99"), Meter(parse_target("torch@cuda:99"), SIZE, 4):
        pass


def test_the_worker_keeps_replies_apart_from_chatter() -> None:
    code = (
        "import os, sys; from nas.latency.worker.pipes import own_stdout; replies = own_stdout();"
        "print('python'); os.write(1, b'c\\n'); replies.write('reply\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "reply\n"
    assert sorted(done.stderr.split()) == ["c", "python"]


def test_a_worker_is_pinned_to_as_many_cores_as_it_has_threads() -> None:
    before = os.sched_getaffinity(0)
    try:
        pin(parse_target("torch@cpu:1"))
        chosen = os.sched_getaffinity(0)
    finally:
        os.sched_setaffinity(0, before)
    assert len(chosen) == 1
    assert chosen <= before


@pytest.mark.slow
def test_a_network_is_timed_in_int8(own_cache: None, shallow: Callable[[str], Architecture]) -> None:
    """Ranges of values are found in the process that times, where all sessions share their threads."""
    with Meter(parse_target("onnxruntime:int8@cpu:1"), SIZE, 4, patience_seconds=0) as meter:
        found = meter.measure(shallow("ndnet29-fcn32"), within=QUICK)
    assert (found.target, found.environment["precision"]) == ("onnxruntime:int8@cpu:1", "int8")


@pytest.mark.slow
def test_precisions_of_a_graph_are_timed_beside_one_reference(
    onnx_meter: Meter, shallow: Callable[[str], Architecture]
) -> None:
    network = shallow("ndnet29-fcn32").build(4).eval()
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    found = [onnx_meter.measure_graph(graph_in("fp32", network, image), within=0.2)]
    with Meter(parse_target("onnxruntime:int8@cpu:1"), SIZE, 4, patience_seconds=0) as meter:
        found.append(meter.measure_graph(graph_in("int8", network, image), within=0.2))
    assert [latency.target for latency in found] == ["onnxruntime@cpu:1", "onnxruntime:int8@cpu:1"]
    assert [latency.environment["precision"] for latency in found] == ["fp32", "int8"]
    kept = list(device_key.folder("anchors").glob("onnxruntime-*.yaml"))
    assert [file.name.split("-")[1] for file in kept] == ["fp32"]


@pytest.mark.slow
def test_a_halted_meter_ends_the_measurement_of_another_thread_and_starts_no_more() -> None:
    with Meter(parse_target("torch@cpu:1"), (512, 1024), 4) as busy, ThreadPoolExecutor(1) as other:
        measuring = other.submit(busy.measure, space.load("erfnet"), within=1e-6)
        with contextlib.suppress(TimeoutError):
            measuring.result(timeout=2)  # the measurement takes longer than that
        assert not measuring.done()
        busy.halt()
        with pytest.raises(HaltedError, match="was ended with the rest"):
            measuring.result(timeout=60)
        with pytest.raises(HaltedError):
            busy.measure(space.load("ndnet45-fcn32"))
