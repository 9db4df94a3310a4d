"""Pruning a trained network into a measured budget. `pruning` decides what goes; here it meets data and the target.

`plan` says how to prune, `judge` knows latencies, `weighing` tells what cuts do to answers, `tuning` holds the data and
the recipe that weighing and `recovery` use, and `pruner` cuts with them until the budget is met.
"""
