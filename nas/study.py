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
"""The default finish recipe: of the options that cost no latency, the one that improved finished networks
(`studies/camvid/recipes`)."""
TRIED_SHARE = 0.25  # share of a finish recipe's epochs that it is given when several are tried
AUTO = "auto"
ALL = "all"
LOGGERS = ("wandb", "mlflow")
MOST_PER_GPU = 32  # more trainings than this on one GPU would all crawl


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """The effort of a search. Each candidate trains for the epochs of the study's recipe, or pauses after some."""

    seeds: tuple[str, ...] = ("ndnet45-ende", "swiftnet-rn18", "fast-scnn", "ddrnet23-slim")
    """Published networks that are scaled to the budget and become the first candidates. `all`: every published network.
    By default, one from each of four families that learn fast (`studies/camvid/rivals`, `studies/search`)."""
    random_trials: int = 4
    """Candidates drawn at random."""
    guided_trials: int = 8
    """Candidates proposed by the sampler from all results so far. Where candidates pause after short trainings, the
    sampler also spends the epochs that this saves: `seeds`, `random_trials` and `guided_trials` together are the effort
    in whole trainings."""
    finalists: int = 2
    """How many of the best candidates are trained further."""
    finish_epochs: int = 20
    """Epochs of that further training, which has a schedule of its own."""
    finish_recipes: tuple[Variant, ...] | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Changes to the study's recipe for the finish. Where there are several, each is first tried on the best finalist,
    for a quarter of its epochs; the one that scores best finishes all finalists, the company and the pruned networks.
    None: a new run finishes by `HARD_EXAMPLES` and writes that into its study; a run of an earlier version, whose study
    has none, finishes by the study's recipe."""
    company: tuple[str, ...] = ()
    """Published networks to compare with, trained at their own width with the same effort as a finalist; or `all`."""
    pruned: int = 2
    """How many networks of `company` that are over the budget, the most accurate first, are pruned into it and
    fine-tuned for `finish_epochs`; they compete with the finalists."""
    most_parameters: int = 50_000_000
    """Candidates are not widened beyond this many parameters, however large the budget: four times SwiftNet-RN18."""
    most_gigabytes: float = 24.0
    """Candidates are not widened beyond what can be trained in this much memory (weights, gradients, moments and all
    outputs for a batch of crops) and scored in it (a whole picture)."""
    minutes: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Approximate minutes for the whole search, time before an interruption included: proposals end when one more
    candidate, trained to the end, would leave too little time to finish the finalists, even if trials are left. 0: no
    limit, all trials are tried."""
    sampler: Annotated[str, strict.OneOf(samplers.names)] = "surrogate"
    warm_start: bool = field(default=True, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether `surrogate` begins with scores that networks of the space reached on other data, from a table that comes
    with the package; each weighs less than any training of this search."""
    stop_weak: bool = True
    """Whether candidates are trained for a few epochs first and only the promising ones go on. This takes a sampler
    that can resume candidates (`surrogate`); those of other samplers are trained whole."""
    concurrent: int = 0
    """Trainings at a time. 0: on GPUs as many as `trials_per_gpu` says; on CPUs one per core, but at most a quarter of
    the whole trainings (`seeds`, `random_trials` and `guided_trials` together) and at least two, which share all cores
    as threads."""
    trials_per_gpu: int | float | str = field(default=1, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Trainings that share a GPU, where trainings run on GPUs; `auto`: as many as a short probe at the start of the
    search finds worthwhile."""
    seed: int = 0
    """Seed of random draws and of the sampler."""
    loggers: tuple[str, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Services, of `LOGGERS`, that every training and its epochs are also logged to."""

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
            raise UserError("search.finish_recipes: expected each recipe once, got one of them twice; keep one")
        if self.finishing not in ((Variant(),), (HARD_EXAMPLES,)) and not self.finish_epochs:
            raise UserError("search.finish_recipes: expected finish_epochs above 0 to try them, got 0; raise it")
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
        """The epochs that a finish recipe trains for."""
        return recipe.epochs or self.finish_epochs

    @property
    def finishing(self) -> tuple[Variant, ...]:
        """The finish recipes, at least one."""
        return self.finish_recipes or (Variant(),)

    @property
    def longest_finish(self) -> int:
        """The epochs of the longest finish recipe."""
        return max(map(self.epochs_of, self.finishing))

    @property
    def tried_epochs(self) -> tuple[int, ...]:
        """The epochs for which each finish recipe is tried; empty where there is only one."""
        if len(self.finishing) == 1:
            return ()
        return tuple(max(1, round(TRIED_SHARE * self.epochs_of(each))) for each in self.finishing)

    def _check_sharing(self) -> None:
        """Hold `trials_per_gpu` to whole numbers: a training has one GPU, or an equal share of it."""
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
    """Budget as `nas.latency.budget.Budget` reads it: 10ms, 100fps, 10ms p90. Empty where there are `budgets`."""
    budgets: tuple[str, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Several budgets in place of `budget`: each gets its own winner, and they share the effort of the search."""
    frontier: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether the search chooses `budgets` at its start, from the latency of the fastest network up to `budget`."""
    recipe: Recipe
    """Recipe by which candidates are trained."""
    target: str = ""
    """Target as `nas.latency.target.Target` reads it; empty: the fastest deployment runtime of the machine."""
    precisions: tuple[str, ...] = ()
    """Precisions in which a network may ship, such as fp32, bf16 and int8. Each network is timed in all that can be
    timed there, and is compared, scored and certified in its fastest. Empty: the target's precision alone."""
    latency_within: float = WITHIN
    """Half-width of the 95 % interval of candidates' latencies, as a share of the latency. The winner's certificate is
    at least as precise as the default."""
    patience_seconds: float = PATIENCE_SECONDS
    """How long each timing may wait for quiet moments on a busy machine."""
    space: Mapping[str, tuple[str | int | float | bool, ...]] = field(default_factory=dict)
    """Narrower ranges for axes of `space.axes.ranges`; `space.axes.searched` gives the ranges of the others."""
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
        """The budgets that the study asks for: its one budget, or each of several."""
        return Budgets.parse(self.budgets or (self.budget,))

    def begun(self) -> Study:
        """The study as a new run writes it, with the default finish recipe spelled out. A recipe that sets its own hard
        example mining is left alone.
        """
        plan = self.search
        if plan.finish_recipes is not None or not plan.finish_epochs or self.recipe.ohem_probability is not None:
            return self
        return replace(self, search=replace(plan, finish_recipes=(HARD_EXAMPLES,)))

    def asking(self, texts: Sequence[str]) -> Study:
        """The same study with other budgets, one or several.

        Raises: BudgetError when one of the texts is no budget, or two name the same budget.
        """
        if len(texts) == 1:
            return replace(self, budget=texts[0], budgets=())
        return replace(self, budget="", budgets=tuple(map(str, Budgets.parse(texts))), frontier=False)

    def asking_also(self, texts: Sequence[str]) -> Study:
        """The same study with these budgets added, if it has several; otherwise with these in place of its one budget.

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
            raise UserError(f"precisions: expected each precision once, got {', '.join(self.precisions)}")
        if self.precisions and self.target and Target.parse(self.target).precision != "fp32":
            raise UserError(
                f"precisions: expected a target without a precision of its own, got {self.target}; remove it from the "
                "target, or leave out precisions"
            )

    def architectures(self) -> Space:
        """The space that is searched."""
        return Space(ranges={**searched(), **self.space}, size=self.data.size)

    def to_yaml(self) -> str:
        """YAML text with every number explicit."""
        return strict.dump(self)


def load_study(path: str | Path) -> Study:
    """A study from its YAML file. Relative paths in it (`data.root`, `recipe.init`) count from the file's folder, and
    `~` is a home folder.

    Raises: UserError that names the line and key of a wrong value.
    """
    file = expanded(path)
    study = strict.parse(read_text(file, "a study's YAML file"), Study, str(file))
    study = replace(study, recipe=beside(study.recipe, file.parent))
    root = study.data.root
    if root is not None and not expanded(root).is_absolute():
        study = replace(study, data=replace(study.data, root=str((file.parent / root).resolve())))
    return study


def built_in_study(budget: str, *, on_gpu: bool = False) -> Study:
    """The study of a search that is given none: road scenes drawn on this machine, small enough for five minutes on two
    cores. On a GPU, where every network of that size is far inside any budget, the scenes are as large as Cityscapes
    images.

    Candidates' latencies have twice the usual interval, which is the margin that `nas.search.propose.fill` leaves below
    the budget. On the CPU, timings wait a third as long for a busy machine, and fewer trials are made where all of them
    would take more than five minutes. The seeds are the two families that learn most in so few steps, since later
    proposals are near the best so far.
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
            guided_trials=6,
            finalists=2,
            finish_epochs=4,
            minutes=4.5,
        ),
    )


def has_built_in_minutes(study: Study) -> bool:
    """Whether a study is the built-in one, at any budget and on any target, with its own time limit."""
    built_in = built_in_study("1ms")
    return (study.data, study.recipe, study.search.minutes) == (built_in.data, built_in.recipe, built_in.search.minutes)


def without_minutes_of_one(study: Study) -> Study:
    """The built-in study without its time limit if it asks for several budgets: the limit is meant for one."""
    if not (study.budgets or study.frontier):
        return study
    return replace(study, search=replace(study.search, minutes=0.0))
