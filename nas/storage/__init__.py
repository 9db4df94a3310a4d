"""Files on disk: replaced whole or not at all, and the one cache folder."""
