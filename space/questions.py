"""The questions of the space, in order; each offers only options that can still lead to a valid architecture."""

from __future__ import annotations

import functools
from dataclasses import replace

from space import context as contexts
from space import decoders, detail, ends, stage_questions, stem
from space import head as heads
from space.architecture import Architecture, allows_image_pyramid
from space.choices import Questioner
from space.decoder import Decoder
from space.encoder import Encoder
from space.ends import FINEST_OUTPUT_STRIDE, Due
from space.errors import ArchitectureError
from space.rates import coarsest


def ask(questions: Questioner) -> Architecture:
    """The architecture that the answers describe.

    Raises: ArchitectureError when no option of an axis is possible.
    """
    _require_room(questions)
    first = stem.ask(questions, functools.partial(stage_questions.possible, questions))
    encoder = Encoder(stem=first, stages=stage_questions.ask(questions, first))
    due = ends.what_is_due(questions, first, encoder.stages[0].block)
    decoder = _decoder(questions, encoder, due)
    levels, context = 1, None
    if decoder is not None and decoder.takes_image_pyramid:
        several = False in questions.options("rep") and allows_image_pyramid(encoder)
        levels = questions.integer("levels", "levels", lambda n: n == 1 or several)
    if decoder is None:
        may_end = ends.fits(questions, "none", pooled=due.pyramid)
        stages, branch = detail.ask(questions, encoder.stages, encoder.strides, may_end)
        encoder = replace(encoder, stages=stages, detail=branch)
    if levels == 1 and (decoder is None or decoder.takes_context):
        context = contexts.ask(questions, encoder.output_stride, alone=decoder is None, pooled=due.pyramid)
    found = Architecture(
        stem=encoder.stem,
        stages=encoder.stages,
        context=context,
        decoder=decoder,
        head=heads.ask(questions, "" if decoder is None else decoder.head),
        activation=questions.text("activation", "activation"),  # type: ignore[arg-type]  # options are of the axis
        levels=levels,
        norm_epsilon=float(questions.pick("norm_epsilon", "norm_epsilon")),
        bias=bool(questions.pick("bias", "bias")),
        align_corners=bool(questions.pick("align_corners", "align_corners")),
        auxiliary=heads.ask_auxiliary(questions, encoder),
        detail=encoder.detail,
        norm_momentum=float(questions.pick_newer("norm_momentum")),
        head_norm_epsilon=float(questions.pick_newer("head_norm_epsilon")),
        head_norm_momentum=float(questions.pick_newer("head_norm_momentum")),
    )
    can = levels == 1 and not found.stem.bias and found.has_plain_convolutions
    least = min(int(factor) for factor in questions.options("head.shuffle"))
    if not any(found.has_room(int(stride), least) for stride in questions.options("label_stride")):
        raise questions.too_fine("in front of the head")
    rep = bool(questions.pick_newer("rep", lambda rep: not rep or can))
    stride = int(questions.pick_newer("label_stride", lambda stride: found.has_room(int(stride), least)))
    shuffle = int(questions.pick_newer("head.shuffle", lambda factor: found.has_room(stride, int(factor))))
    head = replace(found.head, shuffle=shuffle)
    return found if (rep, stride, shuffle) == (False, 1, 1) else replace(found, rep=rep, label_stride=stride, head=head)


def _require_room(questions: Questioner) -> None:
    """Check the image's size against the ranges, before any question is asked.

    Raises: ArchitectureError that names the axis, if even the finest feature map that an encoder may end with is too
    small for every list of dilation rates, or for every decoder or context that may follow.
    """
    kinds, names = ([str(name) for name in questions.options(axis)] for axis in ("block", "decoder"))
    room = max(coarsest(kind, questions.options("stage.rates"), questions.size) for kind in kinds)
    fits = any(ends.fits(questions, name)(FINEST_OUTPUT_STRIDE) for name in names)
    if fits and room >= FINEST_OUTPUT_STRIDE:
        return
    behind = "context" if any(name == "none" or decoders.kinds()[name].takes_context for name in names) else "decoder"
    axis, which = ("stage.rates", f" for blocks {', '.join(kinds)}") if fits else (behind, "")
    height, width = questions.size
    options = list(questions.options(axis))
    raise ArchitectureError(f"space.{axis}: none of {options} is possible at {height}x{width}{which}; add an option")


def _decoder(questions: Questioner, encoder: Encoder, due: Due) -> Decoder | None:
    options = [str(name) for name in questions.options("decoder")]
    if questions.finest_stride > 1 and not any(ends.can_follow(questions, name, encoder, due) for name in options):
        raise questions.too_fine(f"with decoder {' or '.join(options)}")
    name = questions.text("decoder", "decoder", lambda name: ends.can_follow(questions, name, encoder, due))
    return None if name == "none" else decoders.kinds()[name].ask(questions, encoder)
