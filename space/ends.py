"""What can stand behind the stages of an encoder, and what has to, by what a search offers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from space import blocks, decoders, detail
from space import context as contexts
from space import head as heads
from space.choices import Questioner
from space.encoder import Encoder
from space.stem import Stem

FINEST_OUTPUT_STRIDE = 8


@dataclass(frozen=True, kw_only=True)
class Due:
    """What must still follow stages, since nothing else is left."""

    branch: bool
    """A branch beside them: every end that is offered has one."""
    pyramid: bool
    """A pyramid of windows: something has to be re-parameterised, and neither the stem nor the stages are."""


def what_is_due(questions: Questioner, stem: Stem, block: str) -> Due:
    """What must follow stages of this block behind a stem."""
    return Due(
        branch="none" not in questions.options("detail") and set(questions.options("decoder")) == {"none"},
        pyramid=False not in questions.options("rep") and not (stem.is_plain or blocks.kind(block).plain),
    )


def fits(questions: Questioner, decoder: str, *, pooled: bool = False) -> detail.Ends:
    """Whether an encoder may end at a stride in front of a decoder, or of "none": there is room for it, and for a
    context that is asked for. `pooled`: that has to be a pyramid.
    """
    kind = None if decoder == "none" else decoders.kinds()[decoder]
    if kind is None or (kind.takes_context and 1 in questions.options("levels")):
        return functools.partial(contexts.is_possible, questions, alone=kind is None, pooled=pooled)
    return functools.partial(kind.has_room, questions)


def offered(questions: Questioner, due: Due) -> list[str]:
    """Decoders that may follow stages, or "none": where a pyramid is due, those that start with one."""
    names, kinds = [str(name) for name in questions.options("decoder")], decoders.kinds()
    if any(1 not in questions.options(axis) for axis in ("label_stride", "head.shuffle")):
        names = [name for name in names if name == "none" or kinds[name].head not in heads.FULL_SIZE_HEADS]
    if not due.pyramid:
        return names
    return [name for name in names if name == "none" or kinds[name].takes_context]


def can_follow(questions: Questioner, decoder: str, encoder: Encoder, due: Due) -> bool:
    """Whether a decoder, or "none", can follow an encoder, and what is asked behind it has an answer then."""
    if decoder not in offered(questions, due):
        return False
    may_end = fits(questions, decoder, pooled=due.pyramid)
    if decoder == "none":
        return detail.is_possible(questions, encoder.stages, encoder.strides, may_end)
    return may_end(encoder.output_stride) and decoders.kinds()[decoder].possible(questions, encoder)
