"""Choosing which network to train next, from trainings of any fidelity (share of a whole training).

`gaussian` is the joint model of short and whole trainings, `encoding` turns genotypes into its vectors, `choice` ranks
candidates by it, and `rungs` decides at which fidelities candidates pause. These need only NumPy and know no search.
`sampler` combines them as an Optuna sampler; it is the only module here that imports Optuna when it is loaded. `told`
reads results from an Optuna study, and `candidates` defines what a search offers to a sampler of any kind and writes
into the study.
"""
