"""Questions of the space: each has a name, options to choose from, and an answer.

A choice is a scalar. Lists of numbers are written as text, "2-4-8-16", so that samplers and YAML see a scalar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from space.errors import ArchitectureError

Choice = str | int | float | bool
Ask = Callable[[str, Sequence[Choice]], Choice]
Genotype = Mapping[str, Choice]
Axes = Mapping[str, tuple[Choice, ...]]

NEWER = (
    "stem.image_average", "stem.halvings", "stem.rising", "stem.separable", "stem.bias", "detail", "norm_momentum",
    "head_norm_epsilon", "head_norm_momentum", "rep", "label_stride", "head.shuffle",
)  # fmt: skip
"""Axes that were added to the space later. With a single option they are not asked and not part of genotypes, so that
seeds draw the same architectures as before the axis was added.
"""
OPENED: Mapping[str, Choice] = {
    "label_stride": 1,
    "stem.halvings": 1,
    "stem.rising": False,
    "stem.separable": False,
    "detail": "none",
    "context": "none",
}
"""Axes that were added to searches later, with the value that genotypes of earlier runs, which lack them, mean."""


def answer_of(genotype: Genotype, name: str, options: Sequence[Choice]) -> Choice:
    """The answer of a genotype to a question, also when the genotype is of another space. Questions with a single
    option may be missing from it, and so may the axes in `OPENED`, which stand for their earlier value.

    Raises: ArchitectureError when the answer is not among the options.
    """
    answer = genotype.get(name, options[0] if len(options) == 1 else OPENED.get(name))
    if answer is None or answer not in options:
        raise ArchitectureError(f"space.{name}: {answer!r} is not among {list(options)}")
    return answer


def is_list(text: str) -> bool:
    """Whether the text is a list of numbers like "2-4-8"."""
    return re.fullmatch(r"[1-9][0-9]*(-[1-9][0-9]*)*", text) is not None


def numbers(text: str) -> tuple[int, ...]:
    """Turn "2-4-8" into (2, 4, 8)."""
    return tuple(int(part) for part in text.split("-"))


def text_of(values: Sequence[int]) -> str:
    """Turn (2, 4, 8) into "2-4-8"."""
    return "-".join(str(value) for value in values)


class Questioner:
    """Asks for one value after the other, offering only options that can still lead to an architecture.

    `options` gives the options of an axis, `size` is the (height, width) of the input, `ask` answers a question.
    """

    def __init__(self, options: Callable[[str], tuple[Choice, ...]], size: tuple[int, int], ask: Ask) -> None:
        self.options = options
        self.size = size
        self.ask = ask

    @property
    def finest_stride(self) -> int:
        """The finest stride that features may have: the smallest label stride times the smallest shuffle factor."""
        return min(map(int, self.options("label_stride"))) * min(map(int, self.options("head.shuffle")))

    def too_fine(self, where: str) -> ArchitectureError:
        """The error for features finer than `finest_stride`, naming the axis that rules them out."""
        axis = "label_stride" if 1 in self.options("head.shuffle") else "head.shuffle"
        return ArchitectureError(
            f"space.{axis}: none of {list(self.options(axis))} is possible with the choices made before it: the stride "
            f"of features {where} is too fine; add a smaller option"
        )

    def pick(self, name: str, axis: str, allowed: Callable[[Choice], bool] | None = None) -> Choice:
        """Ask for `name` among the options of `axis` that are allowed here.

        Raises: ArchitectureError when no option is allowed.
        """
        offered = self.options(axis)
        options = offered if allowed is None else tuple(filter(allowed, offered))
        if not options:
            raise ArchitectureError(
                f"space.{axis}: none of {list(offered)} is possible for {name} with the choices made before it; add an "
                f"option"
            )
        return self.ask(name, options)

    def pick_newer(self, axis: str, allowed: Callable[[Choice], bool] | None = None) -> Choice:
        """Like `pick`, for an axis in `NEWER`: it is not asked if its single option is allowed here, so that seeds draw
        the same architectures as before the axis was added.
        """
        assert axis in NEWER
        options = self.options(axis)
        if len(options) == 1 and (allowed is None or allowed(options[0])):
            return options[0]
        return self.pick(axis, axis, allowed)

    def integer(self, name: str, axis: str, allowed: Callable[[int], bool] | None = None) -> int:
        """Like `pick`, for whole numbers."""
        return int(self.pick(name, axis, None if allowed is None else lambda option: allowed(int(option))))

    def text(self, name: str, axis: str, allowed: Callable[[str], bool] | None = None) -> str:
        """Like `pick`, for words."""
        return str(self.pick(name, axis, None if allowed is None else lambda option: allowed(str(option))))
