"""Pruning a trained network into a measured budget. `pruning` decides what goes; here it meets data and the target."""
