"""Pruning a trained network into a measured budget. The package `pruning` decides what to cut; this one adds data and
latencies.

`plan` holds the settings, `judge` measures and estimates latencies, `weighing` scores channels and the damage of cuts,
`tuning` holds data and recipe for weighing and for `recovery`, and `pruner` cuts with them until the budget is met.
"""
