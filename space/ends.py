"""What can follow the stages of an encoder, and what must follow them, given the options of a search."""

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
    """Parts that are required because the options leave no alternative."""

    branch: bool
    """Whether a detail branch is required: the only decoder offered is none, and only with a branch."""
    pyramid: bool
    """Whether a context pyramid is required: `rep` is fixed to true, and neither stem nor stages are re-parameterised.
    """


def what_is_due(questions: Questioner, stem: Stem, block: str) -> Due:
    """Parts that must accompany or follow stages of this block after a stem."""
    return Due(
        branch="none" not in questions.options("detail") and set(questions.options("decoder")) == {"none"},
        pyramid=False not in questions.options("rep") and not (stem.is_plain or blocks.kind(block).plain),
    )


def fits(questions: Questioner, decoder: str, *, pooled: bool = False) -> detail.Ends:
    """A function that tells whether an encoder may end at a stride in front of a decoder (or of "none"): whether the
    decoder fits there, and some context that the options allow. `pooled`: the context has to be a pyramid.
    """
    kind = None if decoder == "none" else decoders.kinds()[decoder]
    if kind is None or (kind.takes_context and 1 in questions.options("levels")):
        return functools.partial(contexts.is_possible, questions, alone=kind is None, pooled=pooled)
    return functools.partial(kind.has_room, questions)


def offered(questions: Questioner, due: Due) -> list[str]:
    """Decoders (or "none") that may follow the stages; if a pyramid is due, only those that may start with one."""
    names, kinds = [str(name) for name in questions.options("decoder")], decoders.kinds()
    if any(1 not in questions.options(axis) for axis in ("label_stride", "head.shuffle")):
        names = [name for name in names if name == "none" or kinds[name].head not in heads.FULL_SIZE_HEADS]
    if not due.pyramid:
        return names
    return [name for name in names if name == "none" or kinds[name].takes_context]


def can_follow(questions: Questioner, decoder: str, encoder: Encoder, due: Due) -> bool:
    """Whether a decoder, or "none", can follow an encoder with possible answers to all questions after it."""
    if decoder not in offered(questions, due):
        return False
    may_end = fits(questions, decoder, pooled=due.pyramid)
    if decoder == "none":
        return detail.is_possible(questions, encoder.stages, encoder.strides, may_end)
    return may_end(encoder.output_stride) and decoders.kinds()[decoder].possible(questions, encoder)
