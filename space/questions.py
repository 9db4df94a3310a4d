"""The questions that lead to an architecture, one after the other, each with the options that can still lead to one."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import partial
from itertools import accumulate

from space.architecture import (
    BRANCHES,
    Architecture,
    Auxiliary,
    CatDecoder,
    DecoderStep,
    DeconvDecoder,
    Head,
    LadderDecoder,
    SpatialPyramid,
    Stage,
    Stem,
)
from space.axes import Ask, Choice, numbers
from space.errors import ArchitectureError

COARSEST_STRIDE = 32
AUXILIARY_WEIGHT = 0.4  # NDNet's


class Questions:
    """One walk through the questions. `options` are those of an axis; `size` is the (height, width) of the input."""

    def __init__(self, options: Callable[[str], tuple[Choice, ...]], size: tuple[int, int], ask: Ask) -> None:
        self.options = options
        self.size = size
        self.ask = ask

    def _pick(self, name: str, axis: str, allowed: Callable[[Choice], bool] = lambda option: True) -> Choice:
        """Ask for `name` among the options of `axis` that are allowed here; a single option is no question."""
        options = [option for option in self.options(axis) if allowed(option)]
        if not options:
            raise ArchitectureError(
                f"space.{axis}: none of {list(self.options(axis))} is possible for {name} after the choices "
                f"before it; add an option"
            )
        return self.ask(name, options)

    def _integer(self, name: str, axis: str, allowed: Callable[[int], bool] = lambda option: True) -> int:
        return int(self._pick(name, axis, lambda option: allowed(int(option))))

    def _text(self, name: str, axis: str, allowed: Callable[[str], bool] = lambda option: True) -> str:
        return str(self._pick(name, axis, lambda option: allowed(str(option))))

    def architecture(self) -> Architecture:
        """What the answers lead to.

        Raises: ArchitectureError when an axis leaves no option.
        """
        stem = self._stem()
        stages = self._stages(stem)
        decoder = self._decoder(stem, stages)
        levels, context = 1, None
        if isinstance(decoder, LadderDecoder):
            levels = self._integer("levels", "levels", lambda n: n == 1 or _allows_pyramid(stem, stages))
            context = self._context(stem, stages) if levels == 1 else None
        return Architecture(
            stem=stem,
            stages=stages,
            context=context,
            decoder=decoder,
            head=self._head(decoder),
            activation=self._text("activation", "activation"),  # type: ignore[arg-type]
            levels=levels,
            norm_epsilon=float(self._pick("norm_epsilon", "norm_epsilon")),
            bias=bool(self._pick("bias", "bias")),
            align_corners=bool(self._pick("align_corners", "align_corners")),
            auxiliary=self._auxiliary(len(stages)),
        )

    def _stem(self) -> Stem:
        kind = self._text("stem.kind", "stem.kind")
        width = self._integer("stem.width", "stem.width")
        if kind == "cat":
            return Stem(kind="cat", width=width)
        if kind == "conv_pool":
            return Stem(kind="conv_pool", width=width, kernel=self._integer("stem.kernel", "stem.kernel"))
        return Stem(
            kind="convs",
            width=width,
            convolutions=self._integer("stem.convolutions", "stem.convolutions"),
            image=bool(self._pick("stem.image", "stem.image")),
        )

    def _stages(self, stem: Stem) -> tuple[Stage, ...]:
        kinds = [str(kind) for kind in self.options("block")]
        count = self._integer("stages", "stages", lambda n: any(self._fits(kind, stem, n) for kind in kinds))
        block = self._text("block", "block", lambda kind: self._fits(kind, stem, count))
        down = self._text("down", "down", lambda kind: self._opens(kind, block, stem, count))
        fuse = "none"
        if down != "block":
            fuse = self._text("fuse", "fuse", lambda kind: self._chain(stem.out_width, count, down, kind))
        factorization = "none"
        if block in ("nonbt", "fpl"):
            factorization = self._text("factorization", "factorization", lambda kind: kind != "all" or down != "block")
        pairwise = self._text("pairwise_fusion", "pairwise_fusion") if block == "fpl" else "pairs"
        stages: list[Stage] = []
        width, stride, before = stem.out_width, stem.stride, 0
        for index in range(count):
            name = f"stage{index}"
            step = self._step(name, stride, down, index, count)
            stride *= step
            stage_width = self._stage_width(name, width, before, count - index, down, fuse)
            stage = Stage(
                block=block,  # type: ignore[arg-type]
                width=stage_width,
                depth=self._integer(f"{name}.depth", "stage.depth"),
                stride=step,
                rates=self._rates(name, block, stride),
                factorization=factorization,  # type: ignore[arg-type]
                down=down,  # type: ignore[arg-type]
                fuse=fuse,  # type: ignore[arg-type]
                dropout=float(self._pick(f"{name}.dropout", "stage.dropout")) if block == "nonbt" else 0.0,
                expansion=self._expansion(name, block, stage_width),
                pairwise_fusion=pairwise,  # type: ignore[arg-type]
            )
            stages.append(stage)
            width, before = stage.out_width, stage.width
        return tuple(stages)

    def _step(self, name: str, stride: int, down: str, index: int, count: int) -> int:
        """A stage's stride, so that the encoder ends between strides 8 and 32."""
        if down != "block":
            return 2
        must = stride * 2 ** (count - 1 - index) < 8
        can = stride < COARSEST_STRIDE
        return self._integer(f"{name}.stride", "stage.stride", lambda s: (s == 2 and can) or (s == 1 and not must))

    def _opens(self, down: str, block: str, stem: Stem, count: int) -> bool:
        """Whether stages of `block` can open this way, and as many as `count` of them halve the size."""
        if down == "block":
            return block not in BRANCHES and (
                block != "nonbt" or any(kind != "all" for kind in self.options("factorization"))
            )
        if stem.stride * 2**count > COARSEST_STRIDE:
            return False
        if down == "module":
            return block in BRANCHES
        fusions = self.options("fuse")
        return any(self._chain(stem.out_width, count, down, str(fuse)) for fuse in fusions)

    def _fits(self, block: str, stem: Stem, count: int) -> bool:
        """Whether some opening exists for the block, and some rates for its branches."""
        coarsest = stem.stride * 2**count if block in BRANCHES else 1
        return any(self._opens(str(down), block, stem, count) for down in self.options("down")) and any(
            self._rates_fit(str(rates), block, min(coarsest, COARSEST_STRIDE)) for rates in self.options("stage.rates")
        )

    def _chain(self, width: int, remaining: int, down: str, fuse: str) -> bool:
        """Whether `remaining` stages after `width` channels find the ever larger widths that `cat` needs."""
        if down != "cat":
            return True
        for _ in range(remaining):
            larger = [int(option) for option in self.options("stage.width") if int(option) > width]
            if not larger:
                return False
            width = _fused(min(larger), fuse)
        return True

    def _stage_width(self, name: str, incoming: int, before: int, remaining: int, down: str, fuse: str) -> int:
        """Widths never shrink from stage to stage, and leave room for the stages to come."""

        def allowed(width: int) -> bool:
            if down == "cat" and width <= incoming:
                return False
            return width >= before and self._chain(_fused(width, fuse), remaining - 1, down, fuse)

        return self._integer(f"{name}.width", "stage.width", allowed)

    def _rates_fit(self, rates: str, block: str, stride: int) -> bool:
        """Whether a block has as many branches as there are rates, and a feature map of this stride room for them."""
        feature = min(-(-self.size[0] // stride), -(-self.size[1] // stride))
        values = numbers(rates)
        if block in BRANCHES:
            return len(values) == BRANCHES[block] and max(values) <= feature
        return len(values) in (1, 4) and (max(values) <= feature or values == (1,))

    def _rates(self, name: str, block: str, stride: int) -> tuple[int, ...]:
        return numbers(self._text(f"{name}.rates", "stage.rates", lambda rates: self._rates_fit(rates, block, stride)))

    def _expansion(self, name: str, block: str, width: int) -> int:
        if block == "inverted":
            return self._integer(f"{name}.expansion", "stage.expansion")
        if block == "sep":
            return self._integer(f"{name}.expansion", "stage.expansion", lambda ratio: width % ratio == 0)
        return 4

    def _decoder(self, stem: Stem, stages: tuple[Stage, ...]) -> DeconvDecoder | CatDecoder | LadderDecoder | None:
        taps = {stride for stride in _strides(stem, stages) if stride >= 4}
        possible = {"ladder": len(taps) > 1, "cat": len(stages) > 1}
        kind = self._text("decoder", "decoder", lambda kind: possible.get(kind, True))
        if kind == "none":
            return None
        if kind == "ladder":
            read = self._text("decoder.taps", "decoder.taps")
            return LadderDecoder(width=self._integer("decoder.width", "decoder.width"), taps=read)  # type: ignore[arg-type]
        if kind == "cat":
            tap = int(self.ask("decoder.tap", range(len(stages) - 1)))
            return CatDecoder(tap=tap, width=self._integer("decoder.width", "decoder.width"))
        return self._deconv(stem, stages)

    def _deconv(self, stem: Stem, stages: tuple[Stage, ...]) -> DeconvDecoder:
        last = stages[-1]
        block = last.block if last.block in ("fpl", "sep") else "nonbt"
        factorization = last.factorization if block == last.block else "none"
        stride = _strides(stem, stages)[-1]
        projection = self._integer("decoder.projection", "decoder.projection")
        depth = self._integer("decoder.depth", "decoder.depth")
        steps: list[DecoderStep] = []
        for index in range(stride.bit_length() - 2):
            widest = steps[-1].width if steps else math.inf
            width = self._integer(f"decoder.step{index}.width", "decoder.width", partial(operator.ge, widest))
            rates: tuple[int, ...] = (1,)
            if block == "fpl":
                rates = last.rates  # branches that fit the coarsest feature map fit the finer ones
            steps.append(
                DecoderStep(
                    width=width,
                    depth=depth,
                    block=block,
                    rates=rates,
                    factorization=factorization,
                    pairwise_fusion=last.pairwise_fusion,
                    expansion=4,
                )
            )
        return DeconvDecoder(projection=projection, steps=tuple(steps))

    def _context(self, stem: Stem, stages: tuple[Stage, ...]) -> SpatialPyramid | None:
        height = -(-self.size[0] // _strides(stem, stages)[-1])
        possible = [grids for grids in self.options("context.grids") if max(numbers(str(grids))) <= height]
        if self._text("context", "context", lambda kind: kind == "none" or bool(possible)) == "none":
            return None
        bottleneck = self._integer("context.bottleneck", "context.bottleneck")
        grids = self._text("context.grids", "context.grids", lambda option: option in possible)
        return SpatialPyramid(bottleneck=bottleneck, level_width=bottleneck // 3, grids=numbers(grids))

    def _head(self, decoder: DeconvDecoder | CatDecoder | LadderDecoder | None) -> Head:
        if isinstance(decoder, DeconvDecoder):
            return Head(kind="deconv2")
        kind = self._text("head", "head")
        width = self._integer("head.width", "head.width") if kind == "sep" else 0
        return Head(kind=kind, width=width)  # type: ignore[arg-type]

    def _auxiliary(self, stages: int) -> tuple[Auxiliary, ...]:
        kind = self._text("auxiliary", "auxiliary")
        if kind == "none":
            return ()
        stage = int(self.ask("auxiliary.stage", range(stages)))
        return (Auxiliary(stage=stage, width=128 if kind == "sep" else 0, weight=AUXILIARY_WEIGHT),)


def _fused(width: int, fuse: str) -> int:
    """Channels of a stage of this width after its fusion (the rule is `Stage.out_width`)."""
    image = 3 if fuse == "fir" or fuse.startswith("image") else 0
    return width * (2 if fuse in ("concat", "image_concat", "fir") else 1) + image


def _strides(stem: Stem, stages: tuple[Stage, ...]) -> list[int]:
    """Stride of each stage's output against the image."""
    return list(accumulate((stage.stride for stage in stages), operator.mul, initial=stem.stride))[1:]


def _allows_pyramid(stem: Stem, stages: tuple[Stage, ...]) -> bool:
    return (
        stem.kind != "cat" and not stem.image and all(each.block == "nonbt" and each.down == "block" for each in stages)
    )
