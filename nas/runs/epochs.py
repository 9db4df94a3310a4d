"""The epochs of a training on disk: only finished epochs are recorded, and a finished epoch is never lost.

`progress.yaml` is the last file that an epoch writes: an epoch counts once it is listed there, and its weights and
checkpoint exist by then. The checkpoint holds the same history, so a process killed between the two loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nas.data import Dataset
from nas.data.share import WHOLE, Share
from nas.errors import DamagedError
from nas.runs.trained import CHECKPOINT, COMPUTE_MODE, PRETRAINED
from nas.runs.trial import Epoch, Pretrained, append_epoch, forget_epochs, read_progress
from nas.storage.files import write_text
from nas.storage.records import read_record
from nas.training.batch_loop import Guard
from nas.training.compute_mode import ComputeMode, device_of
from nas.training.probe import fastest_mode
from nas.training.recipe import Recipe
from nas.training.room import require_room
from nas.training.scores import EpochReport
from nas.training.together import told_by_first
from nas.training.trainer import Trainer
from space import Architecture, strict


def held_mode(
    folder: Path,
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    *,
    device: str,
    threads: int,
    guard: Guard,
    said: Callable[[str], None] | None = None,
) -> ComputeMode | None:
    """The compute mode (precision and memory layout) of the training in a folder. It is found by a probe before the
    first step and kept, so that a resumed training computes the same bits. None, for the usual mode, where the recipe
    asks for no probe. `threads`: torch threads of the whole process. `said` is called when a probe begins.

    Raises: UserError when the device is not there, or the record of the mode is damaged; ArchitectureError when
    training needs more memory than there is.
    """
    if not recipe.probe:
        return None
    file = folder / COMPUTE_MODE
    if file.is_file():
        kept = read_record(file, "the compute mode of a training", ComputeMode)
        if kept.device == device_of(device).type:  # the folder may have been moved
            return kept
    # A probe takes whole training steps, and no trainer has checked yet whether there is memory for one.
    whole = recipe.stages(architecture, None)
    require_room(architecture, recipe, dataset.size, dataset.num_classes, whole, device=str(device_of(device)))
    if said is not None:
        said("probes precisions and memory layouts with a few steps of each")
    torch.set_num_threads(threads)
    found = fastest_mode(architecture, recipe, dataset.size, dataset.num_classes, device=device, guard=guard)
    write_text(file, strict.dump(found))
    return found


def go_on(make: Callable[[], Trainer], folder: Path, share: Share = WHOLE) -> Trainer:
    """A trainer from `make`, restored to the last epoch finished in `folder`, or at the start where the files there are
    damaged. Where several processes train together, only the first writes there, and all go on from the same epoch.

    Raises: UserError when the checkpoint is of another architecture, recipe or data set.
    """
    if share.rank:
        trainer = make()
        if told_by_first(trainer.epoch, share):
            trainer.restore(folder / CHECKPOINT)
        return trainer
    trainer, recorded = make(), {each.epoch: each for each in read_progress(folder).history}
    try:
        if (folder / CHECKPOINT).is_file():
            trainer.restore(folder / CHECKPOINT)
    except DamagedError:  # it may have been restored in part
        trainer = make()
    history = recorded | {each.epoch: _epoch(each) for each in trainer.history}
    if not history.keys() >= set(range(1, trainer.epoch + 1)):  # a checkpoint of an earlier version has no history
        trainer = make()
    if trainer.taken is None:
        (folder / PRETRAINED).unlink(missing_ok=True)  # left by another training, interrupted in its first epoch
    else:
        write_text(folder / PRETRAINED, strict.dump(trainer.taken))
    forget_epochs(folder, after=trainer.epoch)
    for epoch in range(1, trainer.epoch + 1):
        if recorded.get(epoch) != history[epoch]:
            append_epoch(folder, history[epoch], _pretrained(trainer))
            recorded = {}  # `append_epoch` dropped all later epochs from the file
    told_by_first(trainer.epoch, share)
    return trainer


def commit_epoch(folder: Path, trainer: Trainer) -> None:
    """Write the checkpoint of a trainer after an epoch, then record the epoch as finished."""
    trainer.save(folder / CHECKPOINT)
    append_epoch(folder, _epoch(trainer.history[-1]), _pretrained(trainer))


def _pretrained(trainer: Trainer) -> Pretrained | None:
    taken = trainer.taken
    if taken is None:
        return None
    layers, fresh = len(taken.layers), len(taken.fresh)
    return Pretrained(layers=layers, of=layers + fresh, unused=len(taken.unused), reason=taken.reason)


def _epoch(report: EpochReport) -> Epoch:
    return Epoch(
        epoch=report.epoch,
        epochs=report.epochs,
        loss=report.loss,
        seconds=report.seconds,
        scores=report.scores,
        waited_for_data=report.waited_for_data,
        waited_for_lane=report.waited_for_lane,
        encoder=report.encoder,
    )
