"""Data sets: lists of files, class names, colours, and the mapping from raw label values to classes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nas.data.long_work import Guard, ProgressMonitor, SilentMonitor
from nas.errors import DataError
from space import extensions, strict
from space.errors import nearest

SplitName = Literal["train", "validation", "test"]
SETS, GROUP = "nas.data.sets", "framebudget.data_sets"

IGNORE = 255
"""Label of void pixels after loading; they count neither in the loss nor in scores."""

ILLEGAL = -1
"""Entry of a label map for a raw value that has no meaning in the data set."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""RGB statistics of ImageNet, for values in 0..1. Images reach a network as (value - MEAN) / STD."""
SIZE_LIMITS = (8, 8192)
"""Smallest and largest height or width in pixels at which networks see pictures."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The data set of a study, as given by a study file or by flags; `load` turns it into a Dataset.

    Raises: DataError for an unknown name and for numbers out of range.
    """

    name: str = "road_scenes"
    """Name of a module in nas/data/sets: road_scenes (drawn here, no files needed), camvid, cityscapes or folder."""
    root: str | None = None
    """Folder that holds the data set; `~` is expanded. None for road_scenes."""
    size: tuple[int, int] = (180, 240)
    """Height and width in pixels at which networks see the pictures."""
    train_images: int | None = None
    """Number of training images to use, spread evenly over the split; None: all of them (road_scenes: 240)."""
    validation_images: int | None = None
    """Number of validation images to use, likewise (road_scenes: 60)."""
    seed: int = 0
    """Seed from which road scenes are drawn; other data sets accept only 0."""
    cache_gigabytes: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Disk space on this machine for the decoded pictures of all data sets together (1 GB is 10^9 bytes); None: half of
    the free space; 0: keep none.
    """

    def __post_init__(self) -> None:
        if self.name not in data_sets():
            raise DataError(f"data.name: there is no data set '{self.name}'; {nearest(self.name, data_sets())}")
        low, high = SIZE_LIMITS
        if len(self.size) != 2 or min(self.size) < low:
            raise DataError(f"data.size: expected height and width of at least {low} pixels, got {self.size}")
        if max(self.size) > high:
            raise DataError(f"data.size: expected height and width of at most {high} pixels, got {self.size}")
        for key, count in (("train_images", self.train_images), ("validation_images", self.validation_images)):
            if count is not None and count < 1:
                raise DataError(f"data.{key}: expected at least 1 image, got {count}")
        if self.seed < 0:
            raise DataError(f"data.seed: expected 0 or more, got {self.seed}")
        if self.cache_gigabytes is not None and not 0 <= self.cache_gigabytes < float("inf"):
            raise DataError(f"data.cache_gigabytes: expected 0 or more, got {self.cache_gigabytes}")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Pictures and their labels, in the same order."""

    images: tuple[Path, ...]
    labels: tuple[Path, ...]

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.labels)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set ready to be read. It holds paths, not pixels, so it is cheap to copy to another process."""

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """One RGB colour (0..255) per class."""
    label_map: tuple[int, ...]
    """256 entries: raw label value -> class 0..C-1, IGNORE for void, ILLEGAL for values that must not occur."""
    train: Split
    validation: Split
    size: tuple[int, int]
    """Height and width in pixels at which networks see the pictures."""
    test: Split = Split(images=(), labels=())
    """Test split, empty unless `load` was asked for it; nothing is trained or chosen on it."""
    categories: tuple[str, ...] = ()
    """Category of each class, if the data set groups its classes for scoring; otherwise empty."""
    own_values: tuple[int, ...] = ()
    """Label value of each class in predictions for the data set's benchmark; empty if it is the first one in
    `label_map`."""
    label_colours: tuple[tuple[int, int, int], ...] = ()
    """RGB colours of the raw label values 0, 1, ... in labels that are colour masks; empty if there are none."""
    notes: tuple[str, ...] = ()
    """Notes for the user on what was left out, or how a file was read, and why; one sentence each."""
    cache_gigabytes: float | None = None
    """See DataSpec; `load` sets it."""

    def __post_init__(self) -> None:
        assert len(self.palette) == len(self.classes) <= IGNORE
        assert len(self.label_map) == 256
        assert len(self.categories) in (0, len(self.classes))
        assert len(self.own_values) in (0, len(self.classes))
        assert self.label_map[IGNORE] == IGNORE, "windows that reach outside a label are filled with raw 255"

    @property
    def num_classes(self) -> int:
        """Number of classes that a network tells apart, not counting void."""
        return len(self.classes)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Value of each class in the data set's own labels, which exported predictions use."""
        return self.own_values or tuple(self.label_map.index(index) for index in range(self.num_classes))

    def split(self, name: SplitName) -> Split:
        """The split called "train", "validation" or "test"."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return splits[name]


def data_sets() -> tuple[str, ...]:
    """Names of all data sets: the modules in nas/data/sets, and those of other packages (see `space.extensions`)."""
    return tuple(extensions.modules(SETS, GROUP, separator="_"))


def load(
    spec: DataSpec, *, test: bool = False, guard: Guard = nullcontext, progress: ProgressMonitor | None = None
) -> Dataset:
    """Load the data set that `spec` describes: find and pair its files, without opening any picture (see `check`).

    The test split is looked for only if `test` is true, so that faults in it do not get in the way of other work.
    Pictures that have to be made first are made here, each inside a `guard()`, and reported to `progress`.

    Raises: DataError when a folder is missing, an image has no label or the reverse, a split is empty or absent, or
    pictures cannot be stored.
    """
    module = extensions.load(SETS, GROUP, spec.name, separator="_", needs=("load",))
    if hasattr(module, "prepare"):
        module.prepare(spec, guard, progress or SilentMonitor())
    dataset = module.load(spec)
    assert isinstance(dataset, Dataset)
    dataset = replace(dataset, cache_gigabytes=spec.cache_gigabytes)
    if not test:
        return dataset
    found: Split | None = module.load_test(spec) if hasattr(module, "load_test") else None
    if found is None:
        where = f" in {spec.root}" if spec.root else ""
        raise DataError(f"{spec.name}{where}: expected a test split with labels, got only train and val")
    return replace(dataset, test=found)


def label_map(classes: int, void: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The label map for labels whose values already are 0..classes-1; `void` values and 255 are ignored."""
    return tuple(
        value if value < classes else IGNORE if value in void or value == IGNORE else ILLEGAL for value in range(256)
    )
