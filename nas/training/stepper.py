"""`Stepper`: takes the optimiser steps of a training, one with every batch."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from nas.data.share import WHOLE, Share
from nas.training.boundary import boundary_weights
from nas.training.compute_mode import ComputeMode
from nas.training.encoder_stage import EncoderModel
from nas.training.fake_quantization import FakeQuantized
from nas.training.loss import distillation_loss, hardest, labels_at, total_loss
from nas.training.optimisation import learning_rate, make_optimizer, parameter_groups
from nas.training.recipe import Recipe
from nas.training.together import average_gradients
from space.network import Network

Model = Network | EncoderModel | FakeQuantized


class Stepper:
    """Takes optimiser steps on a model, without waiting for a GPU (except in float16)."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        mode: ComputeMode,
        device: torch.device,
        *,
        class_weights: Tensor | None = None,
        teacher: nn.Module | None = None,
        pretrained: Collection[nn.Parameter] = (),
        share: Share = WHOLE,
    ) -> None:
        """Make the optimiser; no step is taken yet.

        - `model`: the model, on the device and in the layout of `mode`.
        - `class_weights`: weights of the classes in the loss, (C,).
        - `teacher`: a network whose logits are imitated.
        - `pretrained`: parameters that started from pretrained weights.
        - `share`: the part of each batch that this process gets, if other processes take the same steps.
        """
        self._model = model
        self._recipe = recipe
        self._mode = mode
        self._device = device
        self._class_weights = class_weights
        self._teacher = teacher
        self._share = share
        self._groups = parameter_groups(model, recipe, pretrained)
        self.optimizer = make_optimizer(self._groups, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=mode.precision == "fp16")
        self.learning_rate = recipe.learning_rate
        """Learning rate of the last step, for layers that start at random."""

    def take(self, images: Tensor, labels: Tensor, step: int, steps: int) -> Tensor:
        """Take step `step` (from 0) of a schedule of `steps`; returns the loss before it, a scalar on the device.

        `images` (N, 3, H, W) float32 and `labels` (N, H, W) class ids or IGNORE, on any device. With several processes
        each passes its share of a batch; the loss is that of the whole batch, and all have the same weights afterwards.
        """
        recipe = self._recipe
        self.learning_rate = learning_rate(recipe, step, steps)
        for group, options in zip(self._groups, self.optimizer.param_groups, strict=True):
            options["lr"] = learning_rate(recipe, step, steps, group.rate_share)
        self.optimizer.zero_grad(set_to_none=True)
        images = images.to(self._device).contiguous(memory_format=self._mode.memory_format)
        loss = self._loss(images, labels.to(self._device))
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        mean_loss = average_gradients(self._model.parameters(), loss.detach(), self._share)
        if recipe.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), recipe.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return mean_loss

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._precision():
            outputs = self._model.outputs(images)
        size = (int(outputs[0].shape[-2]), int(outputs[0].shape[-1]))
        boundary, emphasis = self._recipe.boundary, None
        if boundary is not None:
            emphasis = labels_at(boundary_weights(labels, boundary.distances, boundary.weights), size)
        labels = labels_at(labels, size)
        loss = total_loss(
            outputs,
            self._model.auxiliary_weights,
            labels,
            self._class_weights,
            of_head=self._labels_of_head,
            emphasis=emphasis,
            focus=0.0 if boundary is None else boundary.focus,
            share=self._share,
        )
        if self._teacher is not None and self._recipe.distillation_weight > 0:
            with torch.no_grad(), self._precision():
                wanted = self._teacher(images)
            temperature = self._recipe.distillation_temperature
            divergence = distillation_loss(outputs[0], wanted, labels, temperature, share=self._share)
            loss = loss + self._recipe.distillation_weight * divergence
        return loss

    def _labels_of_head(self, logits: Tensor, labels: Tensor) -> Tensor:
        probability = self._recipe.ohem_probability
        return labels if probability is None else hardest(logits, labels, probability, self._recipe.ohem_share)

    def _precision(self) -> torch.autocast:
        kind = self._mode.autocast_type
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)
