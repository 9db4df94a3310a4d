"""The search: propose, measure, train, finish, certify.

`engine` is the way through, and `search.Search` the value that its steps share. `proposals` decides what is trained
next: `sampler` proposes one of the `candidates` with Optuna, told by `guidance` what is over, and `fill` solves its
width for the budget within the study's `limits`, which `solving` keeps the measurements of; `steps` are the order in
which candidates begin and go on from rung to rung. `timing` measures, here or on a cluster (`cluster_timing`).
`address` checks where to train; `ray_session` connects to Ray, with a `guard` that ends what is left of it; `cluster`
reads from its nodes who trains, and `sharing` tries how many share a GPU. `training` and `tuning` train, one `job`
after the other, with Ray, while `ahead` looks for the next ones, and `causes` tells why one broke; `finishing` trains
the best to the end, by one of several `recipes`, and certifies the best of them as what it ships (`shipping`);
`cutting` prunes what is over the budget into it; on a cluster `tasks` compute that where trainings run. `console` says
what happens. `reachability` tells before a search what it can find.
"""
