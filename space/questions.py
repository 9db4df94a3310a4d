"""The questions that lead to an architecture, one after the other, each with the options that can still lead to one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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


@functools.lru_cache(maxsize=256)
def _widths(name: str, options: tuple[Choice, ...]) -> tuple[int, ...]:
    """Widths that a stage of this kind can have; where they hang on its expansion, that is asked for later."""
    block, widths = blocks.kind(name), [int(option) for option in options]
    if "expansion" in block.shared:
        return tuple(width for width in widths if width >= block.narrowest)
    return tuple(width for width in widths if block.has_width(width, Unit(width=width, rates=(1,))))


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
        widths = self._widths(name)
        fuse = "none"
        if down != "block":
            fuse = ask.text("fuse", "fuse", lambda kind: self._chain(widths, stem.out_width, count, down, kind))
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
            step = self._step(scope, stride, down, index, count)
            stride *= step
            stage_width = self._stage_width(scope, widths, (width, before), count - index, (down, fuse))
            stage = Stage(
                block=name,
                width=stage_width,
                depth=ask.integer(f"{scope}.depth", "stage.depth"),
                stride=step,
                rates=self._rates(scope, block, stride),
                factorization=factorization,  # type: ignore[arg-type]  # options are of the axis
                down=down,  # type: ignore[arg-type]
                fuse=fuse,  # type: ignore[arg-type]
                dropout=float(ask.pick(f"{scope}.dropout", "stage.dropout")) if "dropout" in block.shared else 0.0,
                expansion=self._expansion(scope, block, stage_width),
                pairwise_fusion=pairwise,  # type: ignore[arg-type]
            )
            stages.append(self._with_options(scope, block, stage))
            width, before = stage.out_width, stage.width
        return tuple(stages)

    def _step(self, scope: str, stride: int, down: str, index: int, count: int) -> int:
        """A stage's stride, so that the encoder ends between strides 8 and 32."""
        if down != "block":
            return 2
        must = stride * 2 ** (count - 1 - index) < FINEST_OUTPUT_STRIDE
        can = stride < COARSEST_STRIDE
        return self._questions.integer(
            f"{scope}.stride", "stage.stride", lambda s: (s == 2 and can) or (s == 1 and not must)
        )

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
        widths = self._widths(name)
        return any(self._chain(widths, self._stem.out_width, count, down, str(fuse)) for fuse in options("fuse"))

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
        return _widths(name, self._questions.options("stage.width"))

    def _chain(self, widths: Sequence[int], width: int, remaining: int, down: str, fuse: str) -> bool:
        """Whether `remaining` stages after `width` channels find the ever larger `widths` that `cat` needs."""
        if down != "cat":
            return True
        for _ in range(remaining):
            larger = [option for option in widths if option > width]
            if not larger:
                return False
            width = fusion.out_width(min(larger), fuse)
        return True

    def _stage_width(
        self, scope: str, widths: Sequence[int], before: tuple[int, int], remaining: int, ends: tuple[str, str]
    ) -> int:
        """One of `widths`; they never shrink from stage to stage, and leave room for the stages to come.

        `before`: channels that come in, and the width of the stage before; `ends`: how stages open and what they fuse.
        """
        (incoming, narrowest), (down, fuse) = before, ends

        def allowed(width: int) -> bool:
            if width not in widths or (down == "cat" and width <= incoming):
                return False
            after = fusion.out_width(width, fuse)
            return width >= narrowest and self._chain(widths, after, remaining - 1, down, fuse)

        return self._questions.integer(f"{scope}.width", "stage.width", allowed)

    def _rates_fit(self, rates: str, block: Block, stride: int) -> bool:
        """Whether a block has as many branches as there are rates, and a feature map of this stride room for them."""
        height, width = self._questions.size
        feature = min(-(-height // stride), -(-width // stride))
        values = numbers(rates)
        if block.branches:
            return len(values) == block.branches and max(values) <= feature
        return len(values) in (1, 4) and (max(values) <= feature or values == (1,))

    def _rates(self, scope: str, block: Block, stride: int) -> tuple[int, ...]:
        rates = self._questions.text(
            f"{scope}.rates", "stage.rates", lambda rates: self._rates_fit(rates, block, stride)
        )
        return numbers(rates)

    def _expansion(self, scope: str, block: Block, width: int) -> int:
        if "expansion" not in block.shared:
            return 4

        def divides(expansion: int) -> bool:
            return width % block.width_unit(Unit(width=width, rates=(1,), expansion=expansion)) == 0

        return self._questions.integer(f"{scope}.expansion", "stage.expansion", divides)

    def _with_options(self, scope: str, block: Block, stage: Stage) -> Stage:
        """The stage with the numbers that only its kind of block has, as far as the others allow them."""
        for option in block.options:

            def changed(value: Choice, option: str = option, stage: Stage = stage) -> Stage:
                return replace(stage, block_options={**stage.block_options, option: value})

            def allowed(value: Choice, changed: Callable[[Choice], Stage] = changed) -> bool:
                try:
                    changed(value)
                except ArchitectureError:
                    return False
                return True

            stage = changed(self._questions.pick(f"{scope}.{option}", f"{stage.block}.{option}", allowed))
        return stage
