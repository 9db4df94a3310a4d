"""What is trained next.

`proposals` decides: seeds, random draws and what the sampler proposes. `sampler` asks Optuna for one of the
`candidates`, knowing what `guidance` says is over, whose scores `outcomes` keeps. `fill` solves the width that fills
the budget, within the study's `limits`; `solving` has the estimates and measurements for it. `deadline` says when
nothing more is proposed, and `journal` keeps all of it as an Optuna study.
"""
