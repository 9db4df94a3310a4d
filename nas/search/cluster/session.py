"""The Ray that a search trains on: a local one, which only this machine can reach, or a cluster that the user names."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.host.words import one_line
from nas.search.cluster import guard
from nas.search.cluster.address import address_of
from nas.search.cluster.configured_ray import ray, ray_constants
from nas.search.search import Workers
from nas.storage.cache import cache_folder
from nas.storage.scratch import scratch_folder
from space.errors import UserError

SOURCE = Path(__file__).parents[3]
BUSY = "timed out"  # in Ray's error when its processes did not start within a minute


@contextlib.contextmanager
def own_ray(*workers: Workers) -> Iterator[None]:
    """A local Ray on this machine, independent of any other Ray there, with room for each of these workers. It listens
    on the loopback interface only, and ends with this process, however that ends.

    Raises: UserError when it cannot be started, for example because TMPDIR is full.
    """
    variables: dict[str, str | None] = {
        # Ray would replace 127.0.0.1 by an address that other machines can reach, unless clusters are disabled.
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        # Ray requires this password of its clients. It would keep one in the home folder, which may not exist.
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Trainings have another working folder than this process, but share its lane and its cache.
        "TMPDIR": os.path.abspath(tempfile.gettempdir()),
        "XDG_CACHE_HOME": str(cache_folder().absolute().parent),
        # Inside a job of another Ray, these name things that only the workers of that Ray have.
        "RAY_JOB_CONFIG_JSON_ENV_VAR": None,
        "RAY_RUNTIME_ENV_HOOK": None,
        # Otherwise Ray starts workers before it knows `py_executable`, waits for them, and never uses them.
        "RAY_prestart_worker_first_driver": "0",
    }
    usual, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    with contextlib.ExitStack() as session:
        session.callback(setattr, ray_constants, "ENABLE_RAY_CLUSTER", usual)
        session.enter_context(_environment(variables))
        folder = session.enter_context(scratch_folder())
        session.enter_context(guard.start(str(folder)))
        connection = _connected(
            address="local",
            num_cpus=max(each.concurrent * each.threads for each in workers),
            num_gpus=max(math.ceil(each.concurrent / each.per_gpu) * (each.device == "cuda") for each in workers),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
            runtime_env={"py_executable": shlex.quote(sys.executable)},  # a shell reads it; Ray does not quote it
        )
        try:
            session.enter_context(connection)
        except Exception as error:  # Ray's errors have no common base class
            advice = f"make room in {folder.parent}, or set TMPDIR to another folder"
            if BUSY in str(error):
                advice = "go on when the machine is less busy"
            raise UserError(f"Ray, which runs the trainings, does not start: {_words(error)}; {advice}") from None
        yield


@contextlib.contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """A connection to the cluster at `address`, as given to `--address`.

    Raises: UserError when there is no cluster, or this machine is not a node of it.
    """
    found = address_of(address)
    with contextlib.ExitStack() as session:
        try:
            session.enter_context(_connected(address=found))
        except Exception as error:  # as above
            raise UserError(
                f"--address: cannot join the Ray at {found}: {_words(error)}; make this machine a node of it, with the "
                "same versions of Ray and Python: `ray start --address HOST:PORT`"
            ) from None
        yield


@contextlib.contextmanager
def _connected(**options: Any) -> Iterator[None]:
    """`ray.init` with these options, then `ray.shutdown`.

    Raises: OSError when the connection is lost meanwhile.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        # Ray's workers look for modules in the current folder first.
        with contextlib.chdir(SOURCE):
            ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
    except SystemExit:  # raised by Ray's own handler of SIGTERM, which replaced that of this program
        _restore_handler(before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        _restore_handler(before)
    try:
        yield
    except ray.exceptions.RayError as error:
        raise OSError(f"Ray, which runs the trainings, is lost: {_words(error)}; was there enough memory?") from None
    finally:
        ray.shutdown()


def _words(error: Exception) -> str:
    """The beginning of Ray's message, which may go on with pages of logs."""
    return one_line(error, 200)


def _restore_handler(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    """Set environment variables; None unsets one."""
    for name, text in variables.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text
