"""Loggers that a study asks for, through Ray's own callbacks (W&B, MLflow). None of them can harm a search."""

from __future__ import annotations

import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nas.search.cluster.configured_ray import Callback
from space.errors import UserError

if TYPE_CHECKING:
    from nas.search.search import Search

PROJECT = "framebudget"
"""In Weights & Biases, where WANDB_PROJECT names none."""
LAST_SECONDS = 60.0  # for a logger to send what is left, before the search goes on without it


def require_loggers(names: Sequence[str]) -> None:
    """Raises: UserError where the library of one is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"search.loggers: expected {name} to be installed here, got no such package; pip install {name}, or "
                "leave it out"
            )


def loggers_of(search: Search) -> list[Callback]:
    """What tells Ray's callbacks about the trainings of a search, those that its study asks for."""
    makers: dict[str, Callable[[Search], Callback]] = {"wandb": _wandb, "mlflow": _mlflow}
    return [Logger(name, partial(makers[name], search), search.console.step) for name in search.study.search.loggers]


def name_of(trial: Any) -> str:
    """Of a training of Ray's, for people."""
    return f"{trial.config['name']}, {trial.config['phase']}"


class Logger(Callback):
    """A callback of Ray's in a thread of its own: one that breaks is told nothing more, which is said, and one that
    hangs keeps nobody waiting but at the end, for a minute.
    """

    def __init__(self, name: str, make: Callable[[], Callback], say: Callable[[str], None]) -> None:
        """`make` gives the callback, which may load its library for seconds; `say` hears why it is told nothing."""
        self._name = name
        self._make = make
        self._say = say
        self._told: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def setup(self, *positional: Any, **info: Any) -> None:
        """Begin."""
        self._thread.start()
        self._told.put(("setup", {}))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training begins, or begins again."""
        self._tell("on_trial_start", iteration, trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is over."""
        self._tell("on_trial_result", iteration, trial, result=dict(result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training ended."""
        self._tell("on_trial_complete", iteration, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process of a training died for the last time."""
        self._tell("on_trial_error", iteration, trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Wait until all is told, for a while."""
        self._told.put(("on_experiment_end", {"trials": trials}))
        self._told.put(None)
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            self._say(f"note    {self._name} has not taken all after {LAST_SECONDS:g} s: it is not waited for")

    def _tell(self, hook: str, iteration: int, trial: Any, **told: Any) -> None:
        self._told.put((hook, {"iteration": iteration, "trials": [trial], "trial": trial, **told}))

    def _work(self) -> None:
        try:
            callback = self._make()
            while (told := self._told.get()) is not None:
                hook, options = told
                getattr(callback, hook)(**options)
        except Exception as error:
            words = " ".join(str(error).split())[:200] or type(error).__name__
            self._say(f"note    {self._name} is told nothing more, and the search goes on: {words}")


def _wandb(search: Search) -> Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        group=search.run.root.resolve().name,
        dir=str(search.run.root.resolve()),  # not Ray's folder, which goes
        upload_timeout=int(LAST_SECONDS / 2),  # over before the logger is waited for no more
    )


def _mlflow(search: Search) -> Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"),  # which Ray would unset
        experiment_name=search.run.root.resolve().name,
    )
