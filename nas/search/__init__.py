"""The search: propose, measure, train, finish, certify.

`engine` is the way through; `sampler` is the room of Optuna, `tuning` that of Ray; `fill` solves a width for the
budget.
"""
