"""Training one architecture epoch by epoch; it can be stopped and continued between any two epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from nas.data import Dataset
from nas.data.share import WHOLE, Share
from nas.errors import DamagedError, TrainingError
from nas.export.grid import Grid
from nas.host.room import is_shortage
from nas.host.words import one_line
from nas.training.averaging import Average
from nas.training.batch_loop import TOGETHER, Count, Guard, guarded, uncounted
from nas.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.training.classes import LabelledClasses
from nas.training.compute_mode import ComputeMode, device_of, usual_mode
from nas.training.encoder_stage import EncoderModel
from nas.training.evaluation import evaluate_batches
from nas.training.fake_quantization import FakeQuantized
from nas.training.loaders import make_loaders
from nas.training.normalisation import reestimate_batch_norm
from nas.training.optimisation import restore_optimizer
from nas.training.recipe import Recipe
from nas.training.room import require_room, require_shares
from nas.training.schedules import Schedules
from nas.training.scores import EpochReport, Scores
from nas.training.start import StartingNetwork, starting_network
from nas.training.stepper import Model, Stepper
from nas.training.together import share_norms
from space import Architecture, strict
from space.errors import UserError
from space.network import lone_values_kept
from space.paths import are_of_training_form, folded_state


class Trainer:
    """One training: `while not trainer.finished: report = trainer.run_epoch()`.

    On the CPU, with the same number of threads, a training that is saved and restored between any two epochs ends with
    the same bits as one that was not, also in another process. Nothing is drawn from, or left in, torch's global random
    state.
    """

    def __init__(
        self,
        architecture: Architecture,
        dataset: Dataset,
        recipe: Recipe,
        *,
        device: str = "cpu",
        threads: int | None = None,
        weights: Mapping[str, Tensor] | None = None,
        init: Mapping[str, Tensor] | None = None,
        teacher: nn.Module | None = None,
        grid: Grid | None = None,
        rungs: Sequence[int] = (),
        compute_mode: ComputeMode | None = None,
        guard: Guard = nullcontext,
        count: Count = uncounted,
        share: Share = WHOLE,
    ) -> None:
        """Build the network and everything around it; nothing is trained yet.

        - `device`: name of the device to train on.
        - `threads`: threads of torch (for the whole process) and of loaders; None: the numbers they use by default.
        - `weights`: inference weights to start from; auxiliary heads start afresh.
        - `init`: tensors of any network that `nas.training.pretrained` knows; what fits is taken.
        - `teacher`: trained network, moved to `device`, whose logits are imitated in addition to the labels.
        - `grid`: grid of an INT8 form, to which the weights and activations of training and scoring are rounded.
        - `rungs`: ascending epochs at which a learning-rate schedule ends; the training ends at the last one.
        - `compute_mode`: precision and memory layout on this device; None: the usual mode.
        - `guard`: entered around each step (several on a GPU), each scored batch and every few labels to be counted.
        - `count`: called with the number of images of every step and every scored batch.
        - `share`: part of every batch for this process, if several train one network together.

        Without `rungs` there is one schedule of all epochs. `nas.training.start` decides whether re-parameterised
        convolutions train with several paths. Processes that train together make the same calls, except that `weights`
        and `save` are called only in the first.

        Raises: UserError when there is no such device, or the weights do not fit or belong to no known network;
        ArchitectureError when training needs more memory than there is.
        """
        self.architecture = architecture
        self.dataset = dataset
        self.recipe = recipe
        self._grid = grid
        self._rungs = tuple(rungs) or (recipe.epochs,)
        assert 0 < self._rungs[0] <= self._rungs[-1] <= recipe.epochs, (self._rungs, recipe.epochs)
        self.epoch = 0
        self.history: tuple[EpochReport, ...] = ()
        self.device = device_of(device)
        self._guard = guard
        self._classes = LabelledClasses(dataset, guard)
        self._count = count if share.is_whole else lambda images: count(images * share.count)
        self._share = share
        self._threads = threads
        room = partial(
            require_room, architecture, recipe, dataset.size, dataset.num_classes, device=str(self.device), share=share
        )
        room(recipe.stages(architecture, None))
        if threads is not None:
            torch.set_num_threads(threads)
        self._start = partial(
            starting_network,
            architecture,
            dataset.num_classes,
            auxiliary=grid is None,
            randomness=partial(self._randomness, epoch=0),
            weights=weights,
            init=init,
            source=recipe.init or "init",
        )
        start = self._start()
        self.encoder_epochs = 0
        """Number of epochs at the start that train the encoder alone; their scores are those of the encoder under its
        own classifier."""
        if weights is None and teacher is None and not start.has_decoder_weights:
            room(recipe.stages(architecture, self._rungs[0])[1:])
            self.encoder_epochs = recipe.encoder_epochs(architecture, self._rungs[0])
        self._given_compute_mode = compute_mode
        self._train_from(start)
        self._teacher = None if teacher is None else teacher.to(self.device).eval()
        self._begin_stage()
        self._began = time.perf_counter(), *self._waited()

    def _train_from(self, start: StartingNetwork) -> None:
        """Make `start` the network that is trained."""
        self._trained_keys, self._inference_keys = start.trained_names, start.inference_names
        self.is_reparameterized = start.is_reparameterized
        """Whether re-parameterised convolutions train with several paths."""
        self.taken = start.taken
        """What was taken from `init`."""
        share_norms(start.network, self._share)
        self.compute_mode = self._given_compute_mode or usual_mode(start.network, self.device, self.recipe)
        # torch's annotations leave memory_format out.
        self.network = start.network.to(self.device, memory_format=self.compute_mode.memory_format)  # type: ignore[call-overload]

    def _begin_stage(self) -> None:
        """Set up the stage of the next epoch: the encoder alone, or the whole network."""
        recipe, model = self.recipe, cast("Model", self.network)
        if self.epoch < self.encoder_epochs:
            assert recipe.encoder is not None, "it has epochs"
            with self._randomness(epoch=0):
                model = EncoderModel(self.network, recipe.encoder)
            model = model.to(self.device, memory_format=self.compute_mode.memory_format)  # type: ignore[call-overload]
            recipe = recipe.of_encoder()
        elif self._grid is not None:
            model = FakeQuantized(self.network, self._grid)
        require_shares(min(recipe.batch_size, len(self.dataset.train)), self._share.count)
        self._model: Model = model
        self._average = Average(model, recipe.ema_decay) if recipe.ema_decay else None
        taken = set() if self.taken is None else set(self.taken.layers)
        self._stepper = Stepper(
            model,
            recipe,
            self.compute_mode,
            self.device,
            class_weights=self._classes.weights(recipe, self.device),
            teacher=self._teacher,
            pretrained=[each for name, each in self.network.named_parameters() if name.rpartition(".")[0] in taken],
            share=self._share,
        )
        self._loaders = make_loaders(
            self.architecture,
            self.dataset,
            recipe,
            encoder=isinstance(model, EncoderModel),
            device=str(self.device),
            threads=self._threads,
            share=self._share,
            class_uniform=self._classes.uniform(recipe),
        )

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step; before the first step, that of the recipe."""
        return self._stepper.learning_rate

    @property
    def finished(self) -> bool:
        """Whether all epochs of the recipe are done, or those up to the last rung."""
        return self.epoch >= self._rungs[-1]

    def run_epoch(self) -> EpochReport:
        """Train one epoch, and score the network on the validation images if the epoch is one of those to be scored.

        Raises: TrainingError when the loss or a scored logit is not finite; DataError when a batch cannot be read.
        """
        assert not self.finished, "the training is finished; check `finished` first"
        if isinstance(self._model, EncoderModel) and self.epoch >= self.encoder_epochs:
            self._begin_stage()
        self._began = time.perf_counter(), *self._waited()
        with self._randomness(self.epoch + 1):
            loss = self._train_epoch()
        self.epoch += 1
        scores = self._score() if self._schedules.scores_after(self.epoch) else None
        seconds, data, lane = self._spent()
        report = EpochReport(
            epoch=self.epoch,
            epochs=self.recipe.epochs,
            loss=loss,
            scores=scores,
            encoder=isinstance(self._model, EncoderModel),
            seconds=seconds,
            waited_for_data=round(data, 4),
            waited_for_lane=round(lane, 4),
        )
        self.history = (*self.history, report)
        return report

    @property
    def images_to_come(self) -> int:
        """Number of images of the next epoch: those that are trained on, and those that are scored after it, if any."""
        scored = len(self.dataset.validation) if self._schedules.scores_after(self.epoch + 1) else 0
        return len(self.dataset.train) + scored

    @property
    def _schedules(self) -> Schedules:
        return Schedules(ends=(self.encoder_epochs, *self._rungs), score_every=self.recipe.score_every)

    def waits(self) -> tuple[float, float]:
        """The shares (0..1) of the current epoch's time so far spent waiting for batches and for the guard."""
        return self._spent()[1:]

    def weights(self) -> dict[str, Tensor]:
        """A copy of the inference weights on the CPU: those of `architecture.build(num_classes)`."""
        return _copied(folded_state(self._kept), self._inference_keys)

    def trained_weights(self) -> dict[str, Tensor]:
        """A copy of the weights before paths are folded into one convolution: what a later training starts from."""
        return _copied(self._kept.state_dict(), self._trained_keys)

    @property
    def _scored(self) -> nn.Module:
        """The model to score: the average over the steps, or the model after the last step."""
        return self._model if self._average is None else self._average.module

    @property
    def _kept(self) -> nn.Module:
        """The network to keep: the one in the model that is scored."""
        scored = self._scored
        return scored.network if isinstance(scored, (EncoderModel, FakeQuantized)) else scored

    def save(self, path: str | Path) -> None:
        """Write everything that `restore` needs; an existing file is replaced only by a complete one."""
        checkpoint = Checkpoint(
            epoch=self.epoch,
            identity=self._identity(),
            network=self._model.state_dict(),
            optimizer=self._stepper.optimizer.state_dict(),
            scaler=self._stepper.scaler.state_dict(),
            average={} if self._average is None else self._average.state_dict(),
            history=self.history,
        )
        save_checkpoint(path, checkpoint)

    def restore(self, path: str | Path) -> None:
        """Continue the training that was saved to `path`.

        Raises: DamagedError when the file is damaged, after which this trainer cannot be used; UserError when the file
        belongs to another architecture, recipe or data set.
        """
        checkpoint = load_checkpoint(path, self._identity())
        try:
            self.epoch = int(checkpoint.epoch) - 1  # the last one that was trained
            # Earlier versions started differently from `init`: always with several paths, and with the encoder alone.
            several = are_of_training_form(checkpoint.network)
            if other_form := several != self.is_reparameterized:
                self._train_from(self._start(several=several))
            if checkpoint.history:
                began = checkpoint.history[0].encoder
                self.encoder_epochs = self.recipe.encoder_epochs(self.architecture, self._rungs[0]) if began else 0
            if other_form or isinstance(self._model, EncoderModel) != (max(self.epoch, 0) < self.encoder_epochs):
                self._begin_stage()
            self._model.load_state_dict(checkpoint.network)
            restore_optimizer(self._stepper.optimizer, checkpoint.optimizer)
            if checkpoint.scaler:
                self._stepper.scaler.load_state_dict(dict(checkpoint.scaler))
            if self._average is not None:
                self._average.load_state_dict(checkpoint.average)
            self.epoch += 1
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            if is_shortage(error) or isinstance(error, UserError):  # raised by a stage that begins here
                raise
            reason = one_line(error, 200)
            if checkpoint.history:  # its checksum was right
                raise UserError(
                    f"{path}: expected the state of this training, got that of another version ({reason}); continue "
                    "with the version that wrote it, or start a new training"
                ) from None
            raise DamagedError(f"{path}: expected the state of this training, got a damaged one ({reason})") from None
        self.history = tuple(checkpoint.history)

    def _train_epoch(self) -> float:
        """Train one epoch; returns the mean loss over its steps."""
        self._model.train()
        taken: list[Tensor] = []
        losses: list[float] = []

        def settle() -> None:
            for loss in torch.stack(taken).tolist():
                if not math.isfinite(loss):
                    raise self._diverged(len(losses) + 1, f"a loss of {loss}")
                losses.append(loss)
            taken.clear()

        together = TOGETHER if self.device.type == "cuda" else 1
        epoch = self._loaders.train.epoch(self.epoch)
        images_of = closing(guarded(epoch, self._guard, together=together, settle=settle, share=self._share))
        with lone_values_kept(self.network), images_of as batches:
            for images, labels in batches:
                taken.append(self._stepper.take(images, labels, *self._place(len(losses) + len(taken))))
                if self._average is not None:
                    self._average.follow(self._model)
                self._count(len(images))
        assert losses, "a loader of the training split gives at least one batch"
        if not all(parameter.isfinite().all() for parameter in self._model.parameters()):
            raise self._diverged(len(losses), "weights that are not finite")  # only by the last step's gradient
        total = 0.0
        for loss in losses:
            total += loss
        return total / len(losses)

    def _place(self, step: int) -> tuple[int, int]:
        """The position in its schedule of a step of this epoch, and the length of the schedule in steps."""
        steps = len(self._loaders.train)
        begin, end = self._schedules.around(self.epoch + 1)
        return (self.epoch - begin) * steps + step, (end - begin) * steps

    def _waited(self) -> tuple[float, float]:
        """Seconds spent waiting for batches and for the guard so far."""
        each = [loader.waited for loader in self._loaders.each]
        return sum(one.data_seconds for one in each), sum(one.guard_seconds for one in each)

    def _spent(self) -> tuple[float, float, float]:
        """Seconds of the current epoch so far, and the shares of them spent waiting for batches and for the guard."""
        began, *before = self._began
        seconds = time.perf_counter() - began
        data, lane = ((now - then) / seconds for now, then in zip(self._waited(), before, strict=True))
        return seconds, data, lane

    def _diverged(self, step: int, came: str) -> TrainingError:
        return TrainingError(
            f"epoch {self.epoch + 1}, step {step} of {self.architecture.key}: expected finite numbers, "
            f"got {came}; lower the learning rate ({self.recipe.learning_rate}), raise warmup_steps, "
            "set gradient_clip, or turn mixed_precision off"
        )

    def _score(self) -> Scores:
        if (statistics := self._loaders.statistics) is not None:
            # Before every scoring, not only the last: scores that decide whether a trial goes on must not depend on how
            # far the statistics lag behind. Training never reads them, except in batches of one (`lone_values_kept`).
            reestimate_batch_norm(
                self._scored,
                statistics.loader,
                statistics.batches,
                epoch=self.epoch,
                guard=self._guard,
                share=self._share,
            )
        batches, classes = self._loaders.validation.epoch(0), self.dataset.num_classes
        try:
            return evaluate_batches(self._scored, batches, classes, self._guard, self._count, self._share)
        except TrainingError as error:
            raise TrainingError(f"epoch {self.epoch} of {self.architecture.key}: {error}") from None

    @contextmanager
    def _randomness(self, epoch: int) -> Iterator[None]:
        """Context whose random numbers depend only on the seed and the epoch; the global state is restored afterwards.
        In an epoch (from 1) each process has its own numbers, since dropout acts on different images in each.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            own = self._share.rank << 52 if epoch else 0  # beyond all sums of seeds and epochs
            torch.manual_seed(own + self.recipe.seed * 1_000_003 + epoch)
            yield

    def _identity(self) -> dict[str, str]:
        data = self.dataset
        return {
            "architecture": f"key: {self.architecture.key}\n{self.architecture.to_yaml()}",
            "recipe": strict.dump(replace(self.recipe, score_every=None)),  # which changes no weight
            "data set": f"name: {data.name}\nsize: {data.size}\nclasses: {', '.join(data.classes)}\n"
            f"training images: {len(data.train.images)}\nvalidation images: {len(data.validation.images)}",
        }


def _copied(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    return {name: state[name].detach().cpu().contiguous().clone() for name in names}
