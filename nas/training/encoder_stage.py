"""The first of two stages of a training: a network's encoder alone, under a classifier that is discarded afterwards."""

from __future__ import annotations

from torch import Tensor, nn

from nas.training.recipe import EncoderStage
from space.gradients import resized
from space.network import Network


class EncoderModel(nn.Module):
    """A network's encoder and a 1x1 convolution to the classes, which the authors of ERFNet and FPLNet train first. The
    network's other layers belong to this module too, but are not used.
    """

    auxiliary_weights: tuple[float, ...] = ()

    def __init__(self, network: Network, stage: EncoderStage) -> None:
        super().__init__()
        self.network = network
        self.classifier = nn.Conv2d(network.encoder_width, network.num_classes, 1, bias=stage.bias)
        nn.init.kaiming_normal_(self.classifier.weight, mode="fan_in", nonlinearity="relu")
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)
        self._at_full_size = stage.labels == "full"

    def outputs(self, image: Tensor) -> list[Tensor]:
        """The logits of `forward`, as a list of one."""
        return [self(image)]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, C, h, w) of images (N, 3, H, W): at the encoder's stride, or interpolated to the images' size."""
        logits: Tensor = self.classifier(self.network.encoded(image))
        if self._at_full_size:
            align_corners = bool(self.network.architecture.align_corners)
            size = (int(image.shape[-2]), int(image.shape[-1]))
            logits = resized(logits, size, align_corners, training=self.training)
        return logits
