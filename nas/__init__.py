"""The program: search under a latency budget, training, measuring, pruning, export and reports."""
