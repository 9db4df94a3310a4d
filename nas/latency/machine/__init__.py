"""The machine that is timed on: its clock and counters, cores, GPU, and the lane that keeps timings alone."""
