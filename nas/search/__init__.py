"""The search: propose, measure, train, finish, certify.

`engine` is the way through, `search.Search` the value that its steps share, and each folder one of these steps:

- `propose`: which candidate is trained next, at the width that fills the budget, and for how many epochs
- `measure`: latencies, here or on a node of a cluster, and what a budget leaves within reach
- `train`: trainings as jobs of Ray Tune, and why one of them broke
- `finish`: the best are trained to the end, pruned where they are over the budget, and certified
- `cluster`: the Ray that trains, of this machine or a cluster that the search joins

`console` prints what happens, and `live_report` rewrites the report as trainings end.
"""
