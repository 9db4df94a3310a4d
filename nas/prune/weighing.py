"""The importance of a network's channels, and the damage of cuts: on data where there are any, otherwise by weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch

from nas.data import endless
from nas.host.memory import fitting_batch
from nas.prune.plan import PruningPlan
from nas.prune.tuning import FineTuning
from nas.terminal import ProgressLine
from nas.training.loss import segmentation_loss
from pruning import importances
from pruning.damage import Damage, assumed_damage, observations, observed_damage
from pruning.importance import Batch, ChannelScores, LabelledData
from pruning.surgery import Cutter
from space.count import FLOAT_BYTES, memory
from space.network import Network

SCORING_BATCHES = 16
OBSERVED_IMAGES = 16  # images on which damage is observed; batch norms see as many at a time as memory allows
ANSWERS = 5  # outputs for a batch that are held at a time for comparison
SPARE = 2  # factor on the counted memory, for what libraries need


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighed:
    """A network's channels with their scores, and the damage of cutting them."""

    cutter: Cutter
    scores: ChannelScores
    damage: Damage


Said = Callable[[str], None]
Weigh = Callable[[Network, PruningPlan, "FineTuning | None", Said, ProgressLine], Weighed]
"""`weighed`, or a function that has it done on another machine."""


def weighed(
    network: Network, plan: PruningPlan, tuning: FineTuning | None, said: Said, progress: ProgressLine
) -> Weighed:
    """Score the channels of `network` and observe the damage of cuts; without `tuning`, derive it from the scores.
    `progress` counts the images, and `said` receives a note where memory limits how many images at a time make a score
    or the statistics of batch norms.
    """
    cutter = Cutter(network.architecture, network.num_classes)
    importance = importances.kind(plan.importance or importances.default(with_data=tuning is not None))
    if tuning is None:
        scores = importance.scores(cutter, network)
        return Weighed(cutter=cutter, scores=scores, damage=assumed_damage(cutter, scores))
    counted = memory(network.architecture, tuning.dataset.size, network.num_classes)
    scoring = progress.over("channels weighed", SCORING_BATCHES * tuning.recipe.batch_size)
    with scoring, closing(tuning.batches(SCORING_BATCHES, progress.count)) as batches:
        together = _together(counted.training_bytes, tuning.recipe.batch_size, tuning.device)
        if together < tuning.recipe.batch_size and importance.of_batches:
            said(_fewer("scored", together, tuning.recipe.batch_size))
        parts = _parts(batches, together)
        data = LabelledData(batches=parts, loss=segmentation_loss) if importance.needs_data else None
        scores = importance.scores(cutter, network, data)
    with tuning.guard():
        images = next(endless(tuning.loader(OBSERVED_IMAGES)))[0]
    answer = FLOAT_BYTES * network.num_classes * math.prod(tuning.dataset.size)

    def observing(batch: int) -> int:
        return counted.inference_bytes(batch) + ANSWERS * batch * answer

    together = _together(observing, len(images), tuning.device)
    # At least two at a time: behind global pooling, one image has no variance, and its norms would use others.
    seen = images.tensor_split(max(1, min(math.ceil(len(images) / together), len(images) // 2)))
    if len(seen) > 1:
        said(_fewer("compared", len(seen[0]), len(images)))
    with progress.over("cuts observed", len(images) * observations(cutter, network, depth=plan.depth)):
        damage = observed_damage(
            cutter, network, scores, seen, depth=plan.depth, guard=tuning.guard, count=progress.count
        )
    return Weighed(cutter=cutter, scores=scores, damage=damage)


def _together(needed: Callable[[int], int], most: int, device: str) -> int:
    """Number of full-size images at a time: `most`, or as many as fit into memory, but at least one."""
    return fitting_batch(lambda batch: SPARE * needed(batch), most, device) or 1


def _fewer(done: str, together: int, wanted: int) -> str:
    return (
        f"note    channels are {done} on {together} of {wanted} images at a time, for lack of memory; cuts may differ "
        "from those on a machine with more"
    )


def _parts(batches: Iterable[Batch], together: int) -> Iterator[Batch]:
    """The same batches in parts of `together` images."""
    for images, labels in batches:
        yield from zip(torch.split(images, together), torch.split(labels, together), strict=True)
