"""Sizes of layers' outputs for an image of a given size."""

from __future__ import annotations

from space.graph import Node, Pair


def output_size(node: Node, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a node's output when the image has `size` (height, width)."""
    height, width = -(-size[0] // node.output_stride[0]), -(-size[1] // node.output_stride[1])
    return (height, width) if node.grid is None else grid_size(node.grid, height, width)


def grid_size(grid: Pair, height: int, width: int) -> Pair:
    """Rows and columns of pooled cells; 0 columns: as many as keep the cells nearly square."""
    rows, columns = grid
    return rows, columns or max(1, round(rows * width / height))
