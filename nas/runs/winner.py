"""A finished network as a folder: architecture, weights, ONNX file and certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data import Dataset
from nas.host.words import one_line
from nas.latency import Meter
from nas.latency.budget import Budget
from nas.latency.meter import MeasuresFinished
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.latency.scope import scope_of
from nas.latency.several import measure_in_processes
from nas.latency.target import Target
from nas.runs.certificate import CERTIFICATE, MODEL, Certificate, ComparedForm, Deployed, Evidence, Scored, certify
from nas.runs.data_seen import FILE as DATA_SEEN
from nas.runs.data_seen import DataSeen
from nas.runs.labelling import ARCHITECTURE, WEIGHTS, Labelling, metadata
from nas.storage.files import replace_folder
from nas.terminal import ProgressLine
from space import Architecture, strict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.training.scores import Scores

COMPARED_IMAGES = 2  # validation images on which ONNX is compared with PyTorch

USAGE = """\
# Certificate of a network for real-time segmentation, and how to use the files beside it.
#
# {model} takes `image`, float32 (1, 3, {height}, {width}): RGB in 0..1, minus input_mean, divided by input_std.
# It returns `labels`, int64 (1, {height}, {width}).
# Timed: {scope}.
#
# In Python, with the logits:
#
#     import space
#     from safetensors.torch import load_file
#     network = space.load("{architecture}").build({num_classes})
#     network.load_state_dict(load_file("{weights}"))
#     logits = network.eval()(image)  # (1, {num_classes}, {height}, {width})
#
# Classes, in the order of the labels: {classes}

"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A network whose training is over."""

    architecture: Architecture
    weights: Mapping[str, Tensor]
    labelling: Labelling
    dataset: Dataset | None
    """Data set on whose validation images it is scored; None: it is not scored."""
    deployed: Deployed | None = None
    """The form that ships, already scored, if that is not the network in full precision."""
    compared: Callable[[Latency], tuple[ComparedForm, ...]] = lambda _: ()
    """Gives the forms that it was chosen from, for the certified latency."""
    seen: DataSeen | None = None
    """Record of its data, to be kept beside it."""


@dataclass(frozen=True, kw_only=True)
class Certification:
    """How a finished network is timed and scored."""

    target: Target
    budget: Budget | None
    within: float = WITHIN
    """Required precision of its latency: half of the 95 % interval, as a share of the latency."""
    meter_of: Callable[[Target, tuple[int, int], int], AbstractContextManager[MeasuresFinished]] = Meter
    """Makes the meter that times it; a search on a cluster times on another node."""
    device: str = "cpu"
    """Device that scores it."""
    score: Callable[[nn.Module, Dataset], Scores] | None = None
    """Scores it on the validation images; None: this process does."""
    has_time: Callable[[], bool] = lambda: True
    """Whether there is time for further processes while the latency leaves open whether the budget is kept."""
    require: Callable[[Latency], None] | None = None
    """Receives the latency before anything is replaced, and may raise an error that leaves the folder unchanged."""
    progress: ProgressLine = field(default_factory=partial(ProgressLine, silent=True))
    """Shows the progress."""

    def leaves_open(self, latency: Latency) -> bool:
        """Whether a latency leaves open whether the budget is kept, and there is time for further processes."""
        return self.budget is not None and self.budget.verdict(latency) == "UNSURE" and self.has_time()


def write_winner(folder: Path, finished: Finished, certification: Certification) -> Certificate:
    """Write, time and score a finished network. The network in `folder` is replaced only at the very end; other files
    there stay.

    Latency is measured again with the finished weights at the labelling's size, in several new processes
    (`nas.latency.several`), and in more of them while it leaves open whether the budget is kept. Validation images are
    scored in float32; without a data set the certificate has no scores, and ONNX is compared with PyTorch on noise. A
    network over its budget is written too, and its certificate says so. Do not call this inside the lane
    (`nas.latency.machine.lane`).

    Raises: UserError when the weights do not fit, ONNX differs from PyTorch, or the target cannot be timed here;
    `nas.latency.WorkerError` when the measuring process failed.
    """
    from nas.latency.machine import lane
    from nas.runs.checked_export import FileCheck, export_checked
    from nas.training.weights import load_into, save_weights

    architecture, labelling, dataset = finished.architecture, finished.labelling, finished.dataset
    num_classes = len(labelling.classes)
    network = architecture.build(num_classes)
    load_into(network, finished.weights, f"weights of {architecture.key}")
    network.eval()
    with replace_folder(folder, CERTIFICATE, goes=(DATA_SEEN,)) as unfinished:
        (unfinished / ARCHITECTURE).write_text(architecture.to_yaml(), "utf-8")
        save_weights(unfinished / WEIGHTS, network.state_dict(), metadata(architecture, labelling))
        with lane.shared():
            images = _noise(labelling.size) if dataset is None else validation_images(dataset, COMPARED_IMAGES)
            check = export_checked(network, unfinished / MODEL, images, labels=True)
        deployed = finished.deployed
        graph = None if deployed is None else deployed.graph
        if deployed is not None and graph is not None and graph != (unfinished / MODEL).read_bytes():
            (unfinished / MODEL).write_bytes(graph)
            count, share = _validation_count(dataset), deployed.same_labels
            check = FileCheck(images=count, max_abs_difference=None, tolerance=None, same_labels=share)
        with certification.meter_of(certification.target, labelling.size, num_classes) as meter:

            def measure() -> Latency:
                if graph is None:
                    return meter.measure(architecture, weights=unfinished / WEIGHTS, within=certification.within)
                latency = meter.measure_graph(graph, within=certification.within)
                return replace(latency, scope=scope_of(architecture))

            with certification.progress.over("timed for the certificate", 0):
                latency = measure_in_processes(measure, certification.target, leaves_open=certification.leaves_open)
        if certification.require is not None:
            certification.require(latency)
        scored = _scored(network, finished, certification)
        compared = finished.compared(latency)
        evidence = Evidence(latency=latency, scored=scored, check=check, deployed=deployed, compared=compared)
        if finished.seen is not None:
            (unfinished / DATA_SEEN).write_text(strict.dump(finished.seen), "utf-8")
        certificate = certify(architecture, labelling, certification.budget, evidence, unfinished)
        (unfinished / CERTIFICATE).write_text(_usage(labelling, latency.scope) + strict.dump(certificate), "utf-8")
    return certificate


def _scored(network: nn.Module, finished: Finished, certification: Certification) -> Scored | None:
    """The scores of the form that ships; None where there is no data set."""
    from nas.latency.machine import lane
    from nas.training.evaluation import evaluate

    dataset, deployed = finished.dataset, finished.deployed
    if deployed is not None:
        return Scored(scores=deployed.scores, images=_validation_count(dataset), device=certification.target.device)
    if dataset is None:
        return None
    progress, score, device = certification.progress, certification.score, certification.device
    if score is None:
        with progress.over("scored", len(dataset.validation)):
            scores = evaluate(network, dataset, device=device, guard=lane.shared_on(device), count=progress.count)
    else:
        with progress.over("scored elsewhere", 0):
            scores = score(network, dataset)
    return Scored(scores=scores, images=_validation_count(dataset), device=certification.device)


def _validation_count(dataset: Dataset | None) -> int:
    return 0 if dataset is None else len(dataset.validation)


def validation_images(dataset: Dataset, count: int) -> Tensor:
    """The first validation images as network input, float32 (at most `count`, 3, H, W)."""
    from nas.data import make_loader

    loader = make_loader(dataset, "validation", batch_size=count, augmentation=None)
    images, _ = next(iter(loader.epoch(0)))
    return images


def _noise(size: tuple[int, int]) -> Tensor:
    import torch

    return torch.randn(COMPARED_IMAGES, 3, *size, generator=torch.Generator().manual_seed(0))


def _usage(labelling: Labelling, scope: str) -> str:
    height, width = labelling.size
    return USAGE.format(
        scope=scope,
        model=MODEL,
        architecture=ARCHITECTURE,
        weights=WEIGHTS,
        height=height,
        width=width,
        num_classes=len(labelling.classes),
        classes=", ".join(map(one_line, labelling.classes)),
    )
