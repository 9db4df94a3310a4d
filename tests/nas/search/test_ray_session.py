"""The Ray of a search: out of reach for other programs, and ended with its process in any case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nas.search.cluster import configured_ray
from nas.search.cluster import session as ray_session
from nas.search.search import Workers
from space.errors import UserError

LISTENING = "0A"  # include/net/tcp_states.h
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}

OWN = """
import os, sys
from nas.search.cluster.configured_ray import ray
from nas.search.cluster.session import own_ray
from nas.search.search import Workers
from nas.storage.scratch import scratch_folder
with own_ray(Workers(concurrent=1, threads=1, device="cpu")), scratch_folder():
    def modules():
        import nas, random
        return nas.__file__, random.__file__, sys.path
    print(os.environ.get("RAY_ADDRESS"), *ray.get(ray.remote(modules).remote()), flush=True)
    input()
"""

DESCRIBE = """
import os, sys
from nas.search.cluster.configured_ray import ray
from nas.search.cluster.session import own_ray
from nas.search.search import Workers
with own_ray(Workers(concurrent=1, threads=1, device="cpu")):
    print(sorted(ray.get_runtime_context().runtime_env), flush=True)
    trains = ray.remote(runtime_env={"env_vars": {"SOME": "1"}})(lambda: sys.executable)  # as Ray Tune asks for workers
    print(ray.get(trains.remote()))
print(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"), os.environ.get("RAY_RUNTIME_ENV_HOOK"))
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path, str]]:
    """A process with a Ray of its own, its folder for temporary files, and the output of a task. It runs in a folder
    with modules of the user's own, and RAY_ADDRESS names a Ray that does not exist.
    """
    for name in ("nas.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit('this is not your module')")
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:  # short: the paths of sockets are at most 107 bytes long
        environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1", "TMPDIR": temporary, "HOME": "/nowhere"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[3])
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", OWN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert process.stdout is not None
        yield process, Path(temporary), process.stdout.readline()
        process.kill()
        process.communicate()


def descendants(process: int) -> list[int]:
    found = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += descendants(int(child))
    return found


def sockets_of(process: int) -> set[str]:
    links = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()]
    return {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}


def listening(processes: list[int]) -> list[str]:
    """Addresses that these processes listen on, as the kernel writes them."""
    owned = set().union(*map(sockets_of, processes))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return [words[1].partition(":")[0] for words in lines if words[3] == LISTENING and words[9] in owned]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_ray_of_a_search_is_private_and_ends_with_its_killed_owner(
    session: tuple[subprocess.Popen[str], Path, str],
) -> None:
    owner, temporary, said = session
    assert said.startswith("127.0.0.1:1 "), said  # not the address in the environment
    nas, random = said.split()[1:3]
    assert nas == str(Path(__file__).parents[3] / "nas" / "__init__.py")
    assert not random.startswith(os.readlink(f"/proc/{owner.pid}/cwd"))
    assert os.readlink(f"/proc/{owner.pid}/cwd") not in said
    processes = descendants(owner.pid)
    addresses = listening(processes)
    assert len(processes) > 5
    assert len(addresses) > 3
    assert set(addresses) <= LOOPBACK
    assert list(temporary.glob("fb*/session_*"))
    owner.send_signal(signal.SIGKILL)
    for _ in range(50):
        if not any(map(alive, processes[1:])) and not list(temporary.iterdir()):
            break
        time.sleep(0.1)
    assert [each for each in processes[1:] if alive(each)] == []
    assert list(temporary.iterdir()) == []


def described(command: Sequence[Path | str], folder: Path, **variables: str) -> list[str]:
    """The lines that a process started by this command, in a folder, prints about its own Ray."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **variables}
    asked = [*command, "-P", "-c", DESCRIBE]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_workers_under_uv_run_use_this_python(tmp_path: Path) -> None:
    (tmp_path / "uv").symlink_to(sys.executable)
    (tmp_path / "run").write_text("import subprocess, sys\nsys.exit(subprocess.run(sys.argv[1:]).returncode)")
    found = described([tmp_path / "uv", "run", sys.executable], tmp_path)
    assert found == ["['py_executable']", sys.executable, "None None"]


@pytest.mark.slow
def test_workers_start_although_the_path_of_python_needs_quotes(tmp_path: Path) -> None:
    environment = tmp_path / "My Projects & more"
    environment.symlink_to(sys.prefix)
    python = str(environment / Path(sys.executable).relative_to(sys.prefix))
    assert described([python], tmp_path)[1] == python


@pytest.mark.slow
def test_the_ray_of_a_search_ignores_the_cluster_whose_job_started_it(tmp_path: Path) -> None:
    job = '{"runtime_env": {"env_vars": {"OF": "that cluster"}}}'
    variables = {"RAY_JOB_CONFIG_JSON_ENV_VAR": job, "RAY_RUNTIME_ENV_HOOK": "of.that.cluster"}
    found = described([sys.executable], tmp_path, **variables)
    assert found == ["['py_executable']", sys.executable, f"{job} of.that.cluster"]


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("The current node timed out during startup. This could happen because", "go on when the machine is less busy"),
        ("no space left for sockets", "make room in "),
    ],
)
def test_a_ray_that_does_not_start_is_refused_in_one_line(
    said: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray also raises bare exceptions. Its failure on a very busy machine is simulated."""

    def refuse(**options: object) -> None:
        raise Exception(said)

    monkeypatch.setattr(configured_ray.ray, "init", refuse)
    with (
        pytest.raises(UserError, match=f"does not start: {said}.*; {advice}"),
        ray_session.own_ray(Workers(concurrent=1, threads=1, device="cpu")),
    ):
        pass
