"""A program: two processes take steps together and one takes the same alone; prints the differences of the results."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from nas.data.share import WHOLE, Share
from nas.runs.processes import work_together
from nas.training import Recipe
from nas.training.compute_mode import usual_mode
from nas.training.stepper import Stepper
from nas.training.together import share_norms
from space import Architecture
from space.network import Network, lone_values_kept

RECIPE = Recipe(optimizer="sgd", learning_rate=0.1, epochs=1, batch_size=5, gradient_clip=1.0)
BATCHES = (5, 2, 1)
"""Images of each; the last leaves one process without any."""
CPU = torch.device("cpu")


def without_norms(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())


def stepped(architecture: Architecture, share: Share, *, norms: bool) -> tuple[Network, list[float]]:
    """The network after its steps, and their losses."""
    torch.manual_seed(0)
    network = architecture.build(3, auxiliary=True).train()
    if not norms:
        without_norms(network)
    share_norms(network, share)
    recipe = replace(RECIPE, learning_rate=RECIPE.learning_rate if norms else 0.01)
    weights = torch.tensor([1.0, 2.0, 5.0])
    stepper = Stepper(network, recipe, usual_mode(network, CPU, recipe), CPU, class_weights=weights, share=share)
    losses = []
    for number, count in enumerate(BATCHES):
        images, labels = pictures(count)
        mine = slice(share.rank, None, share.count)
        with lone_values_kept(network):
            losses.append(float(stepper.take(images[mine], labels[mine], number, len(BATCHES))))
    return network, losses


def pictures(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, 3, 32, 48, generator=generator)
    labels = torch.randint(3, (count, 32, 48), generator=generator)
    labels[0, :20] = 255  # so that the shares have different weights
    return images, labels


def compare(text: str, share: Share) -> None:
    architecture = Architecture.from_yaml(text, "given")
    for norms in (False, True):
        network, losses = stepped(architecture, share, norms=norms)
        if not share.rank:
            alone, wanted = stepped(architecture, WHOLE, norms=norms)
            states = (network.state_dict(), alone.state_dict())
            apart = {name: float((tensor - states[0][name]).abs().max()) for name, tensor in states[1].items()}
            print(json.dumps({"norms": norms, "losses": losses, "wanted": wanted, "apart": apart}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    work_together(partial(compare, sys.stdin.read()), 2, on_gpus=False)
