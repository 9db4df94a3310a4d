"""The load of other processes during a timing, from invented counters and from those of this machine."""

from __future__ import annotations

import time
from dataclasses import replace

from nas.latency.machine import gpu, load


def test_the_load_of_other_processes_is_told_from_our_own() -> None:
    before = load.Snapshot(
        wall=0.0, own=0.0, waiting=0.0, pinned_busy=0.0, pinned_stolen=0.0,
        machine_busy=0.0, machine_cores=4, pinned_cores=1,
    )  # fmt: skip
    quiet = replace(before, wall=1.0, own=0.98, pinned_busy=1.0, machine_busy=1.1)
    assert load.disturbances([(before, quiet)], threads=1) == ()
    shared = replace(quiet, own=0.7)
    assert "30% of the timed cores" in load.disturbances([(before, shared)], threads=1)[0]
    beside = replace(quiet, machine_busy=3.0)
    assert "of the machine" in load.disturbances([(before, beside)], threads=1)[0]
    assert load.disturbances([(before, beside)], threads=1, neighbours=False) == (), "a GPU has one core beside it"
    assert load.disturbances([(before, shared)], threads=1, neighbours=False), "which is its own"
    everywhere = [(replace(before, pinned_cores=4), replace(quiet, pinned_cores=4, pinned_busy=2.98))]
    assert "50% of the timed cores" in load.disturbances(everywhere, threads=4)[0]
    assert load.disturbances(everywhere, threads=4, neighbours=False) == (), "the only GPU has no core of its own"
    kept_waiting = replace(quiet, waiting=0.2)
    assert "waited for a core 20%" in load.disturbances([(before, kept_waiting)], threads=1)[0]
    assert load.disturbances([(before, quiet)] * 5 + [(before, shared)], threads=1) == ()  # 5 % of the whole time
    hot = replace(quiet, throttles=2)
    assert load.disturbances([(before, hot)], threads=1) == ("heat throttled the timed cores 2 times",)
    cooking = replace(quiet, gpu=gpu.GpuState(reasons=0x20 | 0x1))
    assert load.disturbances([(before, quiet), (before, cooking), (before, quiet)], threads=1) == (
        "heat held the GPU's clocks down",
    )
    idle, busy = (replace(state, gpu=gpu.GpuState(others={7: used})) for state, used in ((before, 0.0), (quiet, 0.9)))
    assert load.disturbances([(idle, busy)], threads=1) == ("other processes computed on the GPU: 1",)
    assert load.disturbances([(idle, busy), *[(before, quiet)] * 20], threads=1) == ()  # 4 % of the whole time
    stolen = replace(quiet, pinned_stolen=0.1)
    assert "hypervisor took 10%" in load.disturbances([(before, stolen)], threads=1)[0]


def test_counters_of_this_machine_move() -> None:
    before = load.snapshot()
    end = time.perf_counter() + 0.1
    while time.perf_counter() < end:
        pass
    after = load.snapshot()
    assert after.wall - before.wall >= 0.1
    assert after.own - before.own > 0.01
    assert after.machine_busy > before.machine_busy
    assert 1 <= after.pinned_cores <= after.machine_cores
