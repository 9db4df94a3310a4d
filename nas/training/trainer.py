"""Training one architecture, epoch by epoch, so that it can be stopped and continued anywhere between two."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
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
from nas.training.averaging import Average
from nas.training.batch_loop import TOGETHER, Count, Guard, guarded, uncounted
from nas.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.training.classes import LabelledClasses
from nas.training.encoder_stage import EncoderModel
from nas.training.evaluation import evaluate_batches
from nas.training.fake_quantization import FakeQuantized
from nas.training.form import Form, device_of, usual_form
from nas.training.loaders import make_loaders
from nas.training.normalisation import reestimate_batch_norm
from nas.training.optimisation import restore_optimizer
from nas.training.recipe import Recipe
from nas.training.room import require_room, require_shares
from nas.training.scores import EpochReport, Scores
from nas.training.start import StartingNetwork, starting_network
from nas.training.step import Model, Step
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
        form: Form | None = None,
        guard: Guard = nullcontext,
        count: Count = uncounted,
        share: Share = WHOLE,
    ) -> None:
        """Build the network and everything around it; nothing is trained yet.

        `weights`: inference weights to start from; auxiliary heads start fresh. `init`: tensors of any network that
        `nas.training.pretrained` knows, of which what fits is taken. In which form what is re-parameterised trains is
        told in `nas.training.start`. `threads`: of torch (for the whole process) and of the loaders; None leaves
        torch's, and gives loaders their usual ones. `teacher`: a trained network whose logits are imitated beside the
        labels; moved to `device`. `grid`: what an INT8 form of the weights rounds, which this training and its scores
        round too. `rungs`: the epochs, ascending, at which the learning rate has come to the end of its schedule;
        another one goes on from the weights, and after the last the training is finished. Empty: one schedule of all
        epochs. `form`: of computing on this device; None is the usual one. `guard()` is entered around every training
        step (on a GPU: every few of them), every scored batch, and every few labels whose classes are counted; `count`
        is told of the images of every step and every scored batch. `share`: of every batch, where several processes
        train one network together. Each makes the same calls; `weights` and `save` are asked of the first.

        Raises: UserError when the device is not there, the weights do not fit or are of no known network;
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
        """How many of the first epochs train the encoder alone; what is scored then is the encoder under a classifier
        of its own."""
        if weights is None and teacher is None and not start.has_decoder_weights:
            room(recipe.stages(architecture, self._rungs[0])[1:])
            self.encoder_epochs = recipe.encoder_epochs(architecture, self._rungs[0])
        self._given_form = form
        self._train_from(start)
        self._teacher = None if teacher is None else teacher.to(self.device).eval()
        self._begin_stage()
        self._began = time.perf_counter(), *self._waited()

    def _train_from(self, start: StartingNetwork) -> None:
        """Make this the network that is trained."""
        self._trained_keys, self._inference_keys = start.trained_names, start.inference_names
        self.is_reparameterized = start.is_reparameterized
        """Whether what is re-parameterised trains in another form than the one that runs."""
        self.taken = start.taken
        """Of `init`."""
        share_norms(start.network, self._share)
        self.form = self._given_form or usual_form(start.network, self.device, self.recipe)
        # torch's annotations leave memory_format out.
        self.network = start.network.to(self.device, memory_format=self.form.memory_format)  # type: ignore[call-overload]

    def _begin_stage(self) -> None:
        """Prepare what trains the next epoch: the encoder alone, or the whole network."""
        recipe, model = self.recipe, cast("Model", self.network)
        if self.epoch < self.encoder_epochs:
            assert recipe.encoder is not None, "it has epochs"
            with self._randomness(epoch=0):
                model = EncoderModel(self.network, recipe.encoder)
            model = model.to(self.device, memory_format=self.form.memory_format)  # type: ignore[call-overload]
            recipe = recipe.of_encoder()
        elif self._grid is not None:
            model = FakeQuantized(self.network, self._grid)
        require_shares(min(recipe.batch_size, len(self.dataset.train)), self._share.count)
        self._model: Model = model
        self._average = Average(model, recipe.ema_decay) if recipe.ema_decay else None
        taken = set() if self.taken is None else set(self.taken.layers)
        self._step = Step(
            model,
            recipe,
            self.form,
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
        """Of the last step; of the recipe before the first."""
        return self._step.learning_rate

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe is done, or all up to the last rung."""
        return self.epoch >= self._rungs[-1]

    def run_epoch(self) -> EpochReport:
        """Train one epoch and score the network on the validation images.

        Raises: TrainingError when the loss or a scored logit is no finite number; DataError when a batch cannot be
        read.
        """
        assert not self.finished, "the training is finished; look at `finished` first"
        if isinstance(self._model, EncoderModel) and self.epoch >= self.encoder_epochs:
            self._begin_stage()
        self._began = time.perf_counter(), *self._waited()
        with self._randomness(self.epoch + 1):
            loss = self._train_epoch()
        self.epoch += 1
        scores = self._score()
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

    def waits(self) -> tuple[float, float]:
        """The shares (0..1) of the epoch under way that passed so far waiting for batches, and for the guard."""
        return self._spent()[1:]

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights for inference, on the CPU: those of `architecture.build(num_classes)`."""
        return _copied(folded_state(self._kept), self._inference_keys)

    def trained_weights(self) -> dict[str, Tensor]:
        """The same before several paths are folded into one convolution: what a later training goes on from."""
        return _copied(self._kept.state_dict(), self._trained_keys)

    @property
    def _scored(self) -> nn.Module:
        """What is scored: the average over the steps, or the model as the last step left it."""
        return self._model if self._average is None else self._average.module

    @property
    def _kept(self) -> nn.Module:
        """What is kept: the network that is scored."""
        scored = self._scored
        return scored.network if isinstance(scored, (EncoderModel, FakeQuantized)) else scored

    def save(self, path: str | Path) -> None:
        """Write everything that `restore` needs; a file that was there is replaced only by a complete one."""
        checkpoint = Checkpoint(
            epoch=self.epoch,
            identity=self._identity(),
            network=self._model.state_dict(),
            optimizer=self._step.optimizer.state_dict(),
            scaler=self._step.scaler.state_dict(),
            average={} if self._average is None else self._average.state_dict(),
            history=self.history,
        )
        save_checkpoint(path, checkpoint)

    def restore(self, path: str | Path) -> None:
        """Go on where the training that wrote `path` was saved.

        Raises: DamagedError when the file is damaged, and then this trainer is of no more use; UserError when it is of
        another architecture, recipe or data set.
        """
        checkpoint = load_checkpoint(path, self._identity())
        try:
            self.epoch = int(checkpoint.epoch) - 1  # the last that was trained
            # Earlier versions began otherwise from `init`: with several paths always, and with the encoder alone.
            several = are_of_training_form(checkpoint.network)
            if another := several != self.is_reparameterized:
                self._train_from(self._start(several=several))
            if checkpoint.history:
                began = checkpoint.history[0].encoder
                self.encoder_epochs = self.recipe.encoder_epochs(self.architecture, self._rungs[0]) if began else 0
            if another or isinstance(self._model, EncoderModel) != (max(self.epoch, 0) < self.encoder_epochs):
                self._begin_stage()
            self._model.load_state_dict(checkpoint.network)
            restore_optimizer(self._step.optimizer, checkpoint.optimizer)
            if checkpoint.scaler:
                self._step.scaler.load_state_dict(dict(checkpoint.scaler))
            if self._average is not None:
                self._average.load_state_dict(checkpoint.average)
            self.epoch += 1
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            if is_shortage(error) or isinstance(error, UserError):  # of a stage that begins here
                raise
            reason = " ".join(str(error).split())[:200]
            if checkpoint.history:  # its checksum held
                raise UserError(
                    f"{path}: expected the state of this training, got that of another version's ({reason}); continue "
                    "with the version that wrote it, or start a new training"
                ) from None
            raise DamagedError(f"{path}: expected the state of this training, got a damaged one ({reason})") from None
        self.history = tuple(checkpoint.history)

    def _train_epoch(self) -> float:
        """Mean loss over the steps."""
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
                taken.append(self._step.take(images, labels, *self._place(len(losses) + len(taken))))
                if self._average is not None:
                    self._average.follow(self._model)
                self._count(len(images))
        assert losses, "a loader of the training split gives at least one batch"
        if not all(parameter.isfinite().all() for parameter in self._model.parameters()):
            raise self._diverged(len(losses), "weights that are not")  # only the last step's gradient can do this
        total = 0.0
        for loss in losses:
            total += loss
        return total / len(losses)

    def _place(self, step: int) -> tuple[int, int]:
        """Which step of its schedule that step of this epoch is, and how many the schedule has."""
        steps = len(self._loaders.train)
        ends = (self.encoder_epochs, *self._rungs)
        begin = max((end for end in ends if end <= self.epoch), default=0)
        end = min(end for end in ends if end > self.epoch)
        return (self.epoch - begin) * steps + step, (end - begin) * steps

    def _waited(self) -> tuple[float, float]:
        """Seconds that passed so far waiting for batches, and for the guard."""
        each = [loader.waited for loader in self._loaders.each]
        return sum(one.data_seconds for one in each), sum(one.guard_seconds for one in each)

    def _spent(self) -> tuple[float, float, float]:
        """Seconds of the epoch under way, and which shares of them passed waiting for batches and for the guard."""
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
            # Before every scoring, not only the last: training itself never reads the statistics, and scores
            # that decide whether a trial goes on must not depend on how far they lag behind.
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
        """Random numbers of the seed and the epoch only; the global state is put back afterwards. In an epoch (from 1)
        each process has its own: the images that they drop channels of are not the same.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            own = self._share.rank << 52 if epoch else 0  # beyond all that seeds and epochs lead to
            torch.manual_seed(own + self.recipe.seed * 1_000_003 + epoch)
            yield

    def _identity(self) -> dict[str, str]:
        data = self.dataset
        return {
            "architecture": f"key: {self.architecture.key}\n{self.architecture.to_yaml()}",
            "recipe": strict.dump(self.recipe),
            "data set": f"name: {data.name}\nsize: {data.size}\nclasses: {', '.join(data.classes)}\n"
            f"training images: {len(data.train.images)}\nvalidation images: {len(data.validation.images)}",
        }


def _copied(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    return {name: state[name].detach().cpu().contiguous().clone() for name in names}
