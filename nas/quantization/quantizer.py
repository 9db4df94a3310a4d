"""From a trained network to the form of it that a device runs fastest, and as well as asked.

Forms in floating point are timed and scored first; the fastest in full precision is what others would replace. INT8
needs ranges of activations, seen on training images: convolutions alone and with what lies between them are timed, the
faster goes on where it gains at all. Where it loses more points than asked, the convolutions that lose most per
multiply-add stay in floating point: as few as are needed, found by bisection on the validation images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nas.data import Dataset
from nas.export.graph import onnx_bytes
from nas.export.quantized import Calibrated, Image
from nas.latency import WorkerError
from nas.latency.machine import lane
from nas.latency.meter import MeasuresFinished
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.quantization.calibration import IMAGES, calibration_images
from nas.quantization.forms import Form, floating
from nas.quantization.scoring import FormScores, score_on_validation
from nas.quantization.sensitivity import most_sensitive_first
from nas.quantization.verdicts import Loss, Outcome, fastest_whole, is_faster
from nas.terminal import Progress
from space.errors import TargetError

if TYPE_CHECKING:
    from space.network import Network

SENSITIVITY_IMAGES = 8
MOST_KEPT = 0.5  # of the convolutions that stay in floating point, before INT8 is given up


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """What is tried, and what may be lost."""

    targets: tuple[Target, ...]
    points: float = 0.5
    """Of mIoU that may be lost against PyTorch in float32."""
    images: int = IMAGES
    """Of the training split, for ranges of activations."""
    within: float = 0.015
    """Half of the 95 % interval of each latency, as a share of it."""


class Quantizer:
    """Finds the forms of one network, on one data set.

    Do not use it inside a training step (`nas.latency.machine.lane`).
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        plan: QuantizationPlan,
        meter_of: Callable[[Target, tuple[int, int], int], AbstractContextManager[MeasuresFinished]],
        said: Callable[[str], None],
        progress: Progress | None = None,
    ) -> None:
        """`said` hears what was found, line by line, and `progress` how far it is with what takes long."""
        self._network = network.eval()
        self._dataset = dataset
        self._plan = plan
        self._meter_of = meter_of
        self._said = said
        self._progress = progress or Progress(silent=True)
        self._started = contextlib.ExitStack()
        self._meters: dict[Target, MeasuresFinished] = {}

    def outcomes(self) -> tuple[Loss, list[Outcome]]:
        """What may be lost, and everything that was timed.

        Raises: UserError when a target cannot be timed here or the data cannot be read; WorkerError when a measuring
        process broke.
        """
        with self._started:
            return self._outcomes()

    def _outcomes(self) -> tuple[Loss, list[Outcome]]:
        with lane.training_step():
            graph = onnx_bytes(self._network, self._dataset.size, labels=True)
        whole = [Form(target=target, graph=graph) for target in floating(self._plan.targets)]
        miou, scored = self._scores(whole)
        loss = Loss(miou=miou, points=self._plan.points)
        self._said(f"PyTorch in float32: mIoU {100 * miou:.2f} %")
        outcomes = [
            Outcome(form=form, latency=self._timed(form, each), scored=each)
            for form, each in zip(whole, scored, strict=True)
        ]
        to_quantize = [target for target in self._plan.targets if target.precision == "int8"]
        if to_quantize:
            images: list[Image] = []
            count = min(self._plan.images, len(self._dataset.train))
            with lane.training_step(), self._progress.over("ranges of activations", count):
                calibrated = Calibrated(graph, self._calibration_images(images))
            self._said(f"ranges of activations from {count} training images")
            for target in to_quantize:
                form = Form(target=replace(target, precision="fp32"), graph=graph)
                outcomes += self._quantized(calibrated, form, target, fastest_whole(outcomes), loss, images)
        return loss, outcomes

    def _quantized(
        self,
        calibrated: Calibrated,
        whole: Form,
        target: Target,
        replaced: Outcome,
        loss: Loss,
        images: Sequence[Image],
    ) -> list[Outcome]:
        """What INT8 comes to on one target."""
        ways = {"convolutions": False, "convolutions and what lies between": True}
        forms = [self._form(calibrated, target, words, between=between) for words, between in ways.items()]
        timed = [(form, self._timed_if_it_runs(form)) for form in forms]
        tried = [Outcome(form=form, latency=latency, scored=None) for form, latency in timed if latency is not None]
        faster = [each for each in tried if is_faster(each.latency, replaced.latency)]
        if not faster:
            return tried
        scored = dict(zip(faster, self._scores([each.form for each in faster])[1], strict=True))
        for each, scores in scored.items():
            self._said(f"{each.form}: {100 * scores.scores.miou:.2f} % mIoU, {loss.of(scores):+.2f} points lost")
        found = [replace(each, scored=scored.get(each)) for each in tried]
        if any(loss.allows(scores) for scores in scored.values()):
            return found
        best = min(faster, key=lambda outcome: outcome.latency.p50_milliseconds)
        between = ways[best.form.words]
        passes = 1 + len(calibrated.convolutions)
        with self._progress.over("convolutions compared", passes * len(images)):
            order = most_sensitive_first(calibrated, whole, best.form, images, lane.training_step, self._progress.count)
        relieved = self._relieved(calibrated, target, order, between=between, loss=loss)
        if relieved is not None:
            form, scores = relieved
            found.append(Outcome(form=form, latency=self._timed(form, scores), scored=scores))
        return found

    def _relieved(
        self, calibrated: Calibrated, target: Target, order: Sequence[str], *, between: bool, loss: Loss
    ) -> tuple[Form, FormScores] | None:
        """The form with the fewest of the `order`ed convolutions in floating point that is as good as asked."""

        def tried(count: int) -> tuple[Form, FormScores] | None:
            words = f"{len(order) - count} of {len(order)} convolutions"
            form = self._form(calibrated, target, words, between=between, kept=order[:count])
            (scored,) = self._scores([form])[1]
            self._said(f"{form}: {loss.of(scored):+.2f} points lost")
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

    def _form(
        self, calibrated: Calibrated, target: Target, words: str, *, between: bool, kept: Sequence[str] = ()
    ) -> Form:
        with lane.training_step():
            graph = calibrated.quantized(between=between, kept=kept)
        return Form(target=target, graph=graph, words=words)

    def _timed(self, form: Form, scored: FormScores | None) -> Latency:
        latency = self._meter(form.target).measure_graph(form.graph, within=self._plan.within)
        score = "" if scored is None else f", mIoU {100 * scored.scores.miou:.2f} %"
        self._said(f"{form}: {latency}{score}")
        return latency

    def _timed_if_it_runs(self, form: Form) -> Latency | None:
        """None where the runtime refuses the form, or crashes at it: the other forms are looked at all the same."""
        try:
            return self._timed(form, None)
        except (TargetError, WorkerError) as error:
            if isinstance(error, WorkerError) and error.ended:
                raise
            self._said(f"{form}: left out: {error}")
            return None

    def _calibration_images(self, first: list[Image]) -> Iterator[Image]:
        """One after the other; the `first` ones are kept for what is looked at more closely."""
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

    def _scores(self, forms: Sequence[Form]) -> tuple[float, list[FormScores]]:
        """mIoU of PyTorch, and the scores of forms."""
        with self._progress.over("scored", len(self._dataset.validation)):
            scores, found = score_on_validation(forms, self._network, self._dataset, self._progress.count)
        return scores.miou, found
