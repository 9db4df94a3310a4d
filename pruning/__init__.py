"""Pruning of channels and blocks to a latency budget, exactly and with weights.

`space.channels` finds the channels that must be cut together. An importance, a file in `pruning.importances`, scores
channels. `pruning.damage` observes the effect of cutting some channels of a group, or of removing a block. What to cut
is decided in `pruning.knapsack` by estimated latencies, and in `pruning.allocation` against measured ones.
`pruning.surgery` cuts channels and `pruning.depth` removes blocks, by building the smaller network and loading the
remaining weights. `pruning.check` compares our groups of channels with torch-pruning's.
"""
