"""The search: propose, measure, train, finish, certify.

`engine` runs these steps in order, `search.Search` is the value that they share, and each folder holds one step:

- `propose`: chooses the next candidate, the width at which it fills the budget, and the number of epochs to train it
- `measure`: measures latencies, here or on a node of a cluster, and checks which budgets can be met
- `train`: runs trainings as jobs of Ray Tune, and finds out why one of them failed
- `finish`: trains the best candidates to the end, prunes networks over the budget into it, and certifies the winners
- `cluster`: starts or joins the Ray instance that runs the trainings

`console` prints events, and `live_report` rewrites the report as trainings end.
"""
