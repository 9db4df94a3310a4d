"""Trained networks as files: an architecture, its weights, and what they tell apart.

Wherever a folder is expected, the name of a winner in the zoo (`nas.runs.zoo`) is its folder. A folder with a
certificate is used only while its files are those that were certified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import space
from nas.latency import runtimes
from nas.latency.target import Target
from nas.runs import zoo
from nas.runs.beginning import RECORD, TENSORS
from nas.runs.certificate import CERTIFICATE, MODEL, Certificate, read_certificate
from nas.runs.data_seen import FILE as DATA_SEEN
from nas.runs.data_seen import DataSeen
from nas.runs.folder import STUDY, TRIALS, WINNER, WINNERS, RunFolder
from nas.runs.labelling import ARCHITECTURE, WEIGHTS, Labelling, read_labelling
from nas.runs.trial import PROGRESS
from nas.storage.records import cached_record
from nas.training.recipe import Recipe
from nas.training.scores import Scores
from space import Architecture, UserError
from space.channels import last_layer

if TYPE_CHECKING:
    from nas.data import Dataset
    from space.network import Network

SCORES = "scores.yaml"
CHECKPOINT = "checkpoint.pt"
"""Of a training that can go on."""
PRETRAINED = "pretrained.yaml"
"""Beside a training that began with weights that others trained: the names of all layers and tensors that were taken,
and of those that were not."""
FORM = "form.yaml"
"""In which form a training computes, where that was found by a probe."""
OF_A_TRAINING = (DATA_SEEN, RECORD, TENSORS, FORM, PRETRAINED, ARCHITECTURE, CHECKPOINT, PROGRESS, SCORES, WEIGHTS)
"""All that `nas train` writes in its folder, what it logs apart."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """An architecture and the file with its weights. `labelling` is None for weights that do not say what they mean."""

    name: str
    architecture: Architecture
    weights: Path
    labelling: Labelling | None

    def network(self, num_classes: int) -> Network:
        """The network with its weights, on the CPU, ready to predict.

        Raises: UserError when the weights belong to another architecture or number of classes, or are numbers that no
        network computes with.
        """
        from nas.training.pretrained import without_prefix
        from nas.training.weights import load_into, load_weights, read_metadata, require_usable

        network, weights = self.architecture.build(num_classes), without_prefix(load_weights(self.weights))
        require_usable(weights, self.weights)
        load_into(network, weights, str(self.weights))
        key = read_metadata(self.weights).get("architecture", self.architecture.key)
        if key != self.architecture.key:  # the same shapes, but other dilation rates, say
            raise UserError(
                f"{self.weights}: expected weights of architecture {self.architecture.key}, got those of {key}, which "
                f"has the same shapes but other numbers; use the {ARCHITECTURE} that was saved with them"
            )
        return network.eval()

    def head_classes(self) -> int:
        """How many classes the weights tell apart: the channels that the network's last layer gives.

        Raises: UserError when the weights have no such layer.
        """
        from nas.training.pretrained import without_prefix
        from nas.training.weights import read_shapes

        node = last_layer(self.architecture.graph(2))
        shape = without_prefix(read_shapes(self.weights)).get(f"{node.name}.weight", ())
        if len(shape) != 4:
            raise UserError(
                f"{self.weights}: expected {node.name}.weight, the last layer of {self.name}, got no such weight; use "
                "the weights that were saved with this architecture"
            )
        return (shape[0] if node.kind == "conv" else shape[1]) // self.architecture.head.shuffle**2


@dataclass(frozen=True, kw_only=True)
class ScoreCard:
    """What a training ended with: scores (fractions) on the validation images, and how they were come by."""

    architecture: str  # its key
    data: str
    training_images: int
    validation_images: int
    size: tuple[int, int]
    parameters: int
    miou: float
    pixel_accuracy: float
    class_iou: Mapping[str, float | None]
    recipe: Recipe

    @classmethod
    def of(cls, architecture: Architecture, dataset: Dataset, recipe: Recipe, scores: Scores) -> ScoreCard:
        """The card of a network trained on `dataset` by `recipe`."""
        return cls(
            architecture=architecture.key,
            data=dataset.name,
            training_images=len(dataset.train),
            validation_images=len(dataset.validation),
            size=dataset.size,
            parameters=space.parameters(architecture, dataset.num_classes),
            miou=scores.miou,
            pixel_accuracy=scores.pixel_accuracy,
            class_iou=dict(zip(dataset.classes, scores.class_iou, strict=True)),
            recipe=recipe,
        )


def load_winner(folder: Path) -> tuple[Architecture, Path]:
    """The architecture and the weights file in a winner's folder, in a run's, or in what `nas train` left.

    Raises: UserError when one of them is not there.
    """
    found = _network_in(folder)
    if found is None:
        _require_finished(folder)
        raise UserError(f"{folder}: expected a folder with {ARCHITECTURE} and {WEIGHTS}, got neither; check the path")
    weights = found / WEIGHTS
    if not weights.is_file():
        raise UserError(f"{folder}: expected {WEIGHTS} beside {ARCHITECTURE}, got none; give --weights")
    require_certified(weights)
    return _certified_architecture(found), weights


def folder_named(name_or_path: str) -> Path | None:
    """The folder that a name or path means; None where it means a published network, a file, or nothing.

    A published network and a winner in the zoo keep their names, unless a folder of that name holds a network.
    """
    path, in_zoo = Path(name_or_path), name_or_path in zoo.names()
    is_known = in_zoo or name_or_path in space.published()
    if path.is_dir() and (not is_known or _holds_network(path)):
        return path
    return zoo.WINNERS / name_or_path if in_zoo else None


def folder_of(name_or_path: str) -> Path | None:
    """The folder of that name or path, or the winner's in it, that holds an architecture; None when there is none.

    Raises: UserError when there is a winner for each of several budgets.
    """
    folder = folder_named(name_or_path)
    return None if folder is None else _network_in(folder)


def _holds_network(folder: Path) -> bool:
    """Whether there is an architecture in a folder, in the winner in it, or in one of its winners."""
    places = (ARCHITECTURE, f"{WINNER}/{ARCHITECTURE}", f"{WINNERS}/[!.]*/{ARCHITECTURE}")
    return any(file.is_file() for place in places for file in folder.glob(place))


def _network_in(path: Path) -> Path | None:
    """The folder that holds an architecture: `path`, or the winner's in it; None when there is none.

    Raises: UserError when there is a winner for each of several budgets.
    """
    found = next((folder for folder in (path, path / WINNER) if (folder / ARCHITECTURE).is_file()), None)
    if found is None and (several := sorted(file.parent for file in path.glob(f"{WINNERS}/[!.]*/{ARCHITECTURE}"))):
        raise UserError(
            f"{path}: expected one network, got a folder with several winners; give one of "
            f"{', '.join(map(str, several))}"
        )
    return found


def deployed_graph(name_or_path: str, target: Target, size: tuple[int, int], num_classes: int) -> bytes | None:
    """The graph in a folder, where its certificate is about that at height and width `size` for so many classes on a
    target of this precision and kind of device, and not about the architecture in full precision.
    """
    certificate = certificate_of(name_or_path)
    if certificate is None or (not certificate.form and certificate.precision == "fp32"):
        return None
    latency, certified = certificate.latency, Target.parse(certificate.latency.target)
    same = (latency.height, latency.width, certificate.num_classes) == (*size, num_classes)
    same = same and certified.precision == target.precision and certified.on_cuda == target.on_cuda  # another INT8
    return certified_graph(name_or_path) if same and runtimes.reads_graphs(target) else None


def certified_graph(name_or_path: str) -> bytes:
    """The graph beside the certificate of a network in a winner's or a run's folder.

    Raises: UserError when there is none, or another than was certified.
    """
    folder = folder_of(name_or_path)
    file = Path(name_or_path) / MODEL if folder is None else folder / MODEL
    if not file.is_file():
        raise UserError(f"{file}: expected the graph that {CERTIFICATE} beside it certifies, got none; bring it back")
    require_certified(file)
    return file.read_bytes()


def certificate_of(name_or_path: str) -> Certificate | None:
    """The certificate of the network in a winner's or a run's folder; None for anything that has none.

    Raises: UserError when it cannot be read.
    """
    folder = folder_of(name_or_path)
    return read_certificate(folder) if folder is not None and (folder / CERTIFICATE).is_file() else None


def labelling_in(name_or_path: str) -> Labelling | None:
    """What the weights in a folder mean; None where there are none, or they do not say.

    Raises: UserError when they cannot be read.
    """
    folder = folder_of(name_or_path)
    if folder is None or not (folder / WEIGHTS).is_file():
        return None
    from nas.training.weights import read_metadata

    return read_labelling(read_metadata(folder / WEIGHTS), folder / WEIGHTS)


def load_trained(name_or_path: str, weights: str | None) -> Trained:
    """A name, YAML file or folder, with a weights file; a folder and the zoo bring their own unless one is given.

    Raises: UserError when one of them is missing or unreadable.
    """
    folder = folder_named(name_or_path)
    if folder is not None and weights is None:
        architecture, file = load_winner(folder)
    elif weights is None:
        load_architecture(name_or_path)  # a name that nothing has is told first
        _require_finished(Path(name_or_path))
        raise UserError(f"'{name_or_path}' is an architecture without weights; give --weights FILE.safetensors")
    else:
        architecture, file = load_architecture(name_or_path), Path(weights)
        require_certified(file)

    from nas.training.weights import read_metadata  # with PyTorch, not for what is refused above

    return Trained(
        name=name_or_path, architecture=architecture, weights=file, labelling=read_labelling(read_metadata(file), file)
    )


def load_architecture(name_or_path: str) -> Architecture:
    """A published network, a YAML file, or the architecture in a winner's, a run's or a training's folder.

    Raises: UserError when there is none, with the nearest name.
    """
    named = folder_named(name_or_path)
    if named is None:
        return space.load(name_or_path, others=zoo.names())
    folder = _network_in(named)
    if folder is None:
        _require_finished(named)
        raise UserError(f"{named}: expected a folder with {ARCHITECTURE}, got one without; check the path")
    return _certified_architecture(folder)


def require_certified(file: Path) -> None:
    """Refuse a file that is not the one which the certificate beside it speaks of; without a certificate, or one that
    does not name it, there is nothing to hold it to.

    Raises: UserError.
    """
    if not (file.is_file() and (file.parent / CERTIFICATE).is_file()):
        return
    certified = read_certificate(file.parent).sha256.get(file.name)
    if certified is not None and (digest := digest_of(file)) != certified:
        raise UserError(
            f"{file}: expected the file that {CERTIFICATE} beside it certifies (SHA-256 {certified[:12]}...), got "
            f"another or a changed one ({digest[:12]}...); bring the certified file back, or remove the certificate, "
            "which says nothing of this one"
        )


def digest_of(file: Path) -> str:
    """The SHA-256 of a file, as certificates have it."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _require_finished(folder: Path) -> None:
    """Raises: UserError for the folder of a search or of a training that has no network yet, with how to go on."""
    if (folder / STUDY).is_file() and (folder / TRIALS).is_dir():
        raise UserError(
            f"{folder}: expected a finished search, got one without a winner yet; wait for it, or go on with: "
            f"{RunFolder(folder).resume}"
        )
    if (folder / CHECKPOINT).is_file() or cached_record(folder / DATA_SEEN, DataSeen) is not None:
        raise UserError(
            f"{folder}: expected a finished training, got one that has not ended; wait for it, or give its `nas train` "
            "command again with --resume"
        )


def _certified_architecture(folder: Path) -> Architecture:
    require_certified(folder / ARCHITECTURE)
    return space.load(folder / ARCHITECTURE)
