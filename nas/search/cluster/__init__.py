"""The Ray that a search trains on.

`address` checks where to train, and `session` connects, with a `guard` process that ends what a killed search leaves
behind. `nodes` reads the nodes and their resources, and `workers` derives from them what trains, and checks that each
node can. `tasks` and `processes` run other work on the cluster, between trainings and as one training. `waiting`
reports what trainings wait for. `configured_ray` imports Ray with its settings.
"""
