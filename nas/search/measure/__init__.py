"""Latencies of candidates.

`timing` measures on this machine and `on_cluster` on a node of a cluster; `remembered` does not measure twice what an
earlier run measured, where `comparable` says that its device is the same. `narrowest` and `reachability` tell before
anything is trained which budgets can be met, and by how much of the space.
"""
