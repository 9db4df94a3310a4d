"""The epochs of a training on disk: what is there is finished, and what is finished stays.

Of the files that an epoch writes, `progress.yaml` is the last: an epoch counts when it is there, and then weights and
checkpoint are too. The checkpoint holds the same history, so that a process killed between the two loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from nas.data import Dataset
from nas.data.share import WHOLE, Share
from nas.errors import DamagedError
from nas.runs.trained import CHECKPOINT, FORM, PRETRAINED
from nas.runs.trial import Epoch, Pretrained, append_epoch, forget_epochs, read_progress
from nas.storage.files import write_text
from nas.storage.records import read_record
from nas.training.batch_loop import Guard
from nas.training.form import Form, device_of
from nas.training.probe import fastest_form
from nas.training.recipe import Recipe
from nas.training.room import require_room
from nas.training.scores import EpochReport
from nas.training.together import told_by_first
from nas.training.trainer import Trainer
from space import Architecture, strict


def held_form(
    folder: Path,
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    *,
    device: str,
    threads: int,
    guard: Guard,
    said: Callable[[str], None] | None = None,
) -> Form | None:
    """The form that the training in a folder computes in: found before its first step and kept there, so that it goes
    on with the same bits. None, for the usual one, where the recipe asks for no probe. `threads`: of torch, for the
    whole process. `said` hears that a probe begins.

    Raises: UserError when the device is not there, or the file that says so is damaged; ArchitectureError when training
    needs more memory than there is.
    """
    if not recipe.probe:
        return None
    file = folder / FORM
    if file.is_file():
        kept = read_record(file, "the form of a training", Form)
        if kept.device == device_of(device).type:  # the folder may have been moved
            return kept
    # A probe takes whole steps, and no trainer has asked yet whether there is room for one.
    whole = recipe.stages(architecture, None)
    require_room(architecture, recipe, dataset.size, dataset.num_classes, whole, device=str(device_of(device)))
    if said is not None:
        said("probes precisions and memory layouts by a few steps of each")
    torch.set_num_threads(threads)
    found = fastest_form(architecture, recipe, dataset.size, dataset.num_classes, device=device, guard=guard)
    write_text(file, strict.dump(found))
    return found


def go_on(make: Callable[[], Trainer], folder: Path, share: Share = WHOLE) -> Trainer:
    """A trainer that `make` makes, at the last epoch finished in `folder`: at none where its files are damaged. Of
    several processes that train together only the first writes there, and all go on from where it does.

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
        (folder / PRETRAINED).unlink(missing_ok=True)  # of another one that was ended in its first epoch
    else:
        write_text(folder / PRETRAINED, strict.dump(trainer.taken))
    forget_epochs(folder, after=trainer.epoch)
    for epoch in range(1, trainer.epoch + 1):
        if recorded.get(epoch) != history[epoch]:
            append_epoch(folder, history[epoch], _pretrained(trainer))
            recorded = {}  # it forgets those after it
    told_by_first(trainer.epoch, share)
    return trainer


def commit_epoch(folder: Path, trainer: Trainer) -> None:
    """Write the checkpoint of a trainer after an epoch, and then that the epoch is finished."""
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
