"""Trainings of a search.

`placement` decides how many run at a time, and where. `stages` lists the `job`s of each stage and records how they end.
`executor` runs them with Ray Tune, in worker processes (`trial_runner`), while `ahead` proposes and measures the next
ones. `causes` finds out why a training failed, `under_way` reports progress within epochs, `handover` passes weights
from one training to the next, `sharing` finds how many trainings may share a GPU, and `loggers` sends results to W&B
and MLflow.
"""
