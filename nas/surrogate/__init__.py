"""What is likely to be worth training next, from trainings of any fidelity.

`gaussian` is the joint model of short and whole trainings, `encoding` turns genotypes into its vectors, and `choice`
ranks candidates by it: NumPy only, no search. `sampler` is all of it as an Optuna sampler, and the one file here that
imports Optuna when it is loaded. `candidates` is what whoever asks a sampler offers it and writes into its study,
whatever the sampler.
"""
