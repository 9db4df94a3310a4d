"""What the host gives this process: processor cores and memory, as containers and batch systems limit them too."""
