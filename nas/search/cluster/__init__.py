"""The Ray that a search trains on.

`address` checks where to train, and `session` connects, with a `guard` process that ends what a killed search leaves.
`nodes` and `workers` say what the cluster's nodes have and who of them trains; `tasks` and `processes` compute there
between and across trainings; `waiting` tells what a training waits for. `configured_ray` imports Ray, with its
settings.
"""
