"""Chooses what is trained next.

`proposals` decides: seeds, random draws, then the sampler's proposals. `sampler` asks Optuna for one of the
`candidates`; `guidance` passes to it the results that it may know, whose scores `outcomes` reads. `fill` solves for the
width that fills the budget, also of single `parts`, within the study's `limits`, and `solving` provides estimates and
measurements for it. `deadline` decides when no more candidates are proposed, `promotions` which paused ones then go on,
and `journal` records all of it as an Optuna study.
"""
