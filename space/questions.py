"""The questions that lead to an architecture, one after the other, each with the options that can still lead to one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from space import blocks, decoders, detail, fusion, stem
from space import context as contexts
from space import head as heads
from space.architecture import Architecture, allows_image_pyramid
from space.block import Block, Unit
from space.choices import Choice, Questioner, numbers
from space.decoder import Decoder
from space.encoder import Encoder
from space.errors import ArchitectureError
from space.stage import Stage
from space.stem import Stem

COARSEST_STRIDE = 32
FINEST_OUTPUT_STRIDE = 8
PYRAMID = 5  # rates that only a pyramid of branches takes: so many in turn were never offered


def ask(questions: Questioner) -> Architecture:
    """What the answers lead to.

    Raises: ArchitectureError when an axis leaves no option.
    """
    first = stem.ask(questions, lambda stem: _Stages(questions, stem).possible())
    encoder = Encoder(stem=first, stages=_Stages(questions, first).ask())
    decoder = _decoder(questions, encoder)
    levels, context = 1, None
    if decoder is not None and decoder.takes_image_pyramid:
        levels = questions.integer("levels", "levels", lambda n: n == 1 or allows_image_pyramid(encoder))
    if decoder is None:
        stages, branch = detail.ask(questions, encoder.stages, encoder.strides)
        encoder = replace(encoder, stages=stages, detail=branch)
    if levels == 1 and (decoder is None or decoder.takes_context):
        context = contexts.ask(questions, encoder.output_stride, alone=decoder is None)
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
    rep = bool(questions.pick_newer("rep", lambda rep: not rep or can))
    return replace(found, rep=True) if rep else found


def _decoder(questions: Questioner, encoder: Encoder) -> Decoder | None:
    kinds = decoders.kinds()
    name = questions.text("decoder", "decoder", lambda name: name == "none" or kinds[name].possible(questions, encoder))
    return None if name == "none" else kinds[name].ask(questions, encoder)


@functools.lru_cache(maxsize=1024)
def _widths(
    name: str, widths: tuple[Choice, ...], rates: tuple[Choice, ...], options: tuple[tuple[Choice, ...], ...]
) -> tuple[int, ...]:
    """Of `widths`, those that a stage of this kind can have with some of the `rates` and of its own `options`; where
    they hang on its expansion, that is asked for later.
    """
    block = blocks.kind(name)
    if "expansion" in block.shared:
        return tuple(int(width) for width in widths if int(width) >= block.narrowest)
    own = list(_combinations(block, options))
    return tuple(
        int(width)
        for width in widths
        if any(
            block.has_width(int(width), Unit(width=int(width), rates=numbers(str(text)), options=each))
            for text in rates
            for each in own
        )
    )


def _combinations(block: Block, options: Sequence[Sequence[Choice]]) -> Iterator[Mapping[str, Choice]]:
    """Every way to choose the numbers that only this kind has, of which each has some `options`."""
    return (dict(zip(block.options, each, strict=True)) for each in itertools.product(*options))


class _Stages:
    """The questions about the stages behind a stem; all stages have the same kind of block, opening and fusion."""

    def __init__(self, questions: Questioner, stem: Stem) -> None:
        self._questions = questions
        self._stem = stem

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
            fuse = ask.text("fuse", "fuse", lambda kind: self._chain(widths, stem.out_width, count, grows, kind))
        factorization = "none"
        if "factorization" in block.shared:
            factorization = ask.text("factorization", "factorization", lambda kind: kind != "all" or down != "block")
        pairwise = "pairs"
        if "pairwise_fusion" in block.shared:
            pairwise = ask.text("pairwise_fusion", "pairwise_fusion")
        stages: list[Stage] = []
        width, stride, before = stem.out_width, stem.stride, 0
        for index in range(count):
            scope = f"stage{index}"
            step = self._step(scope, stride, down, stages, count)
            stride *= step
            stage_width = self._stage_width(scope, widths, (width, before), count - index, (grows, fuse))
            stage_of = functools.partial(
                Stage,
                block=name,
                width=stage_width,
                depth=ask.integer(f"{scope}.depth", "stage.depth"),
                stride=step,
                rates=self._rates(scope, name, stage_width, stride),
                factorization=factorization,  # type: ignore[arg-type]  # options are of the axis
                down=down,  # type: ignore[arg-type]
                fuse=fuse,  # type: ignore[arg-type]
                dropout=float(ask.pick(f"{scope}.dropout", "stage.dropout")) if "dropout" in block.shared else 0.0,
                expansion=self._expansion(scope, block, stage_width),
                pairwise_fusion=pairwise,  # type: ignore[arg-type]
            )
            stages.append(self._with_options(scope, name, stage_of))
            width, before = stages[-1].out_width, stage_width
        return tuple(stages)

    def _step(self, scope: str, stride: int, down: str, before: Sequence[Stage], count: int) -> int:
        """The stride of the stage behind those `before`, so that the encoder ends between strides 8 and 32, and some
        decoder can follow.
        """
        if down != "block":
            return 2
        remaining = count - 1 - len(before)
        can = stride < COARSEST_STRIDE
        must = stride * 2**remaining < FINEST_OUTPUT_STRIDE or (can and remaining == 0 and not self._decodable(before))
        return self._questions.integer(
            f"{scope}.stride", "stage.stride", lambda s: (s == 2 and can) or (s == 1 and not must)
        )

    def _decodable(self, stages: Sequence[Stage]) -> bool:
        """Whether a decoder can follow these stages and one more at the same resolution."""
        options = self._questions.options("decoder")
        if "none" in options or not stages:
            return True
        encoder = Encoder(stem=self._stem, stages=(*stages, replace(stages[-1], stride=1)))
        return any(decoders.kinds()[str(name)].possible(self._questions, encoder) for name in options)

    def _opens(self, down: str, name: str, count: int) -> bool:
        """Whether stages of the block `name` can open this way, and as many as `count` of them halve the size."""
        block = blocks.kind(name)
        if down not in block.openings:
            return False
        options = self._questions.options
        if down == "block":
            return "factorization" not in block.shared or any(kind != "all" for kind in options("factorization"))
        if self._stem.stride * 2**count > COARSEST_STRIDE:
            return False
        if down == "module":
            return True
        widths, grows = self._widths(name), not block.plain_down
        return any(self._chain(widths, self._stem.out_width, count, grows, str(fuse)) for fuse in options("fuse"))

    def _fits(self, name: str, count: int) -> bool:
        """Whether some opening exists for the block, and some rates for its branches."""
        block = blocks.kind(name)
        options = self._questions.options
        coarsest = self._stem.stride * 2**count if block.branches else 1
        if not self._widths(name):
            return False
        return any(self._opens(str(down), name, count) for down in options("down")) and any(
            self._rates_fit(str(rates), block, min(coarsest, COARSEST_STRIDE)) for rates in options("stage.rates")
        )

    def _widths(self, name: str) -> tuple[int, ...]:
        options = self._questions.options
        return _widths(name, options("stage.width"), options("stage.rates"), self._own(name))

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

    def _rates_fit(self, rates: str, block: Block, stride: int) -> bool:
        """Whether a block has as many branches as there are rates, and a feature map of this stride room for them."""
        height, width = self._questions.size
        feature = min(-(-height // stride), -(-width // stride))
        values = numbers(rates)
        if block.branches:
            return len(values) == block.branches and max(values) <= feature
        return len(values) != PYRAMID and (max(values) <= feature or values == (1,))

    def _rates(self, scope: str, name: str, width: int, stride: int) -> tuple[int, ...]:
        block = blocks.kind(name)

        def possible(rates: str) -> bool:
            return self._rates_fit(rates, block, stride) and bool(_widths(name, (width,), (rates,), self._own(name)))

        return numbers(self._questions.text(f"{scope}.rates", "stage.rates", possible))

    def _expansion(self, scope: str, block: Block, width: int) -> int:
        if "expansion" not in block.shared:
            return 4

        def divides(expansion: int) -> bool:
            return width % block.width_unit(Unit(width=width, rates=(1,), expansion=expansion)) == 0

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
