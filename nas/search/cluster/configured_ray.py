"""Imports Ray with its settings. They are put into the environment first, since Ray reads some when it is imported.

Raises: UserError for a user without a home folder who sets no other folder to keep files in.
"""

from __future__ import annotations

import os

from nas.host.home import keep_some_home
from nas.storage.cache import cache_folder

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, workers use this Python, not a copy of the project
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the search handles Ctrl-C itself
    # The search reports these itself.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|The node with node id|Raylet is terminated",
    "TUNE_WARN_THRESHOLD_S": "3600",  # no warning when a proposal takes seconds: it measures on the target
}
os.environ.update(SETTINGS)
cache_folder()  # fails without a home folder, so it is called before `keep_some_home` provides a stand-in
keep_some_home()

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray._private import ray_constants  # noqa: E402  # Ray has no public setting to listen on loopback only
from ray.tune import Callback  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402
from ray.tune.stopper import Stopper  # noqa: E402
from ray.util.scheduling_strategies import (  # noqa: E402
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

__all__ = [
    "Callback", "FIFOScheduler", "NodeAffinitySchedulingStrategy", "PlacementGroupSchedulingStrategy", "Searcher",
    "Stopper", "TrialScheduler", "ray", "ray_constants", "tune",
]  # fmt: skip
