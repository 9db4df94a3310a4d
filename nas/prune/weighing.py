"""What matters in a network, and what cuts do to its answers: on data where there are any, else by its weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from nas.data import endless
from nas.prune.plan import PruningPlan
from nas.prune.tuning import FineTuning
from nas.terminal import Progress
from nas.training.loss import segmentation_loss
from pruning import importances
from pruning.damage import Damage, assumed_damage, observations, observed_damage
from pruning.importance import ChannelScores, LabelledData
from pruning.surgery import Cutter
from space.network import Network

SCORING_BATCHES = 16
OBSERVED_IMAGES = 16  # on which damage is observed; their statistics stand for the data's


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighed:
    """A network's channels, with their scores and the damage of cutting them."""

    cutter: Cutter
    scores: ChannelScores
    damage: Damage


Weigh = Callable[[Network, PruningPlan, "FineTuning | None", Progress], Weighed]
"""`weighed`, or what has it done elsewhere."""


def weighed(network: Network, plan: PruningPlan, tuning: FineTuning | None, progress: Progress) -> Weighed:
    """Score the channels of `network`, and observe what cuts do; without `tuning`, assume it from the scores.
    `progress` hears of the images that this takes.
    """
    cutter = Cutter(network.architecture, network.num_classes)
    importance = importances.kind(plan.importance or importances.default(with_data=tuning is not None))
    if tuning is None:
        scores = importance.scores(cutter, network)
        return Weighed(cutter=cutter, scores=scores, damage=assumed_damage(cutter, scores))
    scoring = progress.over("channels weighed", SCORING_BATCHES * tuning.recipe.batch_size)
    with scoring, closing(tuning.batches(SCORING_BATCHES, progress.count)) as batches:
        data = LabelledData(batches=batches, loss=segmentation_loss) if importance.needs_data else None
        scores = importance.scores(cutter, network, data)
    with tuning.guard():
        images = next(endless(tuning.loader(OBSERVED_IMAGES)))[0]
    with progress.over("cuts observed", len(images) * observations(cutter, network)):
        damage = observed_damage(cutter, network, scores, [images], guard=tuning.guard, count=progress.count)
    return Weighed(cutter=cutter, scores=scores, damage=damage if plan.depth else replace(damage, blocks={}))
