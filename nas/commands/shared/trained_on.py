"""The data and input size that weights were trained on, which are the defaults of a command."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nas.commands.shared import common

if TYPE_CHECKING:
    from nas.data import Dataset, DataSpec
    from nas.runs.labelling import Labelling
    from nas.runs.trained import Trained


def data_of(options: argparse.Namespace, trained: Trained, *, test: bool = False) -> tuple[Dataset, DataSpec]:
    """The data set of `spec_of`, with its test split if `test`, and that spec.

    Raises: UserError for other classes than those of the weights, and as `spec_of`; DataError.
    """
    from space.errors import UserError

    spec, known = spec_of(options, trained), trained.labelling
    dataset = common.loaded(spec, test=test)
    if known is not None and known.classes != dataset.classes:
        raise UserError(
            f"--data: expected the classes of the weights ({', '.join(known.classes)}), got those of "
            f"{dataset.name} ({', '.join(dataset.classes)}); give {_data_hint(known)}"
        )
    if known is not None:
        _note_differences(known, dataset.name, spec.size)
    return dataset, spec


def spec_of(options: argparse.Namespace, trained: Trained) -> DataSpec:
    """The data that --data names; without it, the data that the weights were trained on. For a network inside a run's
    folder, the run's study names them.

    Raises: UserError when those cannot be found; DataError.
    """
    from dataclasses import replace
    from pathlib import Path

    from nas.data import DataSpec
    from nas.runs.data_seen import seen_root
    from nas.runs.folder import RunFolder, run_around
    from nas.storage.files import expanded
    from space.errors import UserError

    known = trained.labelling
    usual = common.input_size(common.DEFAULT_INPUT) if known is None else known.size
    size = common.input_size(options.input) if options.input else usual
    run = run_around(trained.weights.parent)
    study = None if run is None else RunFolder(run).study().data
    if options.data is not None:
        return common.data_spec(options.data, size)
    if study is not None and known is not None and study.name == known.data:
        if study.root is not None and not expanded(study.root).is_dir():
            raise UserError(
                f"--data: expected the data of {run}, but {study.root} is not a folder here; give {_data_hint(known)}"
            )
        return replace(study, size=size)
    if known is not None and known.data == common.DEFAULT_DATA:
        return common.data_spec(common.DEFAULT_DATA, size)
    if known is not None and (root := seen_root(trained.weights.parent)) is not None:
        if not Path(root).is_dir():
            raise UserError(
                f"--data: expected the data that {trained.name} was trained on, but there is no folder {root}; give "
                f"{_data_hint(known)}"
            )
        return DataSpec(name=known.data, root=root, size=size)
    why = "" if known is None else f", and {trained.name} does not say where its training data are"
    raise UserError(f"--data: expected the data set to work on, got none{why}; give {_data_hint(known)}")


def labelling_of(options: argparse.Namespace, trained: Trained) -> Labelling:
    """The classes and the input size of a network, from its weights, --data and --input. For weights that do not state
    them, the last layer gives the number of classes.

    Raises: UserError when the weights have no such layer.
    """
    from dataclasses import replace

    from nas.runs.labelling import Labelling

    if options.data is not None:
        return Labelling.of(data_of(options, trained)[0])
    if trained.labelling is None:
        return Labelling.unnamed(trained.head_classes(), common.input_size(options.input or common.DEFAULT_INPUT))
    size = common.input_size(options.input) if options.input else trained.labelling.size
    _note_differences(trained.labelling, trained.labelling.data, size)
    return replace(trained.labelling, size=size)


def _note_differences(known: Labelling, data: str, size: tuple[int, int]) -> None:
    """Print a note where the data or the input size differ from those of the training."""
    (height, width), (trained_height, trained_width) = size, known.size
    if data != known.data:
        common.say(f"note: the weights were trained on {known.data}, but are used on {data}")
    if size != known.size:
        common.say(
            f"note: the weights were trained at {trained_height}x{trained_width}, but are used at {height}x{width}"
        )


def _data_hint(known: Labelling | None) -> str:
    if known is None:
        return "--data SET:DIR"
    return f"--data {known.data}" if known.data == common.DEFAULT_DATA else f"--data {known.data}:DIR"
