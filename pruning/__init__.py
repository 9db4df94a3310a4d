"""A narrower architecture with its weights, for a latency budget.

Which channels belong together is known to `space.channels`; which matter is scored in `pruning.importance`; how many
of each group stay is decided in `pruning.allocation` against measured latencies; `pruning.surgery` cuts.
"""
