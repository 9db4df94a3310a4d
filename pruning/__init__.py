"""A narrower architecture with its weights, for a latency budget.

Which channels belong together is known to `space.channels`; which matter is scored by an importance, a file in
`pruning.importances`; what it does to leave out some of a group, or a whole block, is observed in `pruning.damage`;
what stays is decided in `pruning.knapsack` by estimated latencies, and in `pruning.allocation` against measured ones;
`pruning.surgery` cuts channels and `pruning.depth` removes blocks, by building the smaller network and loading what is
left of the weights. `pruning.check` compares the groups with torch-pruning's.
"""
