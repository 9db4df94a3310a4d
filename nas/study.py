"""`Study`: the question a search answers, as a YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from nas import samplers
from nas.data import DataSpec
from nas.latency.budget import Budgets
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN, check_patience, check_within
from nas.latency.target import PRECISIONS, Target
from nas.storage.files import expanded, read_text
from nas.training import Recipe, Variant, load_recipe
from nas.training.recipe import beside
from space import Space, UserError, published, strict
from space.axes import searched
from space.errors import nearest

HARD_EXAMPLES = Variant(ohem_probability=0.7)
"""Of the parts of a recipe that cost no latency, what gained where networks are finished (`studies/camvid/recipes`)."""
TRIED_SHARE = 0.25  # of the epochs of a finish recipe, for which it is tried
AUTO = "auto"
ALL = "all"
LOGGERS = ("wandb", "mlflow")
MOST_PER_GPU = 32  # trainings, none of which would get far


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How much is tried. Each candidate trains for the epochs of the study's recipe, or pauses after some of them."""

    seeds: tuple[str, ...] = ("ndnet45-ende", "swiftnet-rn18", "fast-scnn", "ddrnet23-slim")
    """Published networks that are scaled to the budget; they are the first candidates. `all`: every one there is.
    Unless told otherwise four of as many families that learn fast (`studies/camvid/rivals`, `studies/search`)."""
    random_trials: int = 4
    """Candidates drawn at random."""
    guided_trials: int = 8
    """Candidates proposed by the sampler from everything seen. Where candidates pause after short trainings, the
    epochs that they leave are its too: `seeds`, `random_trials` and `guided_trials` together are the effort, in whole
    trainings."""
    finalists: int = 2
    """How many of the best candidates are trained on."""
    finish_epochs: int = 20
    """For how long, with a fresh schedule."""
    finish_recipes: tuple[Variant, ...] | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What the study's recipe may have otherwise then. Of several, each is tried on the best finalist first, for a
    quarter of its epochs; the one that scores best finishes all finalists, the company and what is pruned. A new run
    whose study leaves it open finishes by `HARD_EXAMPLES`, and says so in its folder; one that leaves it open there, of
    an earlier version, by the study's recipe."""
    company: tuple[str, ...] = ()
    """Published networks trained at their own width with the same effort as a finalist, to compare with; or `all`."""
    pruned: int = 2
    """How many of `company` over the budget, the most accurate ones, are pruned into it and fine-tuned for
    `finish_epochs`; they compete with the finalists."""
    most_parameters: int = 50_000_000
    """Candidates are not widened beyond that many, however large the budget: four times SwiftNet-RN18."""
    most_gigabytes: float = 24.0
    """Nor beyond what that much memory trains, weights, gradients, moments, and all outputs for a batch of crops, and
    scores: a whole picture."""
    minutes: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """In about how many the search is to be over, those before an interruption counted: nothing more is proposed when
    the finalists can just be finished in time, whatever is left of the trials. 0: all of them are tried."""
    sampler: Annotated[str, strict.OneOf(samplers.names)] = "surrogate"
    warm_start: bool = field(default=True, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether `surrogate` begins with what networks of the space scored on other data, a table of which comes with the
    package; it says less than any training of this search."""
    stop_weak: bool = True
    """Whether candidates get short trainings first, of which the promising ones go on, with samplers that can have them
    go on (`surrogate`). Other samplers' are trained whole."""
    concurrent: int = 0
    """Trainings at a time. 0: on GPUs as many as `trials_per_gpu` says; on CPUs one per core, but at most a quarter of
    the whole trainings that `seeds`, `random_trials` and `guided_trials` are, two at least, with more threads each."""
    trials_per_gpu: int | float | str = field(default=1, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Trainings that share a GPU, where trainings run on GPUs; `auto`: as many as a short probe finds worth it, when
    the search begins."""
    seed: int = 0
    """Of random draws and of the sampler."""
    loggers: tuple[str, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What else is told of every training and its epochs, of `LOGGERS`."""

    def __post_init__(self) -> None:
        for name in ("seeds", "company"):
            if ALL in getattr(self, name):
                object.__setattr__(self, name, published())
        for name in ("random_trials", "guided_trials", "finish_epochs", "pruned", "concurrent", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"search.{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 <= self.minutes < math.inf:
            raise UserError(f"search.minutes: expected 0 or more, got {self.minutes}; 0 is no limit")
        for name in ("most_parameters", "most_gigabytes"):
            if not getattr(self, name) > 0:
                raise UserError(f"search.{name}: expected more than 0, got {getattr(self, name)}")
        if self.finalists < 1:
            raise UserError(f"search.finalists: expected at least 1, got {self.finalists}")
        if not (self.seeds or self.random_trials or self.guided_trials):
            raise UserError("search: expected seeds, random_trials or guided_trials, got none; nothing would be tried")
        if self.finish_recipes == ():
            raise UserError("search.finish_recipes: expected at least one, got none; {} is the study's recipe")
        if len(set(self.finishing)) < len(self.finishing):
            raise UserError("search.finish_recipes: expected each once, got one of them twice; keep one")
        if self.finishing not in ((Variant(),), (HARD_EXAMPLES,)) and not self.finish_epochs:
            raise UserError("search.finish_recipes: expected finish_epochs above 0 to go with them, got 0; raise it")
        self._check_sharing()
        if len(set(self.loggers)) < len(self.loggers) or not set(self.loggers) <= set(LOGGERS):
            raise UserError(f"search.loggers: expected some of {', '.join(LOGGERS)}, each once, got {self.loggers}")
        if self.sampler not in samplers.names():
            known = samplers.names()
            hint = nearest(self.sampler, known)
            raise UserError(f"search.sampler: expected one of {', '.join(known)}; got {self.sampler!r}; {hint}")
        for name in (*self.seeds, *self.company):
            if name not in published():
                raise UserError(f"search: no published network is called '{name}'; {nearest(name, published())}")

    def epochs_of(self, recipe: Variant) -> int:
        """How long a finish recipe trains."""
        return recipe.epochs or self.finish_epochs

    @property
    def finishing(self) -> tuple[Variant, ...]:
        """The finish recipes, one at least."""
        return self.finish_recipes or (Variant(),)

    @property
    def longest_finish(self) -> int:
        """The epochs of the longest finish recipe."""
        return max(map(self.epochs_of, self.finishing))

    @property
    def tried_epochs(self) -> tuple[int, ...]:
        """For how many epochs each finish recipe is tried; none where there is no choice."""
        if len(self.finishing) == 1:
            return ()
        return tuple(max(1, round(TRIED_SHARE * self.epochs_of(each))) for each in self.finishing)

    def _check_sharing(self) -> None:
        """A training has one GPU, or a share of it."""
        count = self.trials_per_gpu
        if count == AUTO:
            return
        if not isinstance(count, int) or not 1 <= count <= MOST_PER_GPU:
            raise UserError(
                f"search.trials_per_gpu: expected a whole number of trainings, from 1 to {MOST_PER_GPU}, or {AUTO}, "
                f"got {count}; write 2 for two on each GPU"
            )


@dataclass(frozen=True, kw_only=True)
class Study:
    """Data, budget, target, space, recipe and effort of a search."""

    data: DataSpec
    budget: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """As `nas.latency.budget.Budget` reads it: 10ms, 100fps, 10ms p90. Empty where there are `budgets`."""
    budgets: tuple[str, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """In its place: several, each of which gets a winner of its own; the search shares its effort among them."""
    frontier: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether `budgets` are chosen as the search begins, from what the fastest network takes up to `budget`."""
    recipe: Recipe
    """By which candidates are trained."""
    target: str = ""
    """As `nas.latency.target.Target` reads it; empty for the fastest deployment runtime of the machine."""
    precisions: tuple[str, ...] = ()
    """In which a network may ship, such as fp32, bf16 and int8: each is timed in all of them that can be timed there,
    and counts, is scored and is certified in its fastest. Empty for that of the target alone."""
    latency_within: float = WITHIN
    """Half of the 95 % interval of candidates' latencies, as a share of them. The winner's certificate is never less
    sure than the default."""
    patience_seconds: float = PATIENCE_SECONDS
    """How long to wait, for each network that is timed, on a busy machine for quiet moments."""
    space: Mapping[str, tuple[str | int | float | bool, ...]] = field(default_factory=dict)
    """Narrows axes of `space.axes.ranges`; others are searched as `space.axes.searched` says."""
    search: SearchPlan = SearchPlan()

    def __post_init__(self) -> None:
        self._check_budgets()
        if self.target:
            Target.parse(self.target)
        self._check_precisions()
        check_within(self.latency_within, "latency_within")
        check_patience(self.patience_seconds, "patience_seconds")
        self.architectures()

    @property
    def asked(self) -> Budgets:
        """What it asks for: its budget, or each of its budgets."""
        return Budgets.parse(self.budgets or (self.budget,))

    def begun(self) -> Study:
        """The same question as a new run asks it: how finalists are finished is spelled out. A recipe that mines hard
        examples in its own way is left alone.
        """
        plan = self.search
        if plan.finish_recipes is not None or not plan.finish_epochs or self.recipe.ohem_probability is not None:
            return self
        return replace(self, search=replace(plan, finish_recipes=(HARD_EXAMPLES,)))

    def asking(self, texts: Sequence[str]) -> Study:
        """The same question for one budget, or for several.

        Raises: BudgetError when one of the texts is none, or two name the same.
        """
        if len(texts) == 1:
            return replace(self, budget=texts[0], budgets=())
        return replace(self, budget="", budgets=tuple(map(str, Budgets.parse(texts))), frontier=False)

    def asking_also(self, texts: Sequence[str]) -> Study:
        """The same question for more budgets, where it is for several; else for these instead.

        Raises: BudgetError as `asking` does.
        """
        if not self.budgets:
            return self.asking(texts)
        known = {budget.name: budget for budget in self.asked}
        more = {budget.name: budget for budget in Budgets.parse(texts)}
        return replace(self, budgets=tuple(map(str, Budgets(each=tuple((more | known).values())))))

    def _check_budgets(self) -> None:
        if self.budget and self.budgets:
            raise UserError(
                f"expected budget or budgets, got both; put {self.budget} among the budgets, or leave it out"
            )
        if not (self.budget or self.budgets):
            raise UserError("expected a budget, got none; add budget: 10ms, or budgets: [10ms, 20ms]")
        if self.frontier and self.budgets:
            raise UserError(
                "frontier: expected one budget, the largest of the frontier, got budgets; leave frontier out"
            )
        Budgets.parse(self.budgets or (self.budget,))

    def _check_precisions(self) -> None:
        for name in self.precisions:
            if name not in PRECISIONS:
                raise UserError(f"precisions: expected some of {', '.join(PRECISIONS)}, got {name!r}")
        if len(set(self.precisions)) < len(self.precisions):
            raise UserError(f"precisions: expected each once, got {', '.join(self.precisions)}")
        if self.precisions and self.target and Target.parse(self.target).precision != "fp32":
            raise UserError(
                f"precisions: expected a target that says none, got {self.target}; leave it out there, or leave out "
                "precisions"
            )

    def architectures(self) -> Space:
        """The space that is searched."""
        return Space(ranges={**searched(), **self.space}, size=self.data.size)

    def to_yaml(self) -> str:
        """YAML text with every number explicit."""
        return strict.dump(self)


def load_study(path: str | Path) -> Study:
    """A study from its YAML file. Relative paths in it (`data.root`, `recipe.init`) count from the file's
    folder, those with `~` from a home.

    Raises: UserError with line and key of what does not fit.
    """
    file = expanded(path)
    study = strict.parse(read_text(file, "a study's YAML file"), Study, str(file))
    study = replace(study, recipe=beside(study.recipe, file.parent))
    root = study.data.root
    if root is not None and not expanded(root).is_absolute():
        study = replace(study, data=replace(study.data, root=str((file.parent / root).resolve())))
    return study


def built_in_study(budget: str, *, on_gpu: bool = False) -> Study:
    """The question asked when none is given: road scenes drawn here, small enough for five minutes on two cores. On a
    GPU, which runs everything of that size far inside any budget, they have the size of Cityscapes' pictures.

    Candidates' latencies are half as sure as usual, which is as much as `nas.search.propose.fill` leaves free of the
    budget. On the CPU a busy machine is waited for a third as long, less is tried where all of it would take more than
    five minutes, and it begins with the two families that learn most in so few steps, since what is proposed is near
    the best so far.
    """
    if on_gpu:
        return Study(
            data=DataSpec(name="road_scenes", size=(1024, 2048), train_images=64, validation_images=16),
            budget=budget,
            latency_within=2 * WITHIN,
            recipe=replace(load_recipe("quick"), epochs=4, crop=(384, 768)),
            search=SearchPlan(random_trials=4, guided_trials=4, finalists=2, finish_epochs=16),
        )
    return Study(
        data=DataSpec(name="road_scenes", size=(180, 240), train_images=120, validation_images=30),
        budget=budget,
        latency_within=2 * WITHIN,
        patience_seconds=PATIENCE_SECONDS / 3,
        recipe=replace(load_recipe("quick"), epochs=2, crop=(128, 160)),
        search=SearchPlan(
            seeds=("ndnet45-ende", "swiftnet-rn18"),
            random_trials=0,
            guided_trials=4,
            finalists=2,
            finish_epochs=6,
            minutes=4.75,
        ),
    )


def has_built_in_minutes(study: Study) -> bool:
    """Whether a study is the built-in one, at any budget and on any target, and nobody gave it other minutes."""
    built_in = built_in_study("1ms")
    return (study.data, study.recipe, study.search.minutes) == (built_in.data, built_in.recipe, built_in.search.minutes)


def without_minutes_of_one(study: Study) -> Study:
    """The built-in study, whose minutes are for one budget, without these where it asks for several."""
    if not (study.budgets or study.frontier):
        return study
    return replace(study, search=replace(study.search, minutes=0.0))
