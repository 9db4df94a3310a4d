"""FPLNet's factorised pyramidal learning module (arXiv 2302.11785, section III)."""

from __future__ import annotations

from space.block import Block, Factorization, Output, PairwiseFusion, Unit
from space.graph import Graph, Node

BRANCHES = 4


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """Factorised pyramidal learning module; strided, the FPL downsampler (no residual sum, bias on the 1x1)."""
    n = unit.width // BRANCHES
    strided = unit.stride > 1
    y = graph.conv(x, n, 1, "reduce", bias=strided)
    if unit.factorization == "all":
        y = graph.conv(y, n, (3, 1), "first_3x1", stride=(unit.stride, 1))
        y = graph.conv(graph.act(y, "first_act"), n, (1, 3), "first_1x3", stride=(1, unit.stride))
    else:
        y = graph.conv(y, n, 3, "first", stride=unit.stride)
    branches = [_branch(graph, y, n, rate, unit.factorization) for rate in unit.rates]
    total = graph.cat(_pairwise_fusion(graph, y, branches, unit.pairwise_fusion))
    if not strided:
        total = graph.add(total, x)
    return Output(out=graph.norm_act(total), raw=total)


def _branch(graph: Graph, x: Node, width: int, rate: int, factorization: Factorization) -> Node:
    with graph.scope(f"rate{rate}"):
        if factorization == "none":
            return graph.conv(x, width, 3, "3x3", dilation=rate)
        y = graph.act(graph.conv(x, width, (3, 1), "3x1", dilation=rate), "act")
        return graph.conv(y, width, (1, 3), "1x3", dilation=rate)


def _pairwise_fusion(graph: Graph, stage1: Node, branches: list[Node], kind: PairwiseFusion) -> list[Node]:
    a, b, c, d = branches
    if kind == "stage1":
        return [graph.add(stage1, branch) for branch in branches]
    if kind == "pairs_partial":
        return [a, graph.add(a, b), c, graph.add(c, d)]
    return [a, graph.add(a, b), graph.add(c, d), d]


BLOCK = Block(
    add=add,
    words="factorized pyramid (FPL)",
    position=1,
    openings=("cat", "module"),
    branches=BRANCHES,
    shared=("factorization", "pairwise_fusion"),
    width_unit=lambda unit: BRANCHES,
    width_reason=f"its {BRANCHES} branches are equally wide",
    in_decoders=True,
    default_in_search=True,
)
