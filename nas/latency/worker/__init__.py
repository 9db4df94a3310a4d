"""The measuring process and its children; `python -m nas.latency.worker` runs `nas.latency.worker.__main__`."""
