"""The network that a training begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from nas.training.pretrained import Started, start_from
from nas.training.weights import load_into
from space import Architecture
from space.network import Network
from space.paths import folded_state


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """What is trained, on the CPU."""

    network: Network
    trained_names: tuple[str, ...]
    """Of its weights, without those of auxiliary heads."""
    inference_names: tuple[str, ...]
    """Of the same when several paths are folded into one convolution."""
    started: Started | None = None
    """What it took of `init`."""

    @property
    def is_whole(self) -> bool:
        """Whether it took more of `init` than an encoder."""
        return self.started is not None and any(layer.startswith("decoder.") for layer in self.started.layers)


def start(
    architecture: Architecture,
    num_classes: int,
    *,
    auxiliary: bool,
    randomness: Callable[[], AbstractContextManager[None]],
    weights: Mapping[str, Tensor] | None = None,
    init: Mapping[str, Tensor] | None = None,
    source: str = "init",
) -> Start:
    """Build a network, with its auxiliary heads if these are trained. `randomness()` is entered around each building.

    `weights` are those of the whole network, `init` of any that `nas.training.pretrained` knows, of which what fits is
    taken; `source` names them. What is re-parameterised has several paths, unless it starts from weights that have
    none: then it is the one convolution that runs.

    Raises: UserError when the weights do not fit or are of no known network.
    """
    assert weights is None or init is None, "there is one start"
    paths = {node.name for node in architecture.graph(1).nodes if node.paths}

    def built(*, several: bool) -> tuple[Network, Network, Started | None]:
        with randomness():
            network = architecture.build(num_classes, auxiliary=auxiliary, trained=several)
            inference = architecture.build(num_classes, trained=several)
        return network, inference, None if init is None else start_from(network, architecture, init, source)

    folded = any(f"{name}.weight" in (weights or init or {}) for name in paths)
    network, inference, started = built(several=not folded)
    if folded and started is not None and not paths & set(started.layers):  # none of them is what the file has
        network, inference, started = built(several=True)
    if weights is not None:
        load_into(inference, weights, f"starting weights of {architecture.key}")
        network.load_state_dict(inference.state_dict(), strict=False)
    return Start(
        network=network,
        trained_names=tuple(inference.state_dict()),
        inference_names=tuple(folded_state(inference)),
        started=started,
    )
