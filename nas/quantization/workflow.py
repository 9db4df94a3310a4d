"""The whole quantization of a network: all its forms are timed and scored, and the one that is kept is certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data import Dataset
from nas.host.memory import require_inference
from nas.host.words import counted
from nas.latency import Meter, MeterOf
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.latency.several import measure_in_processes
from nas.quantization.forms import Form
from nas.quantization.quantizer import QuantizationPlan, Quantizer
from nas.quantization.verdicts import Loss, TimedForm, certified, timed_again, verdict
from nas.runs.certificate import Certificate, ComparedForm, Deployed
from nas.runs.data_seen import DataSeen
from nas.runs.events import event_files
from nas.runs.labelling import Labelling
from nas.runs.trained import Trained
from nas.runs.winner import Certification, Finished, write_winner
from nas.terminal import ProgressLine

if TYPE_CHECKING:
    from space.network import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """The forms of a network, and the certificate of the one that was kept."""

    timed_forms: Sequence[TimedForm]
    """All forms that were timed; that of `chosen` has the certified latency."""
    chosen: TimedForm
    loss: Loss
    refused: Mapping[str, str]
    """The reasons, by name, for the forms that their runtime refused or crashed on."""
    certificate: Certificate


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantization:
    """A trained network to quantize, and how the form that is kept is certified.

    Do not run it inside the lane (`nas.latency.machine.lane`).
    """

    trained: Trained
    dataset: Dataset
    """Data set that calibrates and scores the forms; its size (H, W) is the input size."""
    plan: QuantizationPlan
    folder: Path
    """Folder for the network and its certificate, and for event files of fine-tuning."""
    said: Callable[[str], None]
    """Receives the findings line by line."""
    budget: Budget | None = None
    """Budget that the certificate judges."""
    seen: DataSeen | None = None
    """Record of the data, to be kept beside the network."""
    meter_of: MeterOf = Meter
    progress: ProgressLine = field(default_factory=partial(ProgressLine, silent=True))
    """Shows long steps."""

    def run(self) -> Quantized:
        """Time and score every form, keep one and write it to the folder with its certificate.

        Raises: UserError for weights that do not fit, too little memory, and as `Quantizer.timed_forms` and
        `write_winner`; WorkerError as these.
        """
        dataset, tuning = self.dataset, self.plan.tuning
        require_inference(self.trained.architecture, dataset.size, dataset.num_classes)
        if tuning is not None:
            tuning.require_memory(self.trained.architecture, dataset)
        network = self.trained.network(dataset.num_classes)
        images = counted(len(dataset.validation), "validation image")
        self.said(f"scoring {images} in float32 and as each target runs it")
        with event_files(self.folder, 0) as tell:
            quantizer = Quantizer(network, dataset, self.plan, self.meter_of, self.said, self.progress, tell)
            loss, timed_forms = quantizer.timed_forms()
        certify = partial(self._certify, network, loss, quantizer.refused)
        timed_forms, chosen, certificate = certified(timed_forms, loss, certify, self._measure, self.said)
        return Quantized(
            timed_forms=timed_forms, chosen=chosen, loss=loss, refused=quantizer.refused, certificate=certificate
        )

    def _measure(self, form: Form) -> Latency:
        """The latency of a form, timed as for a certificate."""
        with self.meter_of(form.target, self.dataset.size, self.dataset.num_classes) as meter:
            return measure_in_processes(lambda: meter.measure_graph(form.graph, within=self.plan.within), form.target)

    def _certify(
        self,
        network: Network,
        loss: Loss,
        refused: Mapping[str, str],
        timed_forms: Sequence[TimedForm],
        chosen: TimedForm,
        require: Callable[[Latency], None],
    ) -> Certificate:
        """Time the chosen form again, and write it to the folder unless `require` raises an error at its latency."""
        finished = Finished(
            architecture=network.architecture,
            weights=(chosen.form.tuned or network).state_dict(),
            labelling=Labelling.of(self.dataset),
            dataset=self.dataset,
            deployed=_deployed(chosen, loss),
            compared=lambda latency: compared_of(*timed_again(timed_forms, chosen, latency), loss, refused),
            seen=self.seen,
        )
        certification = Certification(
            target=chosen.form.target,
            budget=self.budget,
            within=self.plan.within,
            meter_of=self.meter_of,
            require=require,
            progress=self.progress,
        )
        return write_winner(self.folder, finished, certification)


def _deployed(chosen: TimedForm, loss: Loss) -> Deployed:
    """The chosen form as it ships."""
    assert chosen.scored is not None, "nothing is kept that was not scored"
    return Deployed(
        graph=chosen.form.graph,
        form=str(chosen.form),
        scored_by=str(chosen.form),
        scores=chosen.scored.scores,
        same_labels=chosen.scored.same_labels,
        miou_float32=loss.miou,
        fine_tuned_epochs=chosen.form.epochs,
    )


def compared_of(
    timed_forms: Sequence[TimedForm], chosen: TimedForm, loss: Loss, refused: Mapping[str, str]
) -> tuple[ComparedForm, ...]:
    """All forms that were compared, the chosen one included."""
    found = [
        ComparedForm.of(
            str(timed.form),
            timed.latency,
            verdict(timed, chosen, timed_forms, loss),
            miou=None if timed.scored is None else timed.scored.scores.miou,
            same_labels=None if timed.scored is None else timed.scored.same_labels,
        )
        for timed in timed_forms
    ]
    return (*found, *(ComparedForm.refused(form, f"left out: {reason}") for form, reason in refused.items()))
