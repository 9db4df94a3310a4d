"""Training and scoring one network; this package itself imports no torch.

Its data classes are exported here. The work is done by submodules, which import torch: `nas.training.trainer.Trainer`,
`nas.training.evaluation.evaluate`, `nas.training.prediction.predict`, `nas.training.weights` (safetensors files),
`nas.training.loss`, `nas.training.metrics`, `nas.training.normalisation`.
"""

from nas.training.recipe import Recipe as Recipe
from nas.training.recipe import load_recipe as load_recipe
from nas.training.recipe import published_recipes as published_recipes
from nas.training.recipe import recipe_of_network as recipe_of_network
from nas.training.scores import EpochReport as EpochReport
from nas.training.scores import Scores as Scores
from nas.training.variant import Variant as Variant
