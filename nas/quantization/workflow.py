"""The whole quantization of a network: all its forms are timed and scored, and the one that is kept is certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data import Dataset
from nas.host.memory import require_inference
from nas.latency import Meter, MeterOf
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.latency.several import measure_in_processes
from nas.quantization.forms import Form
from nas.quantization.quantizer import QuantizationPlan, Quantizer
from nas.quantization.verdicts import Loss, Outcome, certified, timed_again, verdict
from nas.runs.certificate import Certificate, ComparedForm, Deployed
from nas.runs.data_seen import DataSeen
from nas.runs.events import event_files
from nas.runs.labelling import Labelling
from nas.runs.trained import Trained
from nas.runs.winner import Certification, Finished, write_winner
from nas.terminal import Progress

if TYPE_CHECKING:
    from space.network import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """The forms of a network, and the certificate of the one that was kept."""

    outcomes: Sequence[Outcome]
    """All forms that were timed; that of `chosen` has the certified latency."""
    chosen: Outcome
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
    progress: Progress = field(default_factory=partial(Progress, silent=True))
    """Shows long steps."""

    def run(self) -> Quantized:
        """Time and score every form, keep one and write it to the folder with its certificate.

        Raises: UserError for weights that do not fit, too little memory, and as `Quantizer.outcomes` and
        `write_winner`; WorkerError as these.
        """
        dataset, tuning = self.dataset, self.plan.tuning
        require_inference(self.trained.architecture, dataset.size, dataset.num_classes)
        if tuning is not None:
            tuning.require_memory(self.trained.architecture, dataset)
        network = self.trained.network(dataset.num_classes)
        self.said(f"scoring {len(dataset.validation)} validation images in float32 and as each target runs it")
        with event_files(self.folder, 0) as tell:
            quantizer = Quantizer(network, dataset, self.plan, self.meter_of, self.said, self.progress, tell)
            loss, outcomes = quantizer.outcomes()
        certify = partial(self._certify, network, loss, quantizer.refused)
        outcomes, chosen, certificate = certified(outcomes, loss, certify, self._measure, self.said)
        return Quantized(
            outcomes=outcomes, chosen=chosen, loss=loss, refused=quantizer.refused, certificate=certificate
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
        outcomes: Sequence[Outcome],
        chosen: Outcome,
        require: Callable[[Latency], None],
    ) -> Certificate:
        """Time the chosen form again, and write it to the folder unless `require` raises an error at its latency."""
        finished = Finished(
            architecture=network.architecture,
            weights=(chosen.form.tuned or network).state_dict(),
            labelling=Labelling.of(self.dataset),
            dataset=self.dataset,
            deployed=_deployed(chosen, loss),
            compared=lambda latency: compared_of(*timed_again(outcomes, chosen, latency), loss, refused),
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


def _deployed(chosen: Outcome, loss: Loss) -> Deployed:
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
    outcomes: Sequence[Outcome], chosen: Outcome, loss: Loss, refused: Mapping[str, str]
) -> tuple[ComparedForm, ...]:
    """All forms that were compared, the chosen one included."""
    found = [
        ComparedForm.of(
            str(outcome.form),
            outcome.latency,
            verdict(outcome, chosen, outcomes, loss),
            miou=None if outcome.scored is None else outcome.scored.scores.miou,
            same_labels=None if outcome.scored is None else outcome.scored.same_labels,
        )
        for outcome in outcomes
    ]
    return (*found, *(ComparedForm.refused(form, f"left out: {reason}") for form, reason in refused.items()))
