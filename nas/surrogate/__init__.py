"""What is likely to be worth training next, from trainings of any fidelity: numpy only, no search, no Optuna.

`gaussian` is the joint model of short and whole trainings, `encoding` turns genotypes into its vectors, `choice` ranks
candidates by it, and `sampler` is all of it as an Optuna sampler.
"""
