"""Trained networks as files: an architecture, its weights, and what they tell apart.

What `nas train` and `nas search` leave can be used without naming the data set again: the classes, their colours and
the input size are in the metadata of the weights file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import space
from nas.data import MEAN, STD
from nas.training.recipe import Recipe
from nas.training.scores import Scores
from space import Architecture, UserError

if TYPE_CHECKING:
    from nas.data import Dataset
    from space.network import Network

ARCHITECTURE = "architecture.yaml"
WEIGHTS = "weights.safetensors"
SCORES = "scores.yaml"
CHECKPOINT = "checkpoint.pt"
"""Of a training that can go on."""


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What a network's outputs mean: class names, one RGB colour each, the size it was trained at, on which data."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    size: tuple[int, int]
    data: str

    @classmethod
    def of(cls, dataset: Dataset) -> Labelling:
        """The labelling of a data set."""
        return cls(classes=dataset.classes, palette=dataset.palette, size=dataset.size, data=dataset.name)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """An architecture and the file with its weights. `labelling` is None for weights that do not say what they mean."""

    name: str
    architecture: Architecture
    weights: Path
    labelling: Labelling | None

    def network(self, num_classes: int) -> Network:
        """The network with its weights, on the CPU, ready to predict.

        Raises: UserError when the weights belong to another architecture or number of classes.
        """
        from nas.training.weights import load_into, load_weights, read_metadata

        network = self.architecture.build(num_classes)
        load_into(network, load_weights(self.weights), str(self.weights))
        key = read_metadata(self.weights).get("architecture", self.architecture.key)
        if key != self.architecture.key:  # the same shapes, but other dilation rates, say
            raise UserError(
                f"{self.weights}: expected weights of architecture {self.architecture.key}, got those of {key}, which "
                f"has the same shapes but other numbers; use the {ARCHITECTURE} that was saved with them"
            )
        return network.eval()


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


def metadata(architecture: Architecture, labelling: Labelling) -> dict[str, str]:
    """What is written into a weights file beside the weights."""
    return {
        "architecture": architecture.key,
        "data": labelling.data,
        "classes": json.dumps(labelling.classes),
        "palette": json.dumps(labelling.palette),
        "size": f"{labelling.size[0]}x{labelling.size[1]}",
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
    }


def load_winner(folder: Path) -> tuple[Architecture, Path]:
    """The architecture and the weights file in a winner's folder, in a run's, or in what `nas train` left.

    Raises: UserError when one of them is not there.
    """
    found = folder_of(folder)
    if found is None:
        raise UserError(f"{folder}: expected a folder with {ARCHITECTURE} and {WEIGHTS}, got neither; check the path")
    weights = found / WEIGHTS
    if not weights.is_file():
        raise UserError(f"{folder}: expected {WEIGHTS} beside {ARCHITECTURE}, got none; give --weights")
    return space.load(found / ARCHITECTURE), weights


def folder_of(path: Path) -> Path | None:
    """The folder at `path`, or the winner's in it, that holds an architecture; None when there is none."""
    return next((folder for folder in (path, path / "winner") if (folder / ARCHITECTURE).is_file()), None)


def load_trained(name_or_path: str, weights: str | None) -> Trained:
    """A published name, YAML file or folder, with a weights file; a folder brings its own unless one is given.

    Raises: UserError when one of them is missing or unreadable.
    """
    from nas.training.weights import read_metadata

    path = Path(name_or_path)
    if path.is_dir() and weights is None:
        architecture, file = load_winner(path)
    elif weights is None:
        raise UserError(f"'{name_or_path}' is an architecture without weights; give --weights FILE.safetensors")
    else:
        architecture, file = load_architecture(name_or_path), Path(weights)
    return Trained(
        name=name_or_path, architecture=architecture, weights=file, labelling=_labelling(read_metadata(file), file)
    )


def load_architecture(name_or_path: str) -> Architecture:
    """A published network, a YAML file, or the architecture in a winner's, a run's or a training's folder.

    Raises: UserError when there is none, with the nearest published name.
    """
    path = Path(name_or_path)
    if not path.is_dir():
        return space.load(name_or_path)
    folder = folder_of(path)
    if folder is None:
        raise UserError(f"{path}: expected a folder with {ARCHITECTURE}, got one without; check the path")
    return space.load(folder / ARCHITECTURE)


def _labelling(words: Mapping[str, str], source: Path) -> Labelling | None:
    if "classes" not in words:
        return None
    try:
        classes: list[Any] = json.loads(words["classes"])
        palette: list[Any] = json.loads(words["palette"])
        size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", words["size"])
        if size is None or len(classes) != len(palette) or not all(isinstance(name, str) for name in classes):
            raise ValueError("they contradict each other")
        return Labelling(
            classes=tuple(classes),
            palette=tuple((int(red), int(green), int(blue)) for red, green, blue in palette),
            size=(int(size[1]), int(size[2])),
            data=words["data"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source}: expected metadata with classes, palette, size and data as `nas train` writes them ({error}); "
            "write the weights again"
        ) from None
