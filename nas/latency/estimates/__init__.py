"""Milliseconds without measuring: the work that layers do, its prices, tables of them and how they are found."""
