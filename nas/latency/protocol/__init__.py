"""The measurement protocol: candidate and reference alternate call by call, and the ratio of their times is the result.

Clocks drift: the same network on the same machine takes 10-30 % longer in one minute than in the next (clock frequency,
heat, neighbours behind a hypervisor), and no counter reveals it. But whatever slows one call also slows the next, so
the ratio of two alternating networks is repeatable even though neither network's own time is. Hence:

1. **Isolation.** Networks are timed in a process that does nothing else, pinned to as many cores as the target has
   threads; on a CPU every candidate gets a new process (`nas.latency.worker.children` says why). Meanwhile no other
   process of this package trains, prunes or prepares networks on the device (`nas.latency.machine.lane`).

2. **Warm-up** until the ratio is stable.

3. **Blocks of alternating calls.** Calls alternate between candidate and reference, so that every call finds the caches
   as another network left them. They are grouped into blocks of about a tenth of a second, with at least 5 and at most
   25 pairs of calls. Successive blocks of one candidate start at least a quarter of a second apart, because a
   disturbance lasts for seconds. Several candidates take turns block by block.

4. **Number of blocks.** At least 8, then more (up to 24) until 3 of them were undisturbed and half of the ratio's 95 %
   confidence interval is at most 1.5 % of the ratio. If a wider interval is requested, proportionally fewer blocks are
   taken, and closer together. The result is the ratio of the *quiet medians*, the median calls in undisturbed blocks
   (`nas.latency.protocol.quiet`).

5. **State of the machine.** A block counts only if the machine was in the same state as when it was anchored: the
   median of the reference is within 15 % of its anchor and, with more than one thread, the canary's ratio to the
   reference is within 35 % of the anchored one. Two effects that do not cancel in the ratio make this necessary:

   - *Small networks slow down more.* A neighbour on the core's other hardware thread or in its caches slows small
     networks by up to twice as much as the reference (`studies/latency`). On one thread of a CPU part of this is
     removed from their ratios (`nas.latency.protocol.slowing`; `corrected` in the record).
   - *Virtual cores are moved about.* Two cores of a virtual machine may share a cache, lie on dies that share none, or
     be the two hardware threads of one core. Depending on this placement, one network took 2.1, 2.7 or 4.0 times as
     long as the same reference. The canary, called a few times at the end of every block, detects the placement
     (`nas.latency.protocol.reference`).

   A block that does not count is set aside (`set_aside` in the record counts its pairs). The timer then sleeps briefly,
   since cores may be placed anew when they wake up, and goes on. It stops waiting when the machine has not returned to
   its anchored state within 12 s, or is found to be faster than that state. If fewer than 8 blocks count by then, all
   blocks are used (at least 8), and the record is flagged. After such a wait in vain, the next measurement waits no
   longer than a second, until a block counts again.

6. **Other activity** on the machine is watched (`nas.latency.machine.load`), and so is the steadiness of the reference.
   A disturbed measurement is repeated once; if that one is disturbed too, the better of the two is reported with the
   reasons in `flagged`. Nothing is averaged away.

**What a millisecond means.** A latency in milliseconds is the ratio times the *anchor*: the latency of the reference
network on this device in the state that most of twelve blocks found it in, measured once and kept
(`nas.latency.protocol.anchor`). Milliseconds therefore describe the device *in its usual state when it was anchored*:
two latencies with the same anchor can be compared to within the intervals of their ratios, whenever they were measured.
What the candidate took by the clock, disturbances included, is `raw_p50_milliseconds`.

When eight measurements in a row, over two minutes or more, find the machine in another state, faster or slower, the
device has changed (power plan, cooling, other tenants) and is anchored anew. Milliseconds before and after differ by
that change, which is why so many measurements are required. The record holds both ratio and anchor, so results remain
usable after a new anchor. An anchor taken by an earlier version, from the best quarter of its blocks, stays in force
until the device is anchored anew; that is why the protocol kept its version number.

**Quantiles.** p50 is the median call on the quiet machine. p90 and p99 are quantiles of all paired ratios times the
anchor, quiet or not: the candidate's tail with drift removed but with the reference's own jitter included, which errs
on the safe side. With 40 pairs, p99 is little more than the largest value seen.

The files, each of which imports only those before it: `quiet` (statistics of blocks), `reference` (the two frozen
networks), `controls` (those two, prepared on a device), `anchor`, `slowing`, `ready` (a candidate), `pairs` (the record
of a measurement), `interleaving` (which blocks are taken and which count), `timer` (a whole measurement).
"""

from __future__ import annotations

from space.errors import UserError

# Changes whenever latencies change their meaning. Version 1 took the median of all paired ratios, version 2 that of
# each network's own best blocks; up to version 3, networks that take turns shared one process.
VERSION = "4"

WITHIN = 0.015  # half of the 95 % interval, as a share of the ratio; the default
QUICK = 2.0  # times as wide as `WITHIN` for latencies that only decide what to measure next
PATIENCE_SECONDS = 12.0  # to wait, per candidate, for the machine to be in its anchored state; the default
PATIENCE_LIMITS = (0.0, 3600.0)  # shortest and longest that can be requested
WITHIN_LIMITS = (0.001, 0.2)  # narrowest and widest that can be requested

SCOPE = "network, upsampling to the input size, arg-max to labels; no copy of the image in or the labels out"


def check_within(within: float, name: str) -> float:
    """`within` unchanged, if it is in `WITHIN_LIMITS`.

    Raises: UserError when it is not; the message begins with `name`.
    """
    low, high = WITHIN_LIMITS
    if not low <= within <= high:
        raise UserError(f"{name}: expected {low:.1%} to {high:.0%} of a latency, got {within:.2%}")
    return within


def check_patience(seconds: float, name: str) -> float:
    """`seconds` unchanged, if they are in `PATIENCE_LIMITS`.

    Raises: UserError when they are not; the message begins with `name`.
    """
    low, high = PATIENCE_LIMITS
    if not low <= seconds <= high:
        raise UserError(f"{name}: expected {low:.0f} to {high:.0f} seconds, got {seconds:g}")
    return seconds
