"""One command per file: `add_arguments(parser)` and `run(options)`. Heavy imports belong inside `run`.

Code that several commands need is in `shared`.
"""
