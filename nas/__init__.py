"""The program: search under a latency budget, training, measuring, pruning, export and reports."""

__version__ = "0.1.0"
