"""Architectures: the value that describes a network, building and counting it, and the space of all architectures."""

from space.architecture import Architecture
from space.count import depth, granules, groups, layers, multiply_adds, parameters
from space.errors import ArchitectureError, BudgetError, UserError
from space.library import load, published
from space.search_space import Space

__all__ = [
    "Architecture",
    "ArchitectureError",
    "BudgetError",
    "Space",
    "UserError",
    "depth",
    "granules",
    "groups",
    "layers",
    "load",
    "multiply_adds",
    "parameters",
    "published",
]
