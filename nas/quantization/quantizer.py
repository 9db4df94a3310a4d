"""Finds the form of a trained network that a device runs fastest, among those that are accurate enough.

Forms in floating point are timed and scored first; the fastest in full precision is the one that others would replace.
INT8 needs ranges of activations, taken from training images. Two graphs are timed, one with only the convolutions
quantized and one with the operations between them too, and those that are faster are scored. If they lose more points
than allowed, the faster one is fine-tuned, if that is wanted, and kept where this improves it. If that is not enough,
the convolutions that lose most per multiply-add stay in floating point: as few as are needed, found by bisection on the
validation images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nas.data import Dataset
from nas.errors import TargetError, TrainingError, UnmeasuredError
from nas.export.graph import onnx_bytes
from nas.export.grid import grid_of
from nas.export.quantized import Calibrated, Image
from nas.host.words import counted
from nas.latency.careful import FAULTS
from nas.latency.machine import lane
from nas.latency.meter import MeasuresFinished
from nas.latency.target import Target
from nas.latency.worker.replies import reason_of, was_ended
from nas.quantization.calibration import IMAGES, calibration_images
from nas.quantization.fine_tuning import QuantizationAwareTuning, fine_tuned
from nas.quantization.forms import Form, floating
from nas.quantization.ranges import wide_layers, wide_words
from nas.quantization.runner import Runner
from nas.quantization.scoring import FormScores, score_on_validation
from nas.quantization.sensitivity import most_sensitive_first
from nas.quantization.verdicts import Loss, TimedForm, fastest_whole, is_faster
from nas.runs.events import Tell, one_after_another, tell_nobody
from nas.terminal import ProgressLine

if TYPE_CHECKING:
    from space.network import Network

SENSITIVITY_IMAGES = 8
MOST_KEPT = 0.5  # largest share of convolutions that may stay in floating point before INT8 is given up


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """The targets to try, and the loss of accuracy that is allowed."""

    targets: tuple[Target, ...]
    points: float = 0.5
    """Points of mIoU that may be lost against PyTorch in float32."""
    images: int = IMAGES
    """Number of training images for the ranges of activations."""
    within: float = 0.015
    """Half of the 95 % interval of each latency, as a share of it."""
    tuning: QuantizationAwareTuning | None = None
    """Fine-tuning where INT8 loses more points than allowed; None: no fine-tuning."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The network and calibration that INT8 forms are made from."""

    graph: bytes
    """Graph in full precision."""
    calibrated: Calibrated
    tuned: Network | None = None
    """The fine-tuned network; None: the original network."""
    epochs: int = 0
    """Epochs of that fine-tuning."""


class Quantizer:
    """Finds the forms of one network on one data set.

    Do not use it inside the lane (`nas.latency.machine.lane`).
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        plan: QuantizationPlan,
        meter_of: Callable[[Target, tuple[int, int], int], AbstractContextManager[MeasuresFinished]],
        said: Callable[[str], None],
        progress: ProgressLine | None = None,
        tell: Tell = tell_nobody,
    ) -> None:
        """`said` receives the findings line by line, `tell` the epochs of all fine-tuning, counted together, and
        `progress` shows long steps. Afterwards `refused` has the reasons, by name, for each form that its runtime
        refused or crashed on.
        """
        self.refused: dict[str, str] = {}
        self._network = network.eval()
        self._dataset = dataset
        self._plan = plan
        self._meter_of = meter_of
        self._said = said
        self._progress = progress or ProgressLine(silent=True)
        self._tell = one_after_another(tell)
        self._started = contextlib.ExitStack()
        self._meters: dict[Target, MeasuresFinished] = {}
        self._runner = Runner(dataset.size)
        # By whether operations between convolutions are quantized too, and whether the graph is for a GPU.
        self._tuned: dict[tuple[bool, bool], Source | None] = {}

    def timed_forms(self) -> tuple[Loss, list[TimedForm]]:
        """The allowed loss, and all forms that were timed.

        Raises: UserError when no target can be timed here in full precision or the data cannot be read; WorkerError
        when a measuring process was ended from outside.
        """
        with self._started, contextlib.closing(self._runner):
            return self._timed_forms()

    def _timed_forms(self) -> tuple[Loss, list[TimedForm]]:
        with lane.shared():
            graph = onnx_bytes(self._network, self._dataset.size, labels=True)
        forms = [Form(target=target, graph=graph) for target in floating(self._plan.targets)]
        tried = [each for form in forms for each in self._tried(form)]
        self._require_whole(forms, tried)
        miou, scored = self._scores([each.form for each in tried])
        loss = Loss(miou=miou, points=self._plan.points)
        self._said(f"PyTorch in float32: mIoU {100 * miou:.2f} %")
        timed_forms = self._with_scores(tried, scored, loss)
        self._require_whole(forms, timed_forms)
        to_quantize = [target for target in self._plan.targets if target.precision == "int8"]
        if to_quantize:
            images: list[Image] = []
            count = min(self._plan.images, len(self._dataset.train))
            with lane.shared(), self._progress.over("ranges of activations", count):
                source = Source(graph=graph, calibrated=Calibrated(graph, self._calibration_images(images)))
            self._said(f"ranges of activations from {counted(count, 'training image')}")
            on_gpu = all(target.on_cuda for target in to_quantize)  # otherwise another grid is coarser
            if wide := wide_words(wide_layers(self._network, on_gpu=on_gpu)):
                self._said(wide)
            for target in to_quantize:
                timed_forms += self._quantized(source, target, fastest_whole(timed_forms), loss, images)
        return loss, timed_forms

    def _require_whole(self, forms: Sequence[Form], timed_forms: Sequence[TimedForm]) -> None:
        if all(each.form.target.precision != "fp32" for each in timed_forms):
            raise TargetError(
                f"expected a target that runs the network in full precision, got none of "
                f"{', '.join(map(str, forms))}; the reasons are above, give another --target"
            )

    def _quantized(
        self, source: Source, target: Target, replaced: TimedForm, loss: Loss, images: Sequence[Image]
    ) -> list[TimedForm]:
        """The INT8 forms on one target."""
        ways = {"convolutions": False, "convolutions and what lies between": True}
        forms = [self._form(source, target, words, between=between) for words, between in ways.items()]
        tried = [each for form in forms for each in self._tried(form)]
        faster = [each for each in tried if is_faster(each.latency, replaced.latency)]
        if not faster:
            self._say_untuned(target, f"it is not significantly faster than {replaced.form}")
            return tried
        scored = self._with_scores(faster, self._scores([each.form for each in faster])[1], loss)
        found = [each for each in tried if each not in faster] + scored
        if not scored:
            return found
        if any(loss.allows(_scores_of(each)) for each in scored):
            self._say_untuned(target, f"it loses no more than {loss.points:g} points")
            return found
        best = min(scored, key=lambda timed: timed.latency.p50_milliseconds)
        between = ways[best.form.words]
        tuned = self._fine_tuned(source, best.form, _scores_of(best), loss, between=between)
        if tuned is not None:
            source, form, scores = tuned
            ran = self._tried(form, scores)
            found += ran
            if ran and loss.allows(scores):
                return found
        whole = Form(target=replace(target, precision="fp32"), graph=source.graph)
        passes = 1 + len(source.calibrated.convolutions)
        compared = source.calibrated, whole, best.form, images, self._runner, self._said
        try:
            with self._progress.over("convolutions compared", passes * len(images)):
                order = most_sensitive_first(*compared, lane.shared_on("cpu"), self._progress.count)
        except UnmeasuredError as error:
            self._said(f"{whole}: left out: {error}")
            return found
        relieved = self._relieved(source, target, order, between=between, loss=loss)
        if relieved is not None:
            form, scores = relieved
            found += self._tried(form, scores)
        return found

    def _with_scores(
        self, tried: Sequence[TimedForm], scored: Sequence[FormScores | UnmeasuredError], loss: Loss
    ) -> list[TimedForm]:
        """The timed forms with their scores, without forms that their runtime could not run, which are reported."""
        found = []
        for each, scores in zip(tried, scored, strict=True):
            if isinstance(scores, UnmeasuredError):
                self._leave_out(each.form, str(scores))
                continue
            self._said(f"{each.form}: mIoU {100 * scores.scores.miou:.2f} %, {loss.words(scores)} points lost")
            found.append(replace(each, scored=scores))
        return found

    def _leave_out(self, form: Form, reason: str) -> None:
        self._said(f"{form}: left out: {reason}")
        self.refused[str(form)] = reason

    def _say_untuned(self, target: Target, reason: str) -> None:
        """Say why there is no fine-tuning, if it was asked for."""
        if self._plan.tuning is not None:
            self._said(f"{target}: not fine-tuned, since {reason}")

    def _fine_tuned(
        self, source: Source, coarse: Form, scored: FormScores, loss: Loss, *, between: bool
    ) -> tuple[Source, Form, FormScores] | None:
        """A form that loses more than allowed, after fine-tuning; None where that does not improve it."""
        tuning = self._plan.tuning
        if tuning is None:
            self._said(f"note: {coarse} loses more than {loss.points:g} points; --epochs N fine-tunes it for INT8")
            return None
        grid = between, coarse.target.on_cuda
        if grid not in self._tuned:
            self._said(f"fine-tuning with {coarse.words} in INT8 for {counted(tuning.epochs, 'epoch')}")
            self._tuned[grid] = self._tune(source, coarse.graph, tuning)
        tuned = self._tuned[grid]
        if tuned is None:
            return None
        form = self._form(tuned, coarse.target, coarse.words, between=between)
        (scores,) = self._scores([form])[1]
        if isinstance(scores, UnmeasuredError):
            self._leave_out(form, str(scores))
            return None
        better = scores.scores.miou > scored.scores.miou
        self._said(f"{form}: {loss.words(scores)} points lost{'' if better else ', no improvement: left out'}")
        return (tuned, form, scores) if better else None

    def _tune(self, source: Source, quantized: bytes, tuning: QuantizationAwareTuning) -> Source | None:
        """The network fine-tuned for the grid of a `quantized` graph; None where the loss does not stay finite."""
        try:
            grid = grid_of(self._network, quantized)
            tuned = fine_tuned(self._network, self._dataset, grid, tuning, self._said, self._progress, self._tell)
        except TrainingError as error:
            self._said(f"fine-tuning: left out: {error}")
            return None
        with lane.shared():
            graph = onnx_bytes(tuned, self._dataset.size, labels=True)
        return Source(
            graph=graph, calibrated=source.calibrated.with_weights_of(graph), tuned=tuned, epochs=tuning.epochs
        )

    def _relieved(
        self, source: Source, target: Target, order: Sequence[str], *, between: bool, loss: Loss
    ) -> tuple[Form, FormScores] | None:
        """The accurate enough form with the fewest convolutions in floating point, which are taken from `order`."""

        def tried(count: int) -> tuple[Form, FormScores] | None:
            words = f"{len(order) - count} of {len(order)} convolutions"
            form = self._form(source, target, words, between=between, kept=order[:count])
            (scored,) = self._scores([form])[1]
            if isinstance(scored, UnmeasuredError):
                self._leave_out(form, str(scored))
                return None
            self._said(f"{form}: {loss.words(scored)} points lost")
            return (form, scored) if loss.allows(scored) else None

        too_few, enough = 0, max(1, round(MOST_KEPT * len(order)))
        found = tried(enough)
        while found is not None and enough - too_few > 1:
            count = (too_few + enough) // 2
            better = tried(count)
            if better is None:
                too_few = count
            else:
                found, enough = better, count
        return found

    def _form(self, source: Source, target: Target, words: str, *, between: bool, kept: Sequence[str] = ()) -> Form:
        with lane.shared():
            graph = source.calibrated.quantized(between=between, kept=kept, on_gpu=target.on_cuda)
        if source.tuned is not None:
            words += f", fine-tuned for {counted(source.epochs, 'epoch')}"
        return Form(target=target, graph=graph, words=words, tuned=source.tuned, epochs=source.epochs)

    def _tried(self, form: Form, scored: FormScores | None = None) -> list[TimedForm]:
        """The form with its latency; nothing where the runtime refuses it or crashes on it, so that the other forms are
        still tried.
        """
        try:
            latency = self._meter(form.target).measure_graph(form.graph, within=self._plan.within)
        except FAULTS as error:
            if was_ended(error):
                raise
            self._leave_out(form, reason_of(error))
            return []
        score = "" if scored is None else f", mIoU {100 * scored.scores.miou:.2f} %"
        self._said(f"{form}: {latency}{score}")
        return [TimedForm(form=form, latency=latency, scored=scored)]

    def _calibration_images(self, first: list[Image]) -> Iterator[Image]:
        """Calibration images; the first ones are also kept in `first`, for comparing convolutions."""
        for image in calibration_images(self._dataset, self._plan.images):
            if len(first) < SENSITIVITY_IMAGES:
                first.append(image)
            yield image
            self._progress.count(1)

    def _meter(self, target: Target) -> MeasuresFinished:
        if target not in self._meters:
            meter = self._meter_of(target, self._dataset.size, self._dataset.num_classes)
            self._meters[target] = self._started.enter_context(meter)
        return self._meters[target]

    def _scores(self, forms: Sequence[Form]) -> tuple[float, list[FormScores | UnmeasuredError]]:
        """mIoU by PyTorch, and for each form its scores or the reason why it has none."""
        with self._progress.over("scored", len(self._dataset.validation)):
            scores, found = score_on_validation(forms, self._network, self._dataset, self._runner, self._progress.count)
        return scores.miou, found


def _scores_of(timed: TimedForm) -> FormScores:
    assert timed.scored is not None
    return timed.scored
