"""`Variant`: what a training does otherwise than a recipe says, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nas.training.recipe import Recipe
from space import Architecture, strict
from space.errors import UserError
from space.head import AUXILIARY_WEIGHT, AUXILIARY_WIDTH, Auxiliary


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is changed in a recipe; everything that is None stays as the recipe has it.

    Raises: UserError for a value that makes no sense in any recipe.
    """

    learning_rate: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    epochs: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    ohem_probability: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """1 lets every pixel teach, where the recipe mines hard examples."""
    ema_decay: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """0 averages nothing, where the recipe does."""
    deep_supervision: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether a network without auxiliary heads is trained with one (NDNet's), which is left behind."""
    distillation: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether a larger network teaches it, where there is a more accurate one."""

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UserError(f"learning_rate: expected more than 0, got {self.learning_rate}")
        if self.epochs is not None and self.epochs < 1:
            raise UserError(f"epochs: expected 1 or more, got {self.epochs}")
        if self.ohem_probability is not None and not 0 < self.ohem_probability <= 1:
            raise UserError(f"ohem_probability: expected a probability above 0, at most 1, got {self.ohem_probability}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay: expected a number in 0..1 (below 1), got {self.ema_decay}")

    def __str__(self) -> str:
        """`ohem_probability 0.7, distillation`; `the study's recipe` where nothing is changed."""
        changed = strict.plain(self)
        words = [name if value is True else f"{name} {value:g}" for name, value in changed.items()]
        return ", ".join(words) or "the study's recipe"

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with what is changed."""
        return replace(
            recipe,
            learning_rate=recipe.learning_rate if self.learning_rate is None else self.learning_rate,
            epochs=recipe.epochs if self.epochs is None else self.epochs,
            ohem_probability=recipe.ohem_probability if self.ohem_probability is None else self.ohem_probability,
            ema_decay=recipe.ema_decay if self.ema_decay is None else self.ema_decay,
        )

    def trains(self, architecture: Architecture) -> Architecture:
        """What is trained for an architecture: the same network, with an auxiliary head where that is asked for. The
        head stands on the last stage, or before it (a single one: on the stem) where the logits are those of the last.
        """
        if not self.deep_supervision or architecture.auxiliary:
            return architecture
        last = len(architecture.stages) - 1
        stage = last if architecture.decoder is not None else last - 1
        head = Auxiliary(stage=stage, width=AUXILIARY_WIDTH, weight=AUXILIARY_WEIGHT)
        return replace(architecture, auxiliary=(head,))
