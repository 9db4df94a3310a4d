"""The questions that lead to an architecture, one after the other, each with the options that can still lead to one."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from space import blocks, decoders, detail, fusion, stem
from space import context as contexts
from space import head as heads
from space.architecture import Architecture, allows_image_pyramid
from space.block import Block, Unit
from space.choices import Choice, Questioner, numbers, text_of
from space.decoder import Decoder
from space.encoder import Encoder
from space.errors import ArchitectureError
from space.rates import coarsest, fit
from space.stage import Stage
from space.stem import Stem

COARSEST_STRIDE = 32
FINEST_OUTPUT_STRIDE = 8


def ask(questions: Questioner) -> Architecture:
    """What the answers lead to.

    Raises: ArchitectureError when an axis leaves no option.
    """
    _require_room(questions)
    first = stem.ask(questions, lambda stem: _Stages(questions, stem).possible())
    encoder = Encoder(stem=first, stages=_Stages(questions, first).ask())
    decoder = _decoder(questions, encoder)
    levels, context = 1, None
    if decoder is not None and decoder.takes_image_pyramid:
        several = False in questions.options("rep") and allows_image_pyramid(encoder)
        levels = questions.integer("levels", "levels", lambda n: n == 1 or several)
    pooled = _is_pooled(questions, first, encoder.stages[0].block)
    if decoder is None:
        stages, branch = detail.ask(questions, encoder.stages, encoder.strides, _ends(questions, "none", pooled))
        encoder = replace(encoder, stages=stages, detail=branch)
    if levels == 1 and (decoder is None or decoder.takes_context):
        context = contexts.ask(questions, encoder.output_stride, alone=decoder is None, pooled=pooled)
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
        raise questions.too_fine("here")
    rep = bool(questions.pick_newer("rep", lambda rep: not rep or can))
    stride = int(questions.pick_newer("label_stride", lambda stride: found.has_room(int(stride), least)))
    shuffle = int(questions.pick_newer("head.shuffle", lambda factor: found.has_room(stride, int(factor))))
    head = replace(found.head, shuffle=shuffle)
    return found if (rep, stride, shuffle) == (False, 1, 1) else replace(found, rep=rep, label_stride=stride, head=head)


def _require_room(questions: Questioner) -> None:
    """Raises: ArchitectureError that names the axis, where no encoder's end has room for any dilation rate, or for what
    has to follow it.
    """
    kinds, names = ([str(name) for name in questions.options(axis)] for axis in ("block", "decoder"))
    room = max(coarsest(kind, questions.options("stage.rates"), questions.size) for kind in kinds)
    ends = any(_ends(questions, name)(FINEST_OUTPUT_STRIDE) for name in names)
    if ends and room >= FINEST_OUTPUT_STRIDE:
        return
    behind = "context" if any(name == "none" or decoders.kinds()[name].takes_context for name in names) else "decoder"
    axis, which = ("stage.rates", f" for blocks {', '.join(kinds)}") if ends else (behind, "")
    height, width = questions.size
    options = list(questions.options(axis))
    raise ArchitectureError(f"space.{axis}: none of {options} is possible at {height}x{width}{which}; add an option")


def _decoder(questions: Questioner, encoder: Encoder) -> Decoder | None:
    options = [str(name) for name in questions.options("decoder")]
    if questions.finest_stride > 1 and not any(_follows(questions, name, encoder) for name in options):
        raise questions.too_fine(f"with the decoders {', '.join(options)}")
    name = questions.text("decoder", "decoder", lambda name: _follows(questions, name, encoder))
    return None if name == "none" else decoders.kinds()[name].ask(questions, encoder)


def _follows(questions: Questioner, name: str, encoder: Encoder) -> bool:
    """Whether a decoder, or none, can follow an encoder, and what is asked behind it has an answer then."""
    if name not in _decoders(questions, encoder.stem, encoder.stages[0].block):
        return False
    fits = _ends(questions, name, _is_pooled(questions, encoder.stem, encoder.stages[0].block))
    if name == "none":
        return detail.is_possible(questions, encoder.stages, encoder.strides, fits)
    return fits(encoder.output_stride) and decoders.kinds()[name].possible(questions, encoder)


def _ends(questions: Questioner, name: str, pooled: bool = False) -> detail.Ends:
    """Whether an encoder may end at a stride in front of a decoder, or of none: there is room for it, and for a context
    that is asked for. `pooled`: that has to be a pyramid.
    """
    decoder = None if name == "none" else decoders.kinds()[name]
    if decoder is None or (decoder.takes_context and 1 in questions.options("levels")):
        return functools.partial(contexts.is_possible, questions, alone=decoder is None, pooled=pooled)
    return functools.partial(decoder.has_room, questions)


def _decoders(questions: Questioner, stem: Stem, block: str) -> list[str]:
    """Decoders that may follow such stages, or "none": where something has to be re-parameterised and only a pyramid of
    windows is left for that, those that start with one.
    """
    names, kinds = [str(name) for name in questions.options("decoder")], decoders.kinds()
    if any(1 not in questions.options(axis) for axis in ("label_stride", "head.shuffle")):
        names = [name for name in names if name == "none" or kinds[name].head not in heads.FULL_SIZE_HEADS]
    if not _is_pooled(questions, stem, block):
        return names
    return [name for name in names if name == "none" or kinds[name].takes_context]


def _is_pooled(questions: Questioner, stem: Stem, block: str) -> bool:
    """Whether a pyramid of windows is all that is left to be re-parameterised, and something has to be."""
    return False not in questions.options("rep") and not (stem.is_plain or blocks.kind(block).plain)


@functools.lru_cache(maxsize=8192)
def _widths(
    name: str,
    widths: tuple[Choice, ...],
    rates: tuple[Choice, ...],
    expansions: tuple[Choice, ...],
    options: tuple[tuple[Choice, ...], ...],
) -> tuple[int, ...]:
    """Of `widths`, those that a stage of this kind can have with some of the `rates`, the `expansions` and its own
    `options`.
    """
    block = blocks.kind(name)
    units = [
        Unit(width=1, rates=numbers(str(text)), expansion=int(expansion), options=own)
        for text in rates
        for expansion in (expansions if "expansion" in block.shared else (Unit.expansion,))
        for own in _combinations(block, options)
    ]
    return tuple(int(width) for width in widths if any(block.has_width(int(width), unit) for unit in units))


def _combinations(block: Block, options: Sequence[Sequence[Choice]]) -> Iterator[Mapping[str, Choice]]:
    """Every way to choose the numbers that only this kind has, of which each has some `options`."""
    return (dict(zip(block.options, each, strict=True)) for each in itertools.product(*options))


class _Stages:
    """The questions about the stages behind a stem; all stages have the same kind of block, opening and fusion."""

    def __init__(self, questions: Questioner, stem: Stem) -> None:
        self._questions = questions
        self._stem = stem
        # No end is left but a branch beside the stages.
        self._is_branched = "none" not in questions.options("detail") and set(questions.options("decoder")) == {"none"}

    def possible(self, count: int | None = None) -> bool:
        """Whether any stages, or so many of them, can follow the stem."""
        counts = [int(each) for each in self._questions.options("stages")] if count is None else [count]
        return any(self._fits(str(kind), each) for each in counts for kind in self._questions.options("block"))

    def ask(self) -> tuple[Stage, ...]:
        """The stages that the answers lead to."""
        ask, stem = self._questions, self._stem
        count = ask.integer("stages", "stages", self.possible)
        name = ask.text("block", "block", lambda kind: self._fits(kind, count))
        block = blocks.kind(name)
        down = ask.text("down", "down", lambda kind: self._opens(kind, name, count))
        grows = down == "cat" and not block.plain_down
        widths = self._widths(name)
        fuse = "none"
        if down != "block":
            fuse = ask.text("fuse", "fuse", lambda kind: self._joins(kind, widths, count, grows))
        factorization = "none"
        if "factorization" in block.shared:
            factorization = ask.text("factorization", "factorization", lambda kind: self._factorizes(kind, down))
        pairwise = "pairs"
        if "pairwise_fusion" in block.shared:
            pairwise = ask.text("pairwise_fusion", "pairwise_fusion")
        stages: list[Stage] = []
        width, stride, before = stem.out_width, stem.stride, 0
        for index in range(count):
            scope = f"stage{index}"
            step = self._step(scope, stride, (down, name), stages, count)
            stride *= step
            stage_width = self._stage_width(scope, widths, (width, before), count - index, (grows, fuse))
            depth = ask.integer(f"{scope}.depth", "stage.depth")
            rates = self._rates(scope, name, stage_width, (stride, step))
            stage_of = functools.partial(
                Stage,
                block=name,
                width=stage_width,
                depth=depth,
                stride=step,
                rates=rates,
                factorization=factorization,  # type: ignore[arg-type]  # options are of the axis
                down=down,  # type: ignore[arg-type]
                fuse=fuse,  # type: ignore[arg-type]
                dropout=float(ask.pick(f"{scope}.dropout", "stage.dropout")) if "dropout" in block.shared else 0.0,
                expansion=self._expansion(scope, name, stage_width, rates),
                pairwise_fusion=pairwise,  # type: ignore[arg-type]
            )
            stages.append(self._with_options(scope, name, stage_of))
            width, before = stages[-1].out_width, stage_width
        return tuple(stages)

    def _step(self, scope: str, stride: int, kinds: tuple[str, str], before: Sequence[Stage], count: int) -> int:
        """The stride of the stage behind those `before`, so that the encoder ends between stride 8 and the coarsest,
        and what is due can follow. `kinds`: how stages open, and their block.
        """
        down, name = kinds
        if down != "block":
            return 2
        remaining = count - 1 - len(before)
        can = stride < self._coarsest(name)
        must = stride * 2**remaining < FINEST_OUTPUT_STRIDE or (can and remaining == 0 and not self._decodable(before))
        strides = tuple(itertools.accumulate((each.stride for each in before), operator.mul, initial=self._stem.stride))

        def allowed(step: int) -> bool:
            fits = (step == 2 and can) or (step == 1 and not must)
            return fits and self._stand(name, (*strides[1:], stride * step), count, down)

        return self._questions.integer(f"{scope}.stride", "stage.stride", allowed)

    def _decodable(self, stages: Sequence[Stage]) -> bool:
        """Whether a decoder can follow these stages and one more at the same resolution."""
        options = self._questions.options("decoder")
        if "none" in options or not stages:
            return True
        encoder = Encoder(stem=self._stem, stages=(*stages, replace(stages[-1], stride=1)))
        return any(_follows(self._questions, str(name), encoder) for name in options)

    def _joins(self, fuse: str, widths: Sequence[int], count: int, grows: bool) -> bool:
        """Whether so many stages can fuse this way."""
        return (fuse == "none" or not self._is_branched) and self._chain(
            widths, self._stem.out_width, count, grows, fuse
        )

    def _factorizes(self, kind: str, down: str) -> bool:
        """Whether convolutions can be split this way: not all where one of them strides, or the parts of a branch are
        blocks without a downsampler.
        """
        return kind != "all" or not (down == "block" or self._is_branched)

    def _stand(self, name: str, strides: tuple[int, ...], count: int, down: str) -> bool:
        """Whether what follows stages at these `strides` can become `count` stages with a branch, where one is due."""
        if not self._is_branched:
            return True
        steps = [int(each) for each in self._questions.options("stage.stride")] if down == "block" else [2]
        ends = _ends(self._questions, "none", _is_pooled(self._questions, self._stem, name))
        for more in itertools.product(steps, repeat=count - len(strides)):
            last = strides[-1] if strides else self._stem.stride
            every = (*strides, *itertools.accumulate(more, operator.mul, initial=last))
            every = every[: len(strides)] + every[len(strides) + 1 :]
            fits = FINEST_OUTPUT_STRIDE <= every[-1] <= self._coarsest(name)
            if fits and detail.can_stand(self._questions, every, name, ends):
                return True
        return False

    def _opens(self, down: str, name: str, count: int) -> bool:
        """Whether stages of the block `name` can open this way, and as many as `count` of them halve the size."""
        block = blocks.kind(name)
        if down not in block.openings or not self._stand(name, (), count, down):
            return False
        options = self._questions.options
        if "factorization" in block.shared and not any(
            self._factorizes(str(kind), down) for kind in options("factorization")
        ):
            return False
        if down == "block":
            return True
        if self._stem.stride * 2**count > self._coarsest(name):
            return False
        if down == "module":
            return not self._is_branched or "none" in options("fuse")
        widths, grows = self._widths(name), not block.plain_down
        return any(self._joins(str(fuse), widths, count, grows) for fuse in options("fuse"))

    def _fits(self, name: str, count: int) -> bool:
        """Whether some opening exists for the block, and some rates for its branches."""
        block = blocks.kind(name)
        options = self._questions.options
        end = self._stem.stride * 2**count if block.branches else FINEST_OUTPUT_STRIDE
        if not self._widths(name) or self._coarsest(name) < min(end, COARSEST_STRIDE):
            return False
        if self._is_branched and not self._has_parts(name):
            return False
        return any(self._opens(str(down), name, count) for down in options("down"))

    def _has_parts(self, name: str) -> bool:
        """Whether the block can be in the parts of a branch, some of them wide enough."""
        block, options = blocks.kind(name), self._questions.options
        widths = _widths(name, options("detail.width"), ("1",), options("stage.expansion"), self._own(name))
        return not block.branches and "block" in block.openings and bool(widths)

    def _coarsest(self, name: str) -> int:
        """The coarsest stride at which stages of the block may end; less than the finest where there is none."""
        stride = coarsest(name, self._questions.options("stage.rates"), self._questions.size)
        pooled = _is_pooled(self._questions, self._stem, name)
        ends = [_ends(self._questions, each, pooled) for each in _decoders(self._questions, self._stem, name)]
        while stride >= FINEST_OUTPUT_STRIDE and (ends or pooled) and not any(fits(stride) for fits in ends):
            stride //= 2
        return stride

    def _widths(self, name: str) -> tuple[int, ...]:
        options = self._questions.options
        return _widths(
            name, options("stage.width"), options("stage.rates"), options("stage.expansion"), self._own(name)
        )

    def _own(self, name: str) -> tuple[tuple[Choice, ...], ...]:
        """What is offered for each number that only this kind of block has."""
        return tuple(self._questions.options(f"{name}.{option}") for option in blocks.kind(name).options)

    def _chain(self, widths: Sequence[int], width: int, remaining: int, grows: bool, fuse: str) -> bool:
        """Whether `remaining` stages after `width` channels find the larger and larger `widths` that growing needs."""
        if not grows:
            return True
        for _ in range(remaining):
            larger = [option for option in widths if option > width]
            if not larger:
                return False
            width = fusion.out_width(min(larger), fuse)
        return True

    def _stage_width(
        self, scope: str, widths: Sequence[int], before: tuple[int, int], remaining: int, ends: tuple[bool, str]
    ) -> int:
        """One of `widths`; they never shrink from stage to stage, and leave room for the stages to come.

        `before`: channels that come in, and the width of the stage before; `ends`: whether stages have to be wider than
        what comes in, and what they fuse.
        """
        (incoming, narrowest), (grows, fuse) = before, ends

        def allowed(width: int) -> bool:
            if width not in widths or (grows and width <= incoming):
                return False
            after = fusion.out_width(width, fuse)
            return width >= narrowest and self._chain(widths, after, remaining - 1, grows, fuse)

        return self._questions.integer(f"{scope}.width", "stage.width", allowed)

    def _rates(self, scope: str, name: str, width: int, strides: tuple[int, int]) -> tuple[int, ...]:
        """`strides`: of the stage against the image, and its own."""
        expansions, own, size = self._questions.options("stage.expansion"), self._own(name), self._questions.size

        def possible(rates: str) -> bool:
            return fit(rates, name, strides[0], size) and bool(_widths(name, (width,), (rates,), expansions, own))

        offered = [rates for rates in map(str, self._questions.options("stage.rates")) if possible(rates)]
        if strides[1] > 1 and blocks.kind(name).opens_undilated:
            offered = [rates for rates in offered if numbers(rates)[0] == 1] or offered
        return numbers(self._questions.text(f"{scope}.rates", "stage.rates", offered.__contains__))

    def _expansion(self, scope: str, name: str, width: int, rates: tuple[int, ...]) -> int:
        if "expansion" not in blocks.kind(name).shared:
            return Unit.expansion

        def divides(expansion: int) -> bool:
            return bool(_widths(name, (width,), (text_of(rates),), (expansion,), self._own(name)))

        return self._questions.integer(f"{scope}.expansion", "stage.expansion", divides)

    def _with_options(self, scope: str, name: str, stage_of: Callable[..., Stage]) -> Stage:
        """The stage with the numbers that only its kind of block has, as far as the others allow them."""
        block, own = blocks.kind(name), list(self._own(name))
        for place, option in enumerate(block.options):

            def allowed(value: Choice, place: int = place) -> bool:
                rest = [*own[:place], (value,), *own[place + 1 :]]
                return any(_can_be(stage_of, each) for each in _combinations(block, rest))

            own[place] = (self._questions.pick(f"{scope}.{option}", f"{name}.{option}", allowed),)
        (chosen,) = _combinations(block, own)
        return stage_of(block_options=chosen)


def _can_be(stage_of: Callable[..., Stage], options: Mapping[str, Choice]) -> bool:
    try:
        stage_of(block_options=options)
    except ArchitectureError:
        return False
    return True
