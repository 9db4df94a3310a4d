"""Loggers of a study receive its trainings, and do not disturb them.

A stand-in for MLflow lies on the path: it has the functions that Ray's callback calls, and records the calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nas.runs.folder import RunFolder
from nas.search.search import Search
from nas.search.train import loggers
from nas.search.train.loggers import Logger, loggers_of, name_of, require_loggers
from nas.study import SearchPlan, built_in_study
from space.errors import UserError

MLFLOW = {
    "__init__.py": """
import os
from types import SimpleNamespace

__version__ = "3.0.0"
uris = {}

def written(*words):
    with open(uris["tracking"], "a") as file:
        print(*words, file=file)

def set_tracking_uri(uri):
    uris["tracking"] = uri

def set_registry_uri(uri):
    pass

def get_tracking_uri():
    return uris["tracking"]

def get_registry_uri():
    return None

def get_experiment_by_name(name):
    return None

def create_experiment(name, artifact_location):
    written("experiment", name)
    return "1"

def get_run(run_id):
    pass

def active_run():
    return None
""",
    "tracking.py": """
import os
from types import SimpleNamespace
from mlflow import written

class MlflowClient:
    def __init__(self, tracking_uri, registry_uri):
        pass

    def create_run(self, run_name, experiment_id, tags):
        if "refuses" in os.environ.get("MLFLOW_STAND_IN", ""):
            raise ConnectionError("no server there")
        written("run", run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_param(self, run_id, key, value):
        written("parameter", run_id, key, value)

    def log_metric(self, run_id, key, value, step):
        written("metric", run_id, step, key, value)

    def set_terminated(self, run_id, status):
        written("end", run_id, status)
""",
    "exceptions.py": "class MlflowException(Exception): pass",
    "utils/mlflow_tags.py": "MLFLOW_RUN_NAME = 'name'",
}

SEARCH = """
import sys
from dataclasses import replace
from pathlib import Path
from nas.data import DataSpec, load
from nas.runs.folder import RunFolder
from nas.runs.trial import Trial
from nas.search.console import Console
from nas.search.train.job import Job
from nas.search.cluster.session import own_ray
from nas.search.search import Search, Workers
from nas.search.train.executor import Jobs, run_jobs
from nas.study import SearchPlan, built_in_study
from space.library import load as published
from space.scale import scale_width

small = built_in_study("10ms")
study = replace(
    small,
    data=DataSpec(size=(48, 64), train_images=4, validation_images=2),
    recipe=replace(small.recipe, epochs=2, crop=None),
    search=replace(small.search, loggers=("mlflow",)),
)
run = RunFolder.create(Path(sys.argv[1]), study)
architecture = scale_width(published("ndnet45-fcn32"), 0.25)
trial = Trial(
    number=1, name="narrow", origin="random", architecture=architecture, latency=None, feasible=True,
    budget_milliseconds=10.0, parameters=1, multiply_adds=1,
)
run.write_trial(trial)
workers = Workers(concurrent=1, threads=1, device="cpu")
search = Search(run=run, study=study, dataset=load(study.data), workers=workers, console=Console(run, study))
jobs = iter([Job(trial=trial, phase="search")])
with own_ray(workers):
    run_jobs(search, Jobs(next=lambda: next(jobs, None), epoch=search.console.epoch, end=lambda *_: None))
assert run.is_done(trial, "search")
"""


class Training:
    """A training as Ray describes it."""

    def __init__(self) -> None:
        self.config = {"name": "erfnet x0.53", "phase": "search"}

    def __str__(self) -> str:
        return name_of(self)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file in which the stand-in records its calls."""
    for name, text in MLFLOW.items():
        file = tmp_path / "path" / "mlflow" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "log"))
    yield tmp_path / "log"
    for name in [each for each in sys.modules if each.partition(".")[0] == "mlflow"]:
        del sys.modules[name]


@pytest.fixture
def logged(search_of: Callable[[RunFolder], Search], tmp_path: Path) -> Callable[[], None]:
    """Sends one training to the logger of a study that asks for MLflow."""

    def told() -> None:
        search = search_of(RunFolder.create(tmp_path / "night", built_in_study("10ms")))
        plan = SearchPlan(loggers=("mlflow",))
        (logger,) = loggers_of(replace(search, study=replace(search.study, search=plan)))
        training = Training()
        logger.setup(stop=None, num_samples=-1, total_num_samples=-1)
        logger.on_trial_start(0, [training], training)
        result = {"epoch": 1, "miou": 0.25, "done": False, "failed": "", "training_iteration": 1}
        logger.on_trial_result(1, [training], training, result)
        logger.on_trial_complete(2, [training], training)
        logger.on_experiment_end([training])

    return told


def test_mlflow_receives_a_training_and_its_epochs(logged: Callable[[], None], log: Path) -> None:
    logged()
    told = log.read_text().splitlines()
    assert told[:2] == ["experiment night", "run erfnet x0.53, search"]
    assert "parameter erfnet x0.53, search name erfnet x0.53" in told
    assert "metric erfnet x0.53, search 1 miou 0.25" in told
    assert told[-1] == "end erfnet x0.53, search FINISHED"


def test_a_logger_that_breaks_is_reported_and_receives_nothing_more(
    logged: Callable[[], None], log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_STAND_IN", "refuses")
    logged()
    assert log.read_text() == "experiment night\n"
    assert capsys.readouterr().out.endswith(
        "note    mlflow receives no more results, and the search goes on: no server there\n"
    )


def test_a_logger_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "LAST_SECONDS", 0.01)
    said: list[str] = []
    released = threading.Event()
    logger = Logger("mlflow", lambda: released.wait() and None, said.append)  # type: ignore[arg-type, return-value]
    logger.setup()
    logger.on_experiment_end([])
    assert said == ["note    mlflow has not received all results after 0.01 s: the search goes on without it"]
    released.set()


def test_missing_and_unknown_loggers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_loggers(())
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"search\.loggers: expected wandb to be installed .*; pip install wandb, or"):
        require_loggers(("wandb",))
    for wrong in (("tensorboard",), ("wandb", "wandb")):
        with pytest.raises(UserError, match=r"search\.loggers: expected some of wandb, mlflow, each once"):
            SearchPlan(loggers=wrong)


@pytest.mark.slow
def test_trainings_of_ray_reach_the_logger(tmp_path: Path, log: Path) -> None:
    paths = [str(Path(__file__).parents[3]), str(tmp_path / "path")]
    subprocess.run(
        [sys.executable, "-P", "-c", SEARCH, str(tmp_path / "night")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        timeout=300,
        check=True,
    )
    told = log.read_text().splitlines()
    assert told[:2] == ["experiment night", "run narrow, search"]
    assert [line.split()[3] for line in told if line.startswith("metric") and " epoch " in line] == ["1", "2"]
    steps = [line.split()[3:5] for line in told if line.startswith("metric")]
    assert [step for step, name in steps if name == "loss"] == ["1", "2"]
    assert [step for step, name in steps if name in ("miou", "pixel_accuracy")] == ["2", "2"], "the end of the schedule"
    assert told[-1] == "end narrow, search FINISHED"
