"""How a latency is taken: candidate and reference alternate call by call, and their ratio is what counts.

Clocks drift: the same network on the same machine takes 10-30 % more in one minute than in the next (frequency, heat,
neighbours behind a hypervisor), and no counter tells. What slows one call slows the next one too, so the ratio of two
networks that alternate repeats where each of them does not. Hence

1. a process of its own, pinned to as many cores as the target has threads, and on the CPU a new one for each candidate
   (`nas.latency.worker.children` says why); nothing of ours trains, prunes or prepares meanwhile
   (`nas.latency.machine.lane`),
2. warm-up until the ratio is stable,
3. candidate, reference, candidate, reference, ... in blocks of a tenth of a second, and of 5 pairs at least and 25 at
   most. Every call thus finds the caches as another network left them. Blocks of one candidate begin at least a quarter
   of a second apart, since what disturbs a machine lasts for seconds; several candidates take turns,
4. at least eight blocks, more (up to 24) until three of them were undisturbed and the 95 % interval of the ratio is
   within 1.5 % of it; proportionally fewer, and closer together, where less is asked. The ratio is that of the quiet
   medians: of the calls in undisturbed blocks (`nas.latency.protocol.quiet`),
5. a block counts only if the machine was meanwhile as it was when it was anchored: the reference within 15 % of its
   anchor. A neighbour on the core's other hardware thread or in its caches slows small networks up to twice as much as
   the reference (`studies/latency`); on one thread of a CPU a part of that is taken off their ratios
   (`nas.latency.protocol.slowing`; `corrected` in the record). With more than one thread each block also ends with some
   calls of the canary. A virtual machine's cores are moved about: two of them may be neighbours that share a cache, lie
   on dies that do not, or be the two hardware threads of one core. A ratio does not cancel that: by where the cores
   were, one network took 2.1, 2.7 or 4.0 times as long as the same reference. The canary shows it
   (`nas.latency.protocol.reference`). A block that does not count is set aside, we sleep a little (woken cores may be
   placed anew) and go on; what was set aside is counted in `set_aside`. When the machine does not come back within
   12 s, or is better than it was, all blocks count, eight at least, and the record is flagged. Having waited in vain we
   wait no more than a second the next time, until a block counts again,
6. what else the machine did is watched (`nas.latency.machine.load`), as is the reference's own steadiness. A disturbed
   measurement is repeated once; if the second is disturbed as well the better one is reported with its reasons in
   `flagged`. Nothing is averaged away.

**What a millisecond means.** A latency in milliseconds is the ratio times the anchor: what the reference network takes
on this device in the state that most of twelve blocks found it in, measured once, and kept
(`nas.latency.protocol.anchor`). So milliseconds are those of the device *as it usually was when it was anchored*; two
numbers with the same anchor compare to within the intervals of their ratios, whenever they were taken. What the
candidate really took, disturbances and all, is `raw_p50_milliseconds`. When eight measurements in a row, over
two minutes or more, find the machine elsewhere, better or worse, the device has changed (power plan, cooling, other
tenants) and is anchored anew. Milliseconds before and after that differ by what changed, which is why it takes so many.
The ratio and the anchor are both in the record, so that results survive a new anchor; so an anchor that an earlier
version took, of the best quarter of its blocks, stays in force until then, and the protocol's version did not change.

p50 is the median call of the quiet machine. p90 and p99 are quantiles of all paired ratios times the anchor, quiet or
not: the candidate's tail with drift removed and the reference's own jitter included, which errs to the careful side.
With 40 pairs a p99 is little more than the largest value seen.

The files, each of which uses only those before it: `quiet` (statistics of blocks), `reference` (the two frozen
networks), `controls` (those two, prepared on a device), `anchor`, `slowing`, `ready` (a candidate), `pairs` (the record
of a measurement), `interleaving` (which blocks are taken and count), `timer` (the whole of it).
"""

from __future__ import annotations

from space.errors import UserError

# Of what a number means. 1 took the median of all paired ratios, 2 that of each network's own best blocks; until 3,
# networks that take turns did so in one process.
VERSION = "4"

WITHIN = 0.015  # of the ratio: half of its 95 % interval, unless asked otherwise
QUICK = 2.0  # times as unsure are latencies that only lead to another one
PATIENCE_SECONDS = 12.0  # per candidate, for a machine that is not as it was anchored, unless asked otherwise
PATIENCE_LIMITS = (0.0, 3600.0)  # that can be asked for
WITHIN_LIMITS = (0.001, 0.2)  # that can be asked for

SCOPE = "network, upsampling to the input size, arg-max to labels; no copy of the image in or the labels out"


def check_within(within: float, name: str) -> float:
    """`within`, if that is a share of a latency that can be asked for.

    Raises: UserError when it cannot be; the message begins with `name`.
    """
    low, high = WITHIN_LIMITS
    if not low <= within <= high:
        raise UserError(f"{name}: expected {low:.1%} to {high:.0%} of a latency, got {within:.2%}")
    return within


def check_patience(seconds: float, name: str) -> float:
    """`seconds`, if a machine can be waited for that long.

    Raises: UserError when it cannot be; the message begins with `name`.
    """
    low, high = PATIENCE_LIMITS
    if not low <= seconds <= high:
        raise UserError(f"{name}: expected {low:.0f} to {high:.0f} seconds, got {seconds:g}")
    return seconds
