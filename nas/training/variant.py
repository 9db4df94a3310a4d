"""`Variant`: changes to a recipe, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from nas.training.recipe import Recipe
from space import Architecture, strict
from space.errors import UserError
from space.head import AUXILIARY_WEIGHT, AUXILIARY_WIDTH, MOST_WEIGHT, STEM, Auxiliary

SURE_PLACES = 2
"""Places for heads in every network of two stages or more. A network of two stages whose last stage gives the logits
has no others: the first stage and the stem.
"""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Changes to a recipe; a field that is None keeps the recipe's value.

    Raises: UserError for a value that makes no sense in any recipe.
    """

    learning_rate: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    epochs: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    ohem_probability: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """1 turns off the recipe's hard example mining: all pixels count in the loss."""
    ema_decay: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """0 turns off the recipe's averaging of weights."""
    class_uniform: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """0 turns off the recipe's class-uniform sampling: each picture is shown once."""
    deep_supervision: bool | tuple[float, ...] = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Auxiliary heads (NDNet's) for a network without any, discarded after training: the weights of their losses, from
    the last stage to the first, then the stem. 0: no head at that place; one of the first two must be above 0. True is
    (0.4,), NDNet's; STDC has (1, 1)."""
    distillation: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether a larger and more accurate network teaches it, if there is one."""

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UserError(f"learning_rate: expected more than 0, got {self.learning_rate}")
        if self.epochs is not None and self.epochs < 1:
            raise UserError(f"epochs: expected 1 or more, got {self.epochs}")
        if self.ohem_probability is not None and not 0 < self.ohem_probability <= 1:
            raise UserError(f"ohem_probability: expected a probability above 0, at most 1, got {self.ohem_probability}")
        if self.class_uniform is not None and not 0 <= self.class_uniform <= 1:
            raise UserError(f"class_uniform: expected a share in 0..1, got {self.class_uniform}")
        if not isinstance(self.deep_supervision, bool):
            _check_weights(self.deep_supervision)
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay: expected a number in 0..1 (below 1), got {self.ema_decay}")

    def __str__(self) -> str:
        """`ohem_probability 0.7, distillation`; `the study's recipe` if nothing is changed."""
        return ", ".join(_words(name, value) for name, value in strict.plain(self).items()) or "the study's recipe"

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with these changes."""
        return replace(
            recipe,
            learning_rate=recipe.learning_rate if self.learning_rate is None else self.learning_rate,
            epochs=recipe.epochs if self.epochs is None else self.epochs,
            ohem_probability=recipe.ohem_probability if self.ohem_probability is None else self.ohem_probability,
            ema_decay=recipe.ema_decay if self.ema_decay is None else self.ema_decay,
            class_uniform=recipe.class_uniform if self.class_uniform is None else self.class_uniform,
        )

    def trains(self, architecture: Architecture) -> Architecture:
        """The architecture to train in place of `architecture`: the same network, with auxiliary heads if asked for.
        The first head is on the last stage, or on the one before if the last stage gives the logits; each further head
        is one stage earlier, down to the stem. Weights that are left over are not used.
        """
        if not self.deep_supervision or architecture.auxiliary:
            return architecture
        weights = self.deep_supervision if isinstance(self.deep_supervision, tuple) else (AUXILIARY_WEIGHT,)
        last = len(architecture.stages) - (1 if architecture.decoder is not None else 2)
        heads = [
            Auxiliary(stage=stage, width=AUXILIARY_WIDTH, weight=weight)
            for stage, weight in zip(range(last, STEM - 1, -1), weights, strict=False)
            if weight
        ]
        return replace(architecture, auxiliary=tuple(heads))


def _words(name: str, value: Any) -> str:
    if value is True:
        return name
    return f"{name} {' '.join(f'{each:g}' for each in (value if isinstance(value, list) else [value]))}"


def _check_weights(weights: tuple[float, ...]) -> None:
    if not any(weights[:SURE_PLACES]) or not all(0 <= weight <= MOST_WEIGHT for weight in weights):
        raise UserError(
            f"deep_supervision: expected true, or weights of heads in 0..{MOST_WEIGHT:g}, the last stage's first, with "
            f"one of the first {SURE_PLACES} above 0 (some networks have no more places); got {list(weights)}"
        )
