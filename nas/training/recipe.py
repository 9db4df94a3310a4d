"""How a network is trained, as data: every number of a training is a field of `Recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nas.data.augmentation import Augmentation, ScaleSampling
from nas.host.words import counted
from nas.storage.files import expanded
from space import Architecture, published, strict
from space.errors import UserError, nearest
from space.scopes import PARTS, part_of

PUBLISHED = Path(__file__).parent / "published"


@dataclass(frozen=True, kw_only=True)
class EncoderStage:
    """A first stage of a training: the encoder alone, under a 1x1 convolution to the classes that is discarded
    afterwards. It has a schedule of its own, and so has the whole network after it.

    Raises: UserError for a value that makes no sense.
    """

    share: float
    """Share of the training's epochs."""
    batch_size: int
    class_weighting: float | None
    """Replaces the recipe's `class_weighting`."""
    labels: Literal["coarse", "full"]
    """`coarse`: labels at the encoder's stride; `full`: logits are interpolated to the image's size."""
    bias: bool
    """Whether the convolution has a bias."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"encoder.share: expected a share of the epochs above 0 and below 1, got {self.share}")
        _positive(self, "batch_size")
        _check_class_weighting(self.class_weighting)

    def epochs_of(self, epochs: int) -> int:
        """Number of epochs of this stage, out of `epochs` in all; at least one is left to the whole network."""
        return min(round(self.share * epochs), epochs - 1)


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """A loss in which pixels weigh more the nearer they are to the boundary of their class: the boundary-aware loss of
    SwiftNet's pyramid (Oršić and Šegvić, Pattern Recognition 2020; its numbers are in the authors' code).

    Raises: UserError for a value that makes no sense.
    """

    distances: tuple[float, ...]
    """Ascending distances, in pixels of the crop that the network sees."""
    weights: tuple[float, ...]
    """The weight of pixels that are nearer than each of `distances` to another class; then that of all others."""
    focus: float = 0.0
    """f of a further factor exp(f (1 - p)), where p is the probability of a pixel's true class."""

    def __post_init__(self) -> None:
        if not self.distances or list(self.distances) != sorted(set(self.distances)) or not self.distances[0] > 0:
            raise UserError(f"boundary.distances: expected ascending numbers of pixels, got {list(self.distances)}")
        if len(self.weights) != len(self.distances) + 1 or not min(self.weights) > 0:
            raise UserError(
                f"boundary.weights: expected one more than distances, all above 0; got {list(self.weights)} "
                f"and {counted(len(self.distances), 'distance')}"
            )
        if not self.focus >= 0:
            raise UserError(f"boundary.focus: expected 0 or more, got {self.focus}")


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """One stage of a training."""

    encoder: bool
    """Whether only the encoder is trained."""
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training, from the first step to the last. A step is an optimiser step on one batch.

    Raises: UserError for a value that makes no sense, or that contradicts another.
    """

    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    epochs: int
    batch_size: int

    weight_decay: float = 0.0
    """Weight decay, decoupled only for adamw."""
    weight_decay_of: Literal["weights", "convolutions", "all"] = field(
        default="weights", metadata=strict.LEFT_OUT_AT_DEFAULT
    )
    """Parameters that decay. `weights`: weights of convolutions; `convolutions`: their biases too; `all`: all
    parameters, including batch norms and PReLU slopes."""
    momentum: float = 0.9
    """SGD's momentum; the first beta of adam and adamw."""
    second_momentum: float = 0.999
    """The second beta of adam and adamw; sgd has none."""

    schedule: Literal["poly", "cosine", "steps"] = "poly"
    power: float = 0.9
    """For poly: the learning rate falls as (1 - progress) ** power."""
    final_learning_rate: float = 0.0
    """Learning rate at the end of poly and cosine."""
    milestones: tuple[float, ...] = ()
    """For steps: the shares of the training, ascending in 0..1, at which each of `factors` takes effect."""
    factors: tuple[float, ...] = ()
    """For steps: multiples of `learning_rate`, one per milestone."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises at the beginning; at most a quarter of the steps of a short training."""
    warmup_start: float = 0.0
    """Share of `learning_rate` at which the rise starts."""
    warmup_growth: Literal["linear", "exponential"] = field(default="linear", metadata=strict.LEFT_OUT_AT_DEFAULT)
    gradient_clip: float | None = None
    """Largest norm of a step's gradient; None: no limit."""

    crop: tuple[int, int] | None = None
    """Height and width of the crop in pixels after scaling, at most the data set's size; None: that size."""
    scale: tuple[float, ...] = (1.0, 1.0)
    """Smallest and largest scale factor before the crop; with `listed`, all scale factors."""
    scale_sampling: ScaleSampling = field(default="log", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Distribution of the scale factor: `log`, half is as likely as double; `uniform`; `inverse`, uniform in the side
    of what is cut out; or `listed`."""
    fills_crop: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether pictures are enlarged at least until they fill the crop, so that nothing is padded except where
    `shift_pixels` moves the crop beyond the edge."""
    crop_class_share: float = field(default=1.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """A crop is moved elsewhere, up to nine times, if one class covers this share or more of its labelled pixels, or
    all of them; 1: never (mmsegmentation: 0.75)."""
    flip: bool = True
    """Whether half of the pictures are mirrored left to right."""
    shift_pixels: int = 0
    """Largest random shift along each axis."""
    brightness: float = 0.0
    contrast: float = 0.0
    """Largest relative change of brightness and contrast."""
    saturation: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Largest relative change of saturation."""
    hue_degrees: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Largest rotation of hues in either direction."""

    class_uniform: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Share of an epoch's pictures that is drawn class by class (`nas.data.showings`); 0: each is shown once."""
    class_weighting: float | None = None
    """c of the class weights 1 / ln(c + p), p being the class's share of labelled training pixels; None: all equal."""
    ohem_probability: float | None = None
    """Online hard example mining: only pixels whose true class has a lower probability than this count in the loss;
    None: all pixels count (arXiv 1604.03540; DDRNet and RDRNet: 0.9, STDC and DABNet: 0.7).
    """
    ohem_share: float = 1 / 16
    """Least share of a batch's labelled pixels that count in the loss; the pixels of lowest probability make it up."""
    boundary: Boundary | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Weights near boundaries of classes; None: all pixels of a class weigh the same."""
    distillation_weight: float = 1.0
    """Weight of the divergence from the teacher; not used without a teacher."""
    distillation_temperature: float = 2.0

    ema_decay: float = 0.0
    """Decay of the exponential moving average of weights and batch-norm statistics over the steps, which is scored and
    kept; 0: no average. The decay at step t is at most (1 + t) / (10 + t), so that a short training forgets its start.
    """
    batch_norm_batches: int = 0
    """Training batches that give batch norms fresh statistics before each scoring; 0 keeps running averages."""
    score_every: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Epochs from one scoring on the validation images to the next; the last epoch of every learning-rate schedule is
    always scored. None: in a search only these, in other trainings every epoch."""
    mixed_precision: bool = True
    """Whether CUDA uses bfloat16, or float16 with loss scaling. A CPU uses float32 unless a probe finds better."""
    encoder: EncoderStage | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """First stage, which trains the encoder alone, for networks with a decoder that do not start from weights of a
    whole network. None: the whole network is trained at once."""
    pretrained_share: float = field(default=1.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Factor on `learning_rate` and `weight_decay` for layers that start with the weights in `init`."""
    rate_shares: Mapping[str, float] = field(default_factory=dict, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Factors on `learning_rate` for parts of the network, by the beginnings of their layers' names: `{head: 10,
    decoder.step1: 10}`. A part without a number covers all parts of that name."""
    seed: int = 0
    probe: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether to time a few steps before the first one, to find the precision (if `mixed_precision` allows it) and
    memory layout that are fastest here; the result is stored with the training. Otherwise: channels last where it is
    safe."""
    init: str | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """File of pretrained weights to start from (`nas.training.pretrained`); None: start at random. A relative path in a
    YAML file counts from that file's folder. The results of a training name the file."""

    def __post_init__(self) -> None:
        _positive(
            self, "learning_rate", "epochs", "batch_size", "power", "distillation_temperature", "pretrained_share"
        )
        _not_negative(self, "weight_decay", "final_learning_rate", "warmup_steps")
        _not_negative(self, "distillation_weight", "batch_norm_batches", "seed")
        for name in ("momentum", "second_momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}: expected a number in 0..1 (below 1), got {getattr(self, name)}")
        if not 0 <= self.warmup_start <= 1:
            raise UserError(f"warmup_start: expected a share in 0..1, got {self.warmup_start}")
        if self.warmup_growth == "exponential" and self.warmup_steps and not self.warmup_start > 0:
            raise UserError("warmup_start: expected a share above 0 where the growth is exponential, got 0")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise UserError(f"gradient_clip: expected a norm above 0 or null, got {self.gradient_clip}")
        if self.score_every is not None and not self.score_every > 0:
            raise UserError(f"score_every: expected a number of epochs above 0 or null, got {self.score_every}")
        _check_class_weighting(self.class_weighting)
        if self.ohem_probability is not None and not 0 < self.ohem_probability <= 1:
            raise UserError(
                f"ohem_probability: expected a probability above 0, at most 1, or null; got {self.ohem_probability}"
            )
        for name in ("ohem_share", "class_uniform"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}: expected a share in 0..1, got {getattr(self, name)}")
        self.augmentation()  # raises for values out of range
        self._check_steps()
        self._check_rate_shares()

    def crop_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of crops from pictures of `size`: at most `size`, even if the recipe's crop is larger;
        without a crop, the whole picture.
        """
        height, width = self.crop or size
        return min(height, size[0]), min(width, size[1])

    def augmentation(self, size: tuple[int, int] | None = None) -> Augmentation:
        """Augmentation of pictures of `size`; None: of pictures that are no smaller than the crop."""
        return Augmentation(
            crop=self.crop if size is None else self.crop_of(size),
            scale=self.scale,
            scale_sampling=self.scale_sampling,
            fills_crop=self.fills_crop,
            crop_class_share=self.crop_class_share,
            flip=self.flip,
            shift_pixels=self.shift_pixels,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue_degrees=self.hue_degrees,
        )

    def encoder_epochs(self, architecture: Architecture, epochs: int) -> int:
        """Number of epochs that train the encoder alone, in a training of `epochs` epochs from the start."""
        return self.encoder.epochs_of(epochs) if self.encoder is not None and architecture.decoder is not None else 0

    def stages(self, architecture: Architecture, epochs: int | None) -> tuple[TrainingStage, ...]:
        """The stages of a training, that of the whole network first. `epochs`: number of epochs of a training from the
        start; None: the training starts from weights of a whole network, so it has one stage.
        """
        whole = TrainingStage(encoder=False, batch_size=self.batch_size)
        if epochs is None or not self.encoder_epochs(architecture, epochs):
            return (whole,)
        return (whole, TrainingStage(encoder=True, batch_size=self.of_encoder().batch_size))

    def of_encoder(self) -> Recipe:
        """The recipe of the encoder's stage."""
        assert self.encoder is not None, "it has one"
        return replace(
            self, batch_size=self.encoder.batch_size, class_weighting=self.encoder.class_weighting, encoder=None
        )

    def _check_rate_shares(self) -> None:
        for part, share in self.rate_shares.items():
            if part_of(part) is None:
                hint = nearest(part, PARTS)
                raise UserError(f"rate_shares: expected parts of a network ({', '.join(PARTS)}), got '{part}'; {hint}")
            if not share > 0:
                raise UserError(f"rate_shares.{part}: expected more than 0, got {share}")

    def _check_steps(self) -> None:
        if self.schedule != "steps":
            if self.milestones or self.factors:
                raise UserError(
                    f"milestones and factors belong to schedule 'steps', got '{self.schedule}'; remove them"
                )
            return
        if not self.milestones or len(self.milestones) != len(self.factors):
            raise UserError(
                f"schedule 'steps' expects as many factors as milestones, at least one; "
                f"got {counted(len(self.milestones), 'milestone')} and {counted(len(self.factors), 'factor')}"
            )
        ascending = list(self.milestones) == sorted(set(self.milestones))
        if not ascending or not 0 < self.milestones[0] <= self.milestones[-1] < 1:
            raise UserError(f"milestones: expected ascending shares of the training in 0..1, got {self.milestones}")
        if min(self.factors) < 0:
            raise UserError(f"factors: expected multiples of learning_rate, none below 0; got {self.factors}")


def published_recipes() -> tuple[str, ...]:
    """Names that `load_recipe` accepts."""
    return tuple(sorted(path.stem for path in PUBLISHED.glob("*.yaml")))


def recipe_of_network(name: str) -> Recipe:
    """The recipe that a published network ("ddrnet23-slim") was trained with, as far as a recipe can express it.

    Raises: UserError when `name` is not a published network.
    """
    families = [recipe for recipe in published_recipes() if name in published() and name.startswith(recipe)]
    if not families:
        raise UserError(
            f"recipe published: expected a published network, whose own recipe is known, got '{name}'; "
            f"{nearest(name, published())} (recipes by name: {', '.join(published_recipes())})"
        )
    return load_recipe(max(families, key=len))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by its published name ("quick") or from a YAML file.

    Raises: UserError for an unknown name, an unreadable file or a recipe that does not fit.
    """
    if str(name_or_path) in published_recipes():
        path = PUBLISHED / f"{name_or_path}.yaml"
    else:
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml") and not path.is_file():
            hint = nearest(str(name_or_path), published_recipes())
            raise UserError(f"expected a published recipe or a YAML file, got '{name_or_path}'; {hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a readable recipe file; {error}") from None
    return beside(strict.parse(text, Recipe, str(path)), path.parent)


def beside(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with a relative `init` resolved against `folder`."""
    if recipe.init is None or expanded(recipe.init).is_absolute():
        return recipe
    return replace(recipe, init=str((folder / recipe.init).absolute()))


def _check_class_weighting(c: float | None) -> None:
    if c is not None and not c > 1:
        raise UserError(f"class_weighting: expected c above 1 in 1 / ln(c + p), such as 1.1, or null; got {c}")


def _positive(recipe: Recipe | EncoderStage, *names: str) -> None:
    for name in names:
        if not getattr(recipe, name) > 0:
            raise UserError(f"{name}: expected more than 0, got {getattr(recipe, name)}")


def _not_negative(recipe: Recipe, *names: str) -> None:
    for name in names:
        if not getattr(recipe, name) >= 0:
            raise UserError(f"{name}: expected 0 or more, got {getattr(recipe, name)}")
