"""What the host gives this process: processor cores and memory, within the limits of containers and batch systems."""
