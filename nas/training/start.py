"""The network that a training begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from torch import Tensor

from nas.training.pretrained import Taken, take_weights
from nas.training.weights import load_into
from space import Architecture
from space.network import Network
from space.paths import folded_state
from space.scopes import DECODER, part_of


@dataclass(frozen=True, kw_only=True, eq=False)
class StartingNetwork:
    """The network to train, on the CPU."""

    network: Network
    trained_names: tuple[str, ...]
    """Names of its weights, without those of auxiliary heads."""
    inference_names: tuple[str, ...]
    """Names of the same weights after several paths are folded into one convolution."""
    taken: Taken | None = None
    """What it took from `init`."""

    @property
    def is_reparameterized(self) -> bool:
        """Whether it is trained with several paths, in another form than the deployed one."""
        return self.trained_names != self.inference_names

    @property
    def has_decoder_weights(self) -> bool:
        """Whether it took more from `init` than an encoder."""
        return self.taken is not None and any(part_of(layer) == DECODER for layer in self.taken.layers)


def starting_network(
    architecture: Architecture,
    num_classes: int,
    *,
    auxiliary: bool,
    randomness: Callable[[], AbstractContextManager[None]],
    weights: Mapping[str, Tensor] | None = None,
    init: Mapping[str, Tensor] | None = None,
    source: str = "init",
    several: bool | None = None,
) -> StartingNetwork:
    """Build a network, with its auxiliary heads if `auxiliary`. `randomness()` is entered around each build.

    `weights`: weights of the whole network. `init`: weights of any network that `nas.training.pretrained` knows, from
    which it takes what fits; `source` names them in messages. `several`: whether re-parameterised convolutions have
    several paths; None: they do, unless all of them start from weights of the single convolution that is deployed.

    Raises: UserError when the weights do not fit or belong to no known network.
    """
    assert weights is None or init is None, "either `weights` or `init`"

    def built(*, several: bool) -> StartingNetwork:
        with randomness():
            network = architecture.build(num_classes, auxiliary=auxiliary, training_form=several)
            inference = architecture.build(num_classes, training_form=several)
        taken = None if init is None else take_weights(network, architecture, init, source)
        if weights is not None:
            load_into(inference, weights, f"starting weights of {architecture.key}")
            network.load_state_dict(inference.state_dict(), strict=False)
        return StartingNetwork(
            network=network,
            trained_names=tuple(inference.state_dict()),
            inference_names=tuple(folded_state(inference)),
            taken=taken,
        )

    if several is not None:
        return built(several=several)
    nodes = architecture.graph(1).nodes if architecture.is_reparameterized else []
    paths = {node.name for node in nodes if node.paths}
    if not any(f"{name}.weight" in (weights or init or {}) for name in paths):
        return built(several=True)
    one = built(several=False)
    if one.taken is None or paths <= set(one.taken.layers):
        return one
    whole = built(several=True)  # convolutions that start at random need the batch norms of their paths
    assert whole.taken is not None, "there is an init"
    reason = f"{one.taken.reason}, and folded convolutions are taken all together or not at all"
    return replace(whole, taken=replace(whole.taken, reason=reason))
