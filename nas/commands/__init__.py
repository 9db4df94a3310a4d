"""One command per file: `add_arguments(parser)` and `run(options)`. Heavy imports belong inside `run`.

What several commands need is in `shared`.
"""
