"""Files on disk: written whole or not at all, and the cache of what can be made again."""
