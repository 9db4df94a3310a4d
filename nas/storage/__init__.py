"""Files on disk that are written whole or not at all, folder ownership, and the cache of reproducible data."""
