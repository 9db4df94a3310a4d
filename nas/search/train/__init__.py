"""Trainings of a search.

`stages` lists the `job`s of each stage and records how they end; `executor` runs them with Ray Tune, in processes that
are `trial_runner`s, while `ahead` finds the next ones. `causes` tells why one broke, `under_way` how far each is,
`handover` which weights one leaves to the next, `sharing` how many fit on a GPU, and `loggers` passes results on to
W&B and MLflow.
"""
