"""Latency estimates without measuring: the work of layers, its prices, latency tables, and how tables are made."""
