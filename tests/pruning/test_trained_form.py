"""A network in its trained form of several paths is refused in words by all functions for the folded form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from nas.export.graph import onnx_bytes
from pruning import importances
from pruning.damage import observed_damage
from pruning.depth import removable_blocks, remove_blocks
from pruning.importance import LabelledData
from pruning.scores import sum_over_parameters
from pruning.surgery import Cutter
from space import Architecture, UserError
from space.network import Network
from space.paths import folded_state

CLASSES = 3


def labelled() -> LabelledData:
    images, labels = torch.rand(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.int64)
    return LabelledData(batches=[(images, labels)], loss=functional.cross_entropy)


def cutter_of(network: Network) -> Cutter:
    return Cutter(network.architecture, CLASSES)


def everything(network: Network) -> np.ndarray:
    return cutter_of(network).everything


USES: dict[str, Callable[[Network], object]] = {
    "cut": lambda network: cutter_of(network).cut(network, everything(network)),
    "blocks": lambda network: remove_blocks(network, removable_blocks(network.architecture)[:1]),
    "weights": lambda network: sum_over_parameters(cutter_of(network), network, lambda each: each.detach().abs()),
    "damage": lambda network: observed_damage(
        cutter_of(network), network, np.ones(len(everything(network))), [torch.rand(1, 3, 32, 32)]
    ),
    "export": lambda network: onnx_bytes(network, (32, 32), labels=True),
} | {
    f"scores {name}": lambda network, name=name: importances.kind(name).scores(cutter_of(network), network, labelled())
    for name in importances.kinds()
}


@pytest.fixture(scope="module")
def trained(plain_network: Callable[..., Architecture]) -> Network:
    return plain_network((8, 2), rep=True).build(CLASSES, training_form=True).eval()


@pytest.mark.parametrize("use", USES)
def test_a_network_of_several_paths_is_refused_and_its_folded_form_is_accepted(use: str, trained: Network) -> None:
    with pytest.raises(UserError, match=r"trained as several paths; fold it first.*space\.paths\.folded_state"):
        USES[use](trained)
    network = trained.architecture.build(CLASSES).eval()
    network.load_state_dict(folded_state(trained))
    assert USES[use](network) is not None
