"""What a question of the space is: a name, options to choose from, and an answer.

A choice is a scalar. Lists of numbers are text, so that samplers and YAML see a scalar: "2-4-8-16".
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
"""Axes that came later: held at one value they are not asked for, and genotypes do not have them."""
OPENED: Mapping[str, Choice] = {
    "label_stride": 1,
    "stem.halvings": 1,
    "stem.rising": False,
    "stem.separable": False,
    "detail": "none",
    "context": "none",
}
"""Axes that a search looks at since it once did not, and the value that every network of a search had before."""


def answer_of(genotype: Genotype, name: str, options: Sequence[Choice]) -> Choice:
    """What a genotype answers to a question, be it of another space. Questions with one answer need not be in it: each
    space knows its own. Nor need those that no search asked when it was answered.

    Raises: ArchitectureError when that is not among the options.
    """
    answer = genotype.get(name, options[0] if len(options) == 1 else OPENED.get(name))
    if answer is None or answer not in options:
        raise ArchitectureError(f"space.{name}: {answer!r} is not among {list(options)}")
    return answer


def is_list(text: str) -> bool:
    """Whether it is numbers like "2-4-8"."""
    return re.fullmatch(r"[1-9][0-9]*(-[1-9][0-9]*)*", text) is not None


def numbers(text: str) -> tuple[int, ...]:
    """Turn "2-4-8" into (2, 4, 8)."""
    return tuple(int(part) for part in text.split("-"))


def text_of(values: Sequence[int]) -> str:
    """(2, 4, 8) as "2-4-8"."""
    return "-".join(str(value) for value in values)


class Questioner:
    """Asks for one value after the other, each from the options of an axis that can still lead to an architecture.

    `options` are those of an axis; `size` is the (height, width) of the input.
    """

    def __init__(self, options: Callable[[str], tuple[Choice, ...]], size: tuple[int, int], ask: Ask) -> None:
        self.options = options
        self.size = size
        self.ask = ask

    @property
    def finest_stride(self) -> int:
        """The finest stride of features whose logits are not finer than labels, however little they are shuffled."""
        return min(map(int, self.options("label_stride"))) * min(map(int, self.options("head.shuffle")))

    def too_fine(self, where: str) -> ArchitectureError:
        """Says that features are finer than that, and of which axis that is."""
        axis = "label_stride" if 1 in self.options("head.shuffle") else "head.shuffle"
        return ArchitectureError(
            f"space.{axis}: none of {list(self.options(axis))} is possible after the choices before it: features "
            f"{where} are too fine for it; add an option"
        )

    def pick(self, name: str, axis: str, allowed: Callable[[Choice], bool] | None = None) -> Choice:
        """Ask for `name` among the options of `axis` that are allowed here; a single option is no question.

        Raises: ArchitectureError when no option is.
        """
        offered = self.options(axis)
        options = offered if allowed is None else tuple(filter(allowed, offered))
        if not options:
            raise ArchitectureError(
                f"space.{axis}: none of {list(offered)} is possible for {name} after the choices before it; add an "
                f"option"
            )
        return self.ask(name, options)

    def pick_newer(self, axis: str, allowed: Callable[[Choice], bool] | None = None) -> Choice:
        """`pick` from one of the `NEWER` axes: held at one value it is not asked for, and seeds draw what they drew."""
        assert axis in NEWER
        options = self.options(axis)
        if len(options) == 1 and (allowed is None or allowed(options[0])):
            return options[0]
        return self.pick(axis, axis, allowed)

    def integer(self, name: str, axis: str, allowed: Callable[[int], bool] | None = None) -> int:
        """`pick` of whole numbers."""
        return int(self.pick(name, axis, None if allowed is None else lambda option: allowed(int(option))))

    def text(self, name: str, axis: str, allowed: Callable[[str], bool] | None = None) -> str:
        """`pick` of words."""
        return str(self.pick(name, axis, None if allowed is None else lambda option: allowed(str(option))))
