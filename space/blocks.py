"""Encoder blocks: functions that add one residual block, or one strided opening block, to a graph.

Each returns the block's output and the same value before its last activation (where a SwiftNet ladder taps it).
Sources: ERFNet (Romera 2018, sec. III), FPLNet (arXiv 2302.11785, sec. III), ESPNet (Mehta 2018), NDNet
(Yang 2019), ResNet (He 2016), MobileNetV2 (Sandler 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from space.graph import Graph, Node

if TYPE_CHECKING:
    from space.architecture import Factorization, PairwiseFusion


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a block gives: its output, and the sum its last activation was applied to."""

    out: Node
    before_activation: Node


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One block's numbers: what it needs beyond its input."""

    width: int
    rates: tuple[int, ...]
    factorization: Factorization = "none"
    step: int = 1
    opening: bool = False
    bias: bool = False
    dropout: float = 0.0
    expansion: int = 4
    pairwise_fusion: PairwiseFusion = "pairs"


def nonbt(graph: Graph, x: Node, unit: Unit) -> Output:
    """Non-bottleneck residual block of two 3x3 convolutions, each possibly split in 3x1 and 1x3.

    `none` is ResNet's basic block, `all` is ERFNet's non-bt-1D, `composite` splits the second only. Only the second
    is dilated. A strided or widening block has a 1x1 projection as its shortcut.
    """
    y = _convolution(graph, x, unit, "1", rate=1, step=unit.step, split=unit.factorization == "all")
    y = graph.norm_act(y, "1_")
    y = _convolution(graph, y, unit, "2", rate=unit.rates[0], step=1, split=unit.factorization != "none")
    y = graph.dropout(graph.norm(y, "2_norm"), unit.dropout)
    shortcut = x
    if unit.step > 1 or len(x.channels) != unit.width:
        shortcut = graph.conv(x, unit.width, 1, "projection", step=unit.step)
        # SwiftNet's pyramid shares the projection's normalisation between its levels.
        shortcut = graph.norm(shortcut, "projection_norm", per_level=False)
    total = graph.add(y, shortcut)
    return Output(out=graph.act(total, "act"), before_activation=total)


def _convolution(graph: Graph, x: Node, unit: Unit, name: str, *, rate: int, step: int, split: bool) -> Node:
    if not split:
        return graph.conv(x, unit.width, 3, f"{name}_3x3", step=step, dilation=rate, bias=unit.bias)
    y = graph.conv(x, unit.width, (3, 1), f"{name}_3x1", dilation=rate, bias=unit.bias)
    y = graph.act(y, f"{name}_inner_act")
    return graph.conv(y, unit.width, (1, 3), f"{name}_1x3", dilation=rate, bias=unit.bias)


def fpl(graph: Graph, x: Node, unit: Unit) -> Output:
    """Factorised pyramidal learning module; strided, the FPL downsampler (no residual, bias on the 1x1)."""
    n = unit.width // 4
    strided = unit.step > 1
    y = graph.conv(x, n, 1, "reduce", bias=strided)
    if unit.factorization == "all":
        y = graph.conv(y, n, (3, 1), "first_3x1", step=(unit.step, 1))
        y = graph.conv(graph.act(y, "first_act"), n, (1, 3), "first_1x3", step=(1, unit.step))
    else:
        y = graph.conv(y, n, 3, "first", step=unit.step)
    branches = [_fpl_branch(graph, y, n, rate, unit.factorization) for rate in unit.rates]
    total = graph.cat(_pairwise_fusion(graph, y, branches, unit.pairwise_fusion))
    if not strided:
        total = graph.add(total, x)
    return Output(out=graph.norm_act(total), before_activation=total)


def _fpl_branch(graph: Graph, x: Node, width: int, rate: int, factorization: Factorization) -> Node:
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


def esp(graph: Graph, x: Node, unit: Unit) -> Output:
    """Efficient spatial pyramid: five dilated 3x3 branches summed hierarchically; strided, its downsampler."""
    n = unit.width // 5
    strided = unit.step > 1
    y = graph.conv(x, n, 3 if strided else 1, "reduce", step=unit.step)
    first, *rest = (
        graph.conv(y, n if index else unit.width - 4 * n, 3, f"rate{rate}", dilation=rate)
        for index, rate in enumerate(unit.rates)
    )
    parts, running = [first], rest[0]
    parts.append(running)
    for branch in rest[1:]:
        running = graph.add(running, branch)
        parts.append(running)
    total = graph.cat(parts)
    if not strided:
        total = graph.add(total, x)
    return Output(out=graph.norm_act(total), before_activation=total)


def sep(graph: Graph, x: Node, unit: Unit) -> Output:
    """NDNet's narrow bottleneck: two depthwise-separable convolutions, the inner one `width / expansion` wide.

    A stage's first block projects its shortcut also when only the dilation changes, as NDNet does.
    """
    rate = unit.rates[0]
    y = graph.depthwise(x, "1_depthwise", step=unit.step, dilation=rate)
    y = graph.norm_act(graph.conv(y, unit.width // unit.expansion, 1, "1_pointwise"), "1_")
    y = graph.depthwise(y, "2_depthwise", dilation=rate)
    y = graph.norm(graph.conv(y, unit.width, 1, "2_pointwise"), "2_norm")
    shortcut = x
    if (unit.opening and (unit.step > 1 or rate > 1)) or len(x.channels) != unit.width:
        shortcut = graph.depthwise(x, "projection_depthwise", step=unit.step, dilation=rate)
        shortcut = graph.norm(graph.conv(shortcut, unit.width, 1, "projection_pointwise"), "projection_norm")
    total = graph.add(y, shortcut)
    return Output(out=graph.act(total, "act"), before_activation=total)


def inverted(graph: Graph, x: Node, unit: Unit) -> Output:
    """MobileNetV2's inverted residual: widen, depthwise 3x3, project linearly; identity where shapes agree."""
    y = x
    if unit.expansion > 1:
        y = graph.norm_act(graph.conv(x, len(x.channels) * unit.expansion, 1, "widen"), "widen_")
    y = graph.norm_act(graph.depthwise(y, "depthwise", step=unit.step, dilation=unit.rates[0]), "depthwise_")
    y = graph.norm(graph.conv(y, unit.width, 1, "project"), "project_norm")
    if unit.step == 1 and len(x.channels) == unit.width:
        y = graph.add(y, x)
    return Output(out=y, before_activation=y)


def cat_downsampler(graph: Graph, x: Node, width: int, bias: bool) -> Node:
    """ENet's and ERFNet's downsampler: a strided 3x3 convolution beside a max pool, concatenated."""
    y = graph.conv(x, width - len(x.channels), 3, "conv", step=2, bias=bias)
    return graph.norm_act(graph.cat([y, graph.max_pool(x, 2)]))
