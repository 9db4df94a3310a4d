"""The `nn.Module` of a graph, which runs the graph's layers in order."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from space.channels import Widths, parametric
from space.gradients import resized, with_quick_gradient
from space.graph import Graph, Node
from space.paths import ReparameterizedConv, one_layer
from space.sizes import grid_size

Operation = Callable[..., Tensor]
Through = Callable[[Node, Tensor], Tensor]
"""Replaces the output of a node before other nodes read it."""


class Network(nn.Module):
    """A segmentation network.

    Called with images, float (N, 3, H, W) of any H and W, it returns logits (N, C, H, W). Parameters are named after
    the architecture's layers (`stage0.block1.reduce.weight`); these names do not change between versions.
    """

    architecture: Any
    """The `space.Architecture` that the network was built from; typed `Any`, since this module may not import it."""

    def __init__(
        self,
        graph: Graph,
        sizes: Widths,
        *,
        architecture: Any,
        num_classes: int,
        auxiliary_weights: tuple[float, ...] = (),
        training_form: bool = False,
    ) -> None:
        """Use `Architecture.build`. `sizes`: channels of the graph's nodes after pruning; `auxiliary_weights`: weights
        of the losses of auxiliary heads; `training_form`: include the paths that exist in training only.
        """
        super().__init__()
        for node in parametric(graph):
            self._register(node.name, _layer(node, sizes, training_form))
        self.architecture = architecture
        self.num_classes = num_classes
        self.auxiliary_weights = auxiliary_weights
        self._nodes = tuple(graph.nodes)
        self._outputs = tuple(node.index for node in graph.outputs)
        self._encoder_end = graph.encoder_nodes - 1
        self.encoder_width = sizes.out(graph.nodes[self._encoder_end])
        """Channels of the encoder's output."""
        self._align_corners = graph.align_corners
        self._last_use = _last_uses(graph.nodes, self._outputs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise with Kaiming-normal convolutions, zero biases and identity norms; "meta" weights are skipped."""
        for module in self.modules():
            # On the "meta" device PyTorch would draw in Python, and load its compiler for that.
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, through: Through | None = None) -> Tensor:
        """Logits (N, C, H, W) for images (N, 3, H, W); `through`, if given, is applied to the output of every node."""
        return self._values(image, self._outputs, through)[0]

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Logits of the head, then of each auxiliary head that the network was built with; all (N, C, H, W)."""
        return self._values(image, self._outputs)

    def encoded(self, image: Tensor) -> Tensor:
        """Encoder features (N, encoder_width, h, w) for images (N, 3, H, W): the output of the stem and the stages, or
        the value of the last stage that the rest of the network reads.
        """
        return self._values(image, (self._encoder_end,))[0]

    def coarse_logits(self, image: Tensor) -> Tensor:
        """Logits (N, C, h, w) before they are repeated to the images' size; equal to `forward` if they are not."""
        last = self._nodes[self._outputs[0]]
        (logits,) = self._values(image, last.inputs if last.kind == "repeat" else (last.index,))
        return logits

    @property
    def label_step(self) -> tuple[int, int]:
        """Number of times that a pixel of `coarse_logits` is repeated along each axis."""
        last = self._nodes[self._outputs[0]]
        return last.stride if last.kind == "repeat" else (1, 1)

    def _values(self, image: Tensor, wanted: tuple[int, ...], through: Through | None = None) -> list[Tensor]:
        values: dict[int, Tensor] = {}
        size = (int(image.shape[-2]), int(image.shape[-1]))
        for node in self._nodes[: max(wanted) + 1]:
            value = self._run(node, [values[index] for index in node.inputs], image, size)
            values[node.index] = value if through is None else through(node, value)
            for index in self._last_use.get(node.index, ()):
                del values[index]
        return [values[index] for index in wanted]

    def layer(self, name: str) -> nn.Module:
        """The module of the graph's layer of that name.

        Raises: UserError if the layer is in its training form, which has several modules.
        """
        return one_layer(name, self.get_submodule(name))

    def _run(self, node: Node, inputs: list[Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
        match node.kind:
            case "image":
                return image
            case "conv" | "norm" | "act":
                operation: Operation = self.get_submodule(node.name) if node.name else _ACTIVATIONS[node.mode]
                return operation(inputs[0])
            case "deconv":
                return _upsample(self.get_submodule(node.name), inputs[0], _size_at(size, node.output_stride))
            case "add":
                return sum(inputs[1:], start=inputs[0])
            case "gate":
                return inputs[0] * torch.sigmoid(inputs[1])
            case "cat":
                return torch.cat(inputs, dim=1)
            case "max_pool":
                padding = node.kernel[0] // 2 if node.kernel[0] % 2 else 0
                return functional.max_pool2d(inputs[0], node.kernel, 2, padding, ceil_mode=node.kernel[0] % 2 == 0)
            case "average_pool":
                odd = node.kernel[0] % 2 == 1  # even kernels get no padding: runtimes differ on whether it counts
                padding = node.kernel[0] // 2 if odd else 0
                return functional.avg_pool2d(inputs[0], node.kernel, node.stride, padding, not odd, odd)
            case "grid_pool":
                height, width = (int(length) for length in inputs[0].shape[-2:])
                assert node.grid is not None, "a grid pool has a grid"
                return functional.adaptive_avg_pool2d(inputs[0], grid_size(node.grid, height, width))
            case "repeat":
                return repeated(inputs[0], node.stride, size)
            case "shuffle":
                height, width = _size_at(size, node.output_stride)
                return functional.pixel_shuffle(inputs[0], node.stride[0])[..., :height, :width]
            case "dropout":
                return functional.dropout2d(inputs[0], node.probability, self.training)
            case "resize":
                return _resize(
                    inputs[0], _size_at(size, node.output_stride), node.mode, self._align_corners, self.training
                )
            case unknown:
                typing.assert_never(unknown)

    def _register(self, path: str, layer: nn.Module) -> None:
        *parents, last = path.split(".")
        module: nn.Module = self
        for name in parents:
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = module.get_submodule(name)
        module.add_module(last, layer)


_ACTIVATIONS: dict[str, Operation] = {"relu": functional.relu, "relu6": functional.relu6}


def _layer(node: Node, sizes: Widths, training_form: bool) -> nn.Module:
    width = sizes.out(node)
    if node.kind == "norm":
        return nn.BatchNorm2d(width, eps=node.norm.epsilon, momentum=node.norm.momentum)
    if node.kind == "act":
        return nn.PReLU(width)
    if node.kind == "deconv":
        padding = 1 if node.kernel == (3, 3) else 0
        return nn.ConvTranspose2d(sizes.read(node), width, node.kernel, stride=2, padding=padding, bias=node.bias)
    convolution = nn.Conv2d(
        sizes.read(node),
        width,
        node.kernel,
        stride=node.stride,
        padding=(node.kernel[0] // 2 * node.dilation[0], node.kernel[1] // 2 * node.dilation[1]),
        dilation=node.dilation,
        groups=width // node.group_width if node.group_width else 1,
        bias=node.bias,
    )
    depthwise = node.group_width == 1 and sizes.read(node) == width
    if depthwise and node.dilation[1] > 1 and node.stride == (1, 1):
        convolution = with_quick_gradient(convolution)
    return ReparameterizedConv(convolution, node.paths, node.norm) if training_form and node.paths else convolution


def _size_at(size: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // stride[0]), -(-size[1] // stride[1])


def _upsample(layer: nn.Module, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Transposed convolution to exactly `size`: with output padding (3x3), or by cropping the surplus (2x2)."""
    assert isinstance(layer, nn.ConvTranspose2d)
    up: Tensor = layer(x, output_size=list(size)) if layer.kernel_size == (3, 3) else layer(x)
    return up if tuple(up.shape[-2:]) == size else up[..., : size[0], : size[1]]


def _resize(x: Tensor, size: tuple[int, int], mode: str, align_corners: bool, training: bool) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    if mode == "bilinear":
        return resized(x, size, align_corners, training=training)
    return functional.interpolate(x, size=size, mode=mode, align_corners=align_corners)


def repeated(x: Tensor, step: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """`x` (..., h, w) with every pixel repeated `step` times along each axis, cropped to `size` (H, W)."""
    return x.repeat_interleave(step[0], -2).repeat_interleave(step[1], -1)[..., : size[0], : size[1]]


def _unseen(logits: Tensor) -> None:
    """Default of `look`: do nothing."""


def labels_of(network: nn.Module, image: Tensor, look: Callable[[Tensor], None] = _unseen) -> Tensor:
    """Class ids, int64 (N, H, W), of a network for images (N, 3, H, W): the arg-max of its logits, taken before they
    are repeated. `look` is called with these logits.
    """
    step = network.label_step if isinstance(network, Network) else (1, 1)
    logits: Tensor = network.coarse_logits(image) if isinstance(network, Network) and step != (1, 1) else network(image)
    look(logits)
    labels = logits.argmax(1)
    return labels if step == (1, 1) else repeated(labels, step, (int(image.shape[-2]), int(image.shape[-1])))


def _last_uses(nodes: list[Node], outputs: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """For each node, the values that no later node reads: dropping them bounds the memory of a forward pass."""
    last = {index: node.index for node in nodes for index in node.inputs}
    drop: dict[int, list[int]] = {}
    for index, user in last.items():
        if index not in outputs:
            drop.setdefault(user, []).append(index)
    return {user: tuple(indices) for user, indices in drop.items()}


@contextmanager
def lone_values_kept(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training mode use their running statistics if a channel has a single value.

    A single value has no variance: after a global pooling, a batch of one image would end a training with an error.
    """
    resting: set[nn.Module] = set()

    def before(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            norm.training = False
            resting.add(norm)

    def after(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if norm in resting:
            norm.training = True
            resting.remove(norm)

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(before) for norm in norms]
    hooks += [norm.register_forward_hook(after) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
