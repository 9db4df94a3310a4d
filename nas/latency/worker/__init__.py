"""The process that measures, and its children; `python -m nas.latency.worker` is `nas.latency.worker.__main__`."""
