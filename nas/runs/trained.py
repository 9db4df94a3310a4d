"""Trained networks as files: an architecture, its weights, and the classes that they distinguish.

Wherever a folder is expected, the name of a winner in the zoo (`nas.runs.zoo`) stands for its folder. A folder with a
certificate is used only if its files are the certified ones.
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
from nas.runs.certificate import CERTIFICATE, MODEL, Certificate, read_certificate
from nas.runs.data_seen import FILE as DATA_SEEN
from nas.runs.data_seen import DataSeen
from nas.runs.folder import STUDY, TRIALS, WINNER, WINNERS, RunFolder
from nas.runs.initial_weights import RECORD, TENSORS
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
"""State of a training, from which it can be resumed."""
PRETRAINED = "pretrained.yaml"
"""Beside a training with pretrained weights: the names of all layers and tensors that used them, and of the others."""
COMPUTE_MODE = "form.yaml"  # an earlier name; folders of trainings have it
"""The compute mode (precision and memory layout) of a training, where a probe has chosen it."""
OF_A_TRAINING = (
    DATA_SEEN,
    RECORD,
    TENSORS,
    COMPUTE_MODE,
    PRETRAINED,
    ARCHITECTURE,
    CHECKPOINT,
    PROGRESS,
    SCORES,
    WEIGHTS,
)
"""Everything that `nas train` writes in its folder, apart from logs."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """An architecture and the file with its weights. `labelling` is None for weights without that metadata."""

    name: str
    architecture: Architecture
    weights: Path
    labelling: Labelling | None

    def network(self, num_classes: int) -> Network:
        """The network with its weights, on the CPU, ready to predict.

        Raises: UserError when the weights belong to another architecture or number of classes, or have unusable values.
        """
        from nas.training.pretrained import without_prefix
        from nas.training.weights import load_into, load_weights, read_metadata, require_usable

        network, weights = self.architecture.build(num_classes), without_prefix(load_weights(self.weights))
        require_usable(weights, self.weights)
        load_into(network, weights, str(self.weights))
        key = read_metadata(self.weights).get("architecture", self.architecture.key)
        if key != self.architecture.key:  # the same shapes, but other dilation rates, for example
            raise UserError(
                f"{self.weights}: expected weights of architecture {self.architecture.key}, got those of {key}, which "
                f"has the same shapes but differs otherwise; use the {ARCHITECTURE} that was saved with them"
            )
        return network.eval()

    def head_classes(self) -> int:
        """The number of classes that the weights distinguish, from the output channels of the network's last layer.

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
    """The result of a training: scores (fractions) on the validation images, and how the network was trained."""

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
        """The score card of a network trained on `dataset` by `recipe`."""
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
    """The architecture and the weights file in the folder of a winner, a run or a training.

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
    """The folder that a name or path refers to; None for a published network, a file or an unknown name.

    A folder that has the name of a published network or of a winner in the zoo counts only if it holds a network.
    """
    path, in_zoo = Path(name_or_path), name_or_path in zoo.names()
    is_known = in_zoo or name_or_path in space.published()
    if path.is_dir() and (not is_known or _holds_network(path)):
        return path
    return zoo.WINNERS / name_or_path if in_zoo else None


def folder_of(name_or_path: str) -> Path | None:
    """The folder of `folder_named`, or the winner's folder inside it, if one of them holds an architecture; else None.

    Raises: UserError when there are winners for several budgets.
    """
    folder = folder_named(name_or_path)
    return None if folder is None else _network_in(folder)


def _holds_network(folder: Path) -> bool:
    """Whether a folder holds an architecture, in itself or in the folder of a winner in it."""
    places = (ARCHITECTURE, f"{WINNER}/{ARCHITECTURE}", f"{WINNERS}/[!.]*/{ARCHITECTURE}")
    return any(file.is_file() for place in places for file in folder.glob(place))


def _network_in(path: Path) -> Path | None:
    """The folder that holds an architecture: `path`, or the winner's folder in it; None if neither does.

    Raises: UserError when there are winners for several budgets.
    """
    found = next((folder for folder in (path, path / WINNER) if (folder / ARCHITECTURE).is_file()), None)
    if found is None and (several := sorted(file.parent for file in path.glob(f"{WINNERS}/[!.]*/{ARCHITECTURE}"))):
        raise UserError(
            f"{path}: expected one network, got a folder with several winners; give one of "
            f"{', '.join(map(str, several))}"
        )
    return found


def deployed_graph(name_or_path: str, target: Target, size: tuple[int, int], num_classes: int) -> bytes | None:
    """The graph in a folder, if its certificate is about that graph, and not the network in full precision, at height
    and width `size`, for this number of classes, on a target of the same precision and kind of device; otherwise None.
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

    Raises: UserError when there is none, or it is not the certified one.
    """
    folder = folder_of(name_or_path)
    file = Path(name_or_path) / MODEL if folder is None else folder / MODEL
    if not file.is_file():
        raise UserError(f"{file}: expected the graph that {CERTIFICATE} beside it certifies, got none; restore it")
    require_certified(file)
    return file.read_bytes()


def certificate_of(name_or_path: str) -> Certificate | None:
    """The certificate of the network in a winner's or a run's folder; None where there is none.

    Raises: UserError when it cannot be read.
    """
    folder = folder_of(name_or_path)
    return read_certificate(folder) if folder is not None and (folder / CERTIFICATE).is_file() else None


def labelling_in(name_or_path: str) -> Labelling | None:
    """The labelling of the weights in a folder; None where there are no weights, or they have no such metadata.

    Raises: UserError when they cannot be read.
    """
    folder = folder_of(name_or_path)
    if folder is None or not (folder / WEIGHTS).is_file():
        return None
    from nas.training.weights import read_metadata

    return read_labelling(read_metadata(folder / WEIGHTS), folder / WEIGHTS)


def load_trained(name_or_path: str, weights: str | None) -> Trained:
    """A trained network from a name, YAML file or folder, and a weights file. Folders and the zoo have weights of their
    own, which are used unless a file is given.

    Raises: UserError when one of them is missing or unreadable.
    """
    folder = folder_named(name_or_path)
    if folder is not None and weights is None:
        architecture, file = load_winner(folder)
    elif weights is None:
        load_architecture(name_or_path)  # an unknown name is the first error to report
        _require_finished(Path(name_or_path))
        raise UserError(f"'{name_or_path}' is an architecture without weights; give --weights FILE.safetensors")
    else:
        architecture, file = load_architecture(name_or_path), Path(weights)
        require_certified(file)

    from nas.training.weights import read_metadata  # imports PyTorch, which the errors above must not wait for

    return Trained(
        name=name_or_path, architecture=architecture, weights=file, labelling=read_labelling(read_metadata(file), file)
    )


def load_architecture(name_or_path: str) -> Architecture:
    """The architecture of a published network, a YAML file, or the folder of a winner, a run or a training.

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
    """Refuse a file that differs from the one that the certificate beside it names. Without a certificate, or with one
    that does not name the file, every file is accepted.

    Raises: UserError.
    """
    if not (file.is_file() and (file.parent / CERTIFICATE).is_file()):
        return
    certified = read_certificate(file.parent).sha256.get(file.name)
    if certified is not None and (digest := digest_of(file)) != certified:
        raise UserError(
            f"{file}: expected the file that {CERTIFICATE} beside it certifies (SHA-256 {certified[:12]}...), got "
            f"another or a changed one ({digest[:12]}...); restore the certified file, or remove the certificate, "
            "which does not apply to this one"
        )


def digest_of(file: Path) -> str:
    """The SHA-256 of a file, as in certificates."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _require_finished(folder: Path) -> None:
    """Raises: UserError for the folder of an unfinished search or training, which says how to resume it."""
    if (folder / STUDY).is_file() and (folder / TRIALS).is_dir():
        raise UserError(
            f"{folder}: expected a finished search, got one without a winner yet; wait for it, or go on with: "
            f"{RunFolder(folder).resume}"
        )
    if (folder / CHECKPOINT).is_file() or cached_record(folder / DATA_SEEN, DataSeen) is not None:
        raise UserError(
            f"{folder}: expected a finished training, got one that is not finished; wait for it, or repeat its "
            "`nas train` command with --resume"
        )


def _certified_architecture(folder: Path) -> Architecture:
    require_certified(folder / ARCHITECTURE)
    return space.load(folder / ARCHITECTURE)
