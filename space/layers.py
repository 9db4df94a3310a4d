"""Small groups of layers that several parts of a network use."""

from __future__ import annotations

from space.graph import Graph, Node

PLAIN_KERNEL = 3  # kernel size of convolutions that can be re-parameterised


def cat_downsampler(graph: Graph, x: Node, width: int, bias: bool) -> Node:
    """ENet's and ERFNet's downsampler: a strided 3x3 convolution and a max pool, concatenated to `width` channels. If
    the pool alone has as many channels or more, there is only the convolution, with all channels (DABNet).
    """
    added = width - len(x.channels)
    y = graph.conv(x, added if added > 0 else width, 3, "conv", stride=2, bias=bias)
    if added <= 0:
        return graph.norm_act(y)
    return graph.norm_act(graph.cat([y, graph.max_pool(x, 2)]))


def preactivated(graph: Graph, x: Node, width: int, kernel: int, name: str) -> Node:
    """Normalise, activate, convolve (SwiftNet's unit); used outside the encoder, so shared by all pyramid levels."""
    return graph.conv(graph.norm_act(x, f"{name}_", per_level=False), width, kernel, name)


def separable(graph: Graph, x: Node, width: int) -> Node:
    """A depthwise 3x3 convolution, a 1x1 one to `width`, normalisation and activation."""
    return graph.norm_act(graph.conv(graph.depthwise(x, "depthwise"), width, 1, "pointwise"))


def total(graph: Graph, terms: list[Node]) -> Node:
    """The sum of one or more terms."""
    return terms[0] if len(terms) == 1 else graph.add(*terms)


def conv_norm(graph: Graph, x: Node, width: int, kernel: int, name: str, *, stride: int = 1) -> Node:
    """Convolve, normalise."""
    return graph.norm(graph.conv(x, width, kernel, name, stride=stride), f"{name}_norm")


def plain_conv(
    graph: Graph,
    x: Node,
    width: int,
    name: str,
    *,
    kernel: int = PLAIN_KERNEL,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = False,
) -> Node:
    """A convolution and its normalisation; in a re-parameterised graph, a 3x3 convolution with bias instead, which is
    trained as a sum of normalised paths.
    """
    if graph.rep and kernel == PLAIN_KERNEL:
        return graph.conv(x, width, kernel, name, stride=stride, dilation=dilation, bias=True, paths="pointwise")
    return graph.norm(graph.conv(x, width, kernel, name, stride=stride, dilation=dilation, bias=bias), f"{name}_norm")
