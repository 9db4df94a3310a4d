"""The machine that is timed on: its clock and counters, cores and GPU, and the lane that keeps timings undisturbed."""
