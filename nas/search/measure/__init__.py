"""Latencies of candidates.

`timing` measures on this machine and `on_cluster` on a node of a cluster. `remembered` reuses what an earlier run
measured, and `comparable` checks that latencies come from the same kind of device. `narrowest` and `reachability`
answer before anything is trained which budgets can be met, and by how much of the space.
"""
