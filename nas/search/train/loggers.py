"""The loggers that a study asks for, through Ray's own callbacks (W&B, MLflow). None of them can harm a search."""

from __future__ import annotations

import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nas.host.words import one_line
from nas.search.cluster.configured_ray import Callback
from space.errors import UserError

if TYPE_CHECKING:
    from nas.search.search import Search

PROJECT = "framebudget"
"""Project in Weights & Biases, where WANDB_PROJECT names none."""
LAST_SECONDS = 60.0  # time for a logger to send what is left, before the search goes on without it


def require_loggers(names: Sequence[str]) -> None:
    """Raises: UserError where the library of a logger is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"search.loggers: expected {name} to be installed here, got no such package; pip install {name}, or "
                "leave it out of search.loggers"
            )


def loggers_of(search: Search) -> list[Callback]:
    """The callbacks of the loggers that a search's study asks for."""
    makers: dict[str, Callable[[Search], Callback]] = {"wandb": _wandb, "mlflow": _mlflow}
    return [Logger(name, partial(makers[name], search), search.console.step) for name in search.study.search.loggers]


def name_of(trial: Any) -> str:
    """The name of a Ray trial, as shown to users."""
    return f"{trial.config['name']}, {trial.config['phase']}"


class Logger(Callback):
    """Runs a Ray callback in a separate thread. A callback that fails receives no more events, with a note to the user;
    one that hangs delays nothing but the end of the search, by at most a minute.
    """

    def __init__(self, name: str, make: Callable[[], Callback], log: Callable[[str], None]) -> None:
        """`make` returns the callback, and may take seconds to load its library. `log` prints why it receives no more
        events.
        """
        self._name = name
        self._make = make
        self._log = log
        self._events: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def setup(self, *positional: Any, **info: Any) -> None:
        """Start the thread."""
        self._thread.start()
        self._events.put(("setup", {}))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training begins, or begins again."""
        self._send("on_trial_start", iteration, trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A training finished an epoch."""
        self._send("on_trial_result", iteration, trial, result=dict(result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training ended."""
        self._send("on_trial_complete", iteration, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The process of a training died for the last time."""
        self._send("on_trial_error", iteration, trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Wait for a while until the callback has received all events."""
        self._events.put(("on_experiment_end", {"trials": trials}))
        self._events.put(None)
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            self._log(
                f"note    {self._name} has not received all results after {LAST_SECONDS:g} s: the search goes on "
                "without it"
            )

    def _send(self, hook: str, iteration: int, trial: Any, **more: Any) -> None:
        self._events.put((hook, {"iteration": iteration, "trials": [trial], "trial": trial, **more}))

    def _work(self) -> None:
        try:
            callback = self._make()
            while (event := self._events.get()) is not None:
                hook, options = event
                getattr(callback, hook)(**options)
        except Exception as error:
            words = one_line(error, 200) or type(error).__name__
            self._log(f"note    {self._name} receives no more results, and the search goes on: {words}")


def _wandb(search: Search) -> Callback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        group=search.run.root.resolve().name,
        dir=str(search.run.root.resolve()),  # not Ray's folder, which is removed
        upload_timeout=int(LAST_SECONDS / 2),  # ends before the search stops waiting for the logger
    )


def _mlflow(search: Search) -> Callback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"),  # Ray would unset it otherwise
        experiment_name=search.run.root.resolve().name,
    )
