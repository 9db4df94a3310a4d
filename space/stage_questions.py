"""The questions about an encoder's stages; each offers only options that can still lead to a valid architecture."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from space import blocks, detail, ends, fusion
from space.block import Block, Unit
from space.choices import Choice, Questioner, numbers, text_of
from space.encoder import Encoder
from space.ends import FINEST_OUTPUT_STRIDE
from space.errors import ArchitectureError
from space.rates import coarsest, fit
from space.stage import Stage
from space.stem import Stem

COARSEST_STRIDE = 32


def possible(questions: Questioner, stem: Stem, count: int | None = None) -> bool:
    """Whether some number of stages, or exactly `count`, can follow the stem."""
    counts = [int(each) for each in questions.options("stages")] if count is None else [count]
    kinds = [_Stages(questions, stem, str(name)) for name in questions.options("block")]
    return any(stages.possible(each) for each in counts for stages in kinds)


def ask(questions: Questioner, stem: Stem) -> tuple[Stage, ...]:
    """The stages after the stem that the answers describe.

    Raises: ArchitectureError when no option of an axis is possible.
    """
    count = questions.integer("stages", "stages", functools.partial(possible, questions, stem))
    name = questions.text("block", "block", lambda name: _Stages(questions, stem, name).possible(count))
    return _Stages(questions, stem, name).ask(count)


@functools.lru_cache(maxsize=8192)
def _widths(
    name: str,
    widths: tuple[Choice, ...],
    rates: tuple[Choice, ...],
    expansions: tuple[Choice, ...],
    options: tuple[tuple[Choice, ...], ...],
) -> tuple[int, ...]:
    """Those of `widths` that blocks of this kind can have with at least one combination of `rates`, `expansions` and
    the kind's own `options`.
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
    """All combinations of values of the options that only this kind has; `options`: the values of each."""
    return (dict(zip(block.options, each, strict=True)) for each in itertools.product(*options))


class _Stages:
    """The questions about stages of one kind of block after a stem; all stages share their opening and fusion."""

    def __init__(self, questions: Questioner, stem: Stem, name: str) -> None:
        self._questions = questions
        self._stem = stem
        self._name = name
        self._block = blocks.kind(name)
        self._due = ends.what_is_due(questions, stem, name)
        self._own = tuple(questions.options(f"{name}.{option}") for option in self._block.options)
        """Offered values of each option that only this kind of block has."""

    def possible(self, count: int) -> bool:
        """Whether `count` stages can follow the stem: some width, rates and opening are possible for the block."""
        end = self._stem.stride * 2**count if self._block.branches else FINEST_OUTPUT_STRIDE
        if not self._widths or self._coarsest < min(end, COARSEST_STRIDE):
            return False
        if self._due.branch and not self._has_parts():
            return False
        return any(self._opens(str(down), count) for down in self._questions.options("down"))

    def ask(self, count: int) -> tuple[Stage, ...]:
        """The `count` stages that the answers describe."""
        ask, stem, block = self._questions, self._stem, self._block
        down = ask.text("down", "down", lambda kind: self._opens(kind, count))
        grows = down == "cat" and not block.plain_down
        fuse = "none"
        if down != "block":
            fuse = ask.text("fuse", "fuse", lambda kind: self._joins(kind, count, grows))
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
            step = self._step(scope, stride, down, stages, count)
            stride *= step
            stage_width = self._stage_width(scope, (width, before), count - index, (grows, fuse))
            depth = ask.integer(f"{scope}.depth", "stage.depth")
            rates = self._rates(scope, stage_width, (stride, step))
            stage_of = functools.partial(
                Stage,
                block=self._name,
                width=stage_width,
                depth=depth,
                stride=step,
                rates=rates,
                factorization=factorization,  # type: ignore[arg-type]  # options are of the axis
                down=down,  # type: ignore[arg-type]
                fuse=fuse,  # type: ignore[arg-type]
                dropout=float(ask.pick(f"{scope}.dropout", "stage.dropout")) if "dropout" in block.shared else 0.0,
                expansion=self._expansion(scope, stage_width, rates),
                pairwise_fusion=pairwise,  # type: ignore[arg-type]
            )
            stages.append(self._with_options(scope, stage_of))
            width, before = stages[-1].out_width, stage_width
        return tuple(stages)

    def _step(self, scope: str, stride: int, down: str, before: Sequence[Stage], count: int) -> int:
        """The stride of the stage after those in `before`, chosen so that the encoder ends between stride 8 and the
        coarsest stride, and required parts can follow. `down`: how stages open.
        """
        if down != "block":
            return 2
        remaining = count - 1 - len(before)
        can = stride < self._coarsest
        must = stride * 2**remaining < FINEST_OUTPUT_STRIDE or (can and remaining == 0 and not self._decodable(before))
        strides = tuple(itertools.accumulate((each.stride for each in before), operator.mul, initial=self._stem.stride))

        def allowed(step: int) -> bool:
            fits = (step == 2 and can) or (step == 1 and not must)
            return fits and self._stand((*strides[1:], stride * step), count, down)

        return self._questions.integer(f"{scope}.stride", "stage.stride", allowed)

    def _decodable(self, stages: Sequence[Stage]) -> bool:
        """Whether a decoder can follow these stages and one more of stride 1."""
        options = self._questions.options("decoder")
        if "none" in options or not stages:
            return True
        encoder = Encoder(stem=self._stem, stages=(*stages, replace(stages[-1], stride=1)))
        return any(ends.can_follow(self._questions, str(name), encoder, self._due) for name in options)

    def _joins(self, fuse: str, count: int, grows: bool) -> bool:
        """Whether `count` stages can have this fusion."""
        return (fuse == "none" or not self._due.branch) and self._chain(self._stem.out_width, count, grows, fuse)

    def _factorizes(self, kind: str, down: str) -> bool:
        """Whether this factorization is possible: `all` is not if a block opens a stage, as in parts of a branch."""
        return kind != "all" or not (down == "block" or self._due.branch)

    def _stand(self, strides: tuple[int, ...], count: int, down: str) -> bool:
        """Whether stages at these `strides` can be continued to `count` stages that allow a branch, if one is due."""
        if not self._due.branch:
            return True
        steps = [int(each) for each in self._questions.options("stage.stride")] if down == "block" else [2]
        may_end = ends.fits(self._questions, "none", pooled=self._due.pyramid)
        for more in itertools.product(steps, repeat=count - len(strides)):
            last = strides[-1] if strides else self._stem.stride
            every = (*strides, *itertools.accumulate(more, operator.mul, initial=last))
            every = every[: len(strides)] + every[len(strides) + 1 :]
            fits = FINEST_OUTPUT_STRIDE <= every[-1] <= self._coarsest
            if fits and detail.can_stand(self._questions, every, self._name, may_end):
                return True
        return False

    def _opens(self, down: str, count: int) -> bool:
        """Whether `count` stages can open this way, without exceeding the coarsest stride."""
        block = self._block
        if down not in block.openings or not self._stand((), count, down):
            return False
        options = self._questions.options
        if "factorization" in block.shared and not any(
            self._factorizes(str(kind), down) for kind in options("factorization")
        ):
            return False
        if down == "block":
            return True
        if self._stem.stride * 2**count > self._coarsest:
            return False
        if down == "module":
            return not self._due.branch or "none" in options("fuse")
        return any(self._joins(str(fuse), count, not block.plain_down) for fuse in options("fuse"))

    def _has_parts(self) -> bool:
        """Whether the block can be used in the parts of a detail branch, with some width that is offered for it."""
        block, options = self._block, self._questions.options
        widths = _widths(self._name, options("detail.width"), ("1",), options("stage.expansion"), self._own)
        return not block.branches and "block" in block.openings and bool(widths)

    @functools.cached_property
    def _coarsest(self) -> int:
        """The coarsest stride at which stages may end; below FINEST_OUTPUT_STRIDE if there is none."""
        questions, due = self._questions, self._due
        stride = coarsest(self._name, questions.options("stage.rates"), questions.size)
        behind = [ends.fits(questions, each, pooled=due.pyramid) for each in ends.offered(questions, due)]
        while stride >= FINEST_OUTPUT_STRIDE and (behind or due.pyramid) and not any(fits(stride) for fits in behind):
            stride //= 2
        return stride

    @functools.cached_property
    def _widths(self) -> tuple[int, ...]:
        """Offered widths that stages can have."""
        options = self._questions.options
        return _widths(
            self._name, options("stage.width"), options("stage.rates"), options("stage.expansion"), self._own
        )

    def _chain(self, width: int, remaining: int, grows: bool, fuse: str) -> bool:
        """Whether `remaining` stages after `width` channels can each be wider than their input, if `grows` asks so."""
        if not grows:
            return True
        for _ in range(remaining):
            larger = [option for option in self._widths if option > width]
            if not larger:
                return False
            width = fusion.out_width(min(larger), fuse)
        return True

    def _stage_width(self, scope: str, before: tuple[int, int], remaining: int, joined: tuple[bool, str]) -> int:
        """The width of a stage. Widths never shrink from stage to stage, and leave room for the stages after it.

        `before`: input channels, and the width of the stage before; `remaining`: number of stages left, this one
        included; `joined`: whether stages must be wider than their input, and their fusion.
        """
        (incoming, narrowest), (grows, fuse) = before, joined

        def allowed(width: int) -> bool:
            if width not in self._widths or (grows and width <= incoming):
                return False
            after = fusion.out_width(width, fuse)
            return width >= narrowest and self._chain(after, remaining - 1, grows, fuse)

        return self._questions.integer(f"{scope}.width", "stage.width", allowed)

    def _rates(self, scope: str, width: int, strides: tuple[int, int]) -> tuple[int, ...]:
        """The dilation rates of a stage. `strides`: its output stride against the image, and its own stride."""
        name, expansions, size = self._name, self._questions.options("stage.expansion"), self._questions.size

        def possible(rates: str) -> bool:
            fits = fit(rates, name, strides[0], size)
            return fits and bool(_widths(name, (width,), (rates,), expansions, self._own))

        offered = [rates for rates in map(str, self._questions.options("stage.rates")) if possible(rates)]
        if strides[1] > 1 and self._block.opens_undilated:
            offered = [rates for rates in offered if numbers(rates)[0] == 1] or offered
        return numbers(self._questions.text(f"{scope}.rates", "stage.rates", offered.__contains__))

    def _expansion(self, scope: str, width: int, rates: tuple[int, ...]) -> int:
        if "expansion" not in self._block.shared:
            return Unit.expansion

        def divides(expansion: int) -> bool:
            return bool(_widths(self._name, (width,), (text_of(rates),), (expansion,), self._own))

        return self._questions.integer(f"{scope}.expansion", "stage.expansion", divides)

    def _with_options(self, scope: str, stage_of: Callable[..., Stage]) -> Stage:
        """The stage with answers to the options that only its kind of block has, of values that it can have."""
        block, own = self._block, list(self._own)
        for place, option in enumerate(block.options):

            def allowed(value: Choice, place: int = place) -> bool:
                rest = [*own[:place], (value,), *own[place + 1 :]]
                return any(_can_be(stage_of, each) for each in _combinations(block, rest))

            own[place] = (self._questions.pick(f"{scope}.{option}", f"{self._name}.{option}", allowed),)
        (chosen,) = _combinations(block, own)
        return stage_of(block_options=chosen)


def _can_be(stage_of: Callable[..., Stage], options: Mapping[str, Choice]) -> bool:
    try:
        stage_of(block_options=options)
    except ArchitectureError:
        return False
    return True
