"""Surroundings in which no Ray can run: other servers, and folders that it cannot use."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Environment = Callable[..., dict[str, str]]
Program = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]


def test_a_server_that_is_not_ray_is_refused_as_a_cluster(tmp_path: Path, program: Program, refusal: Refusal) -> None:
    server = "import http.server as s; h = s.HTTPServer(('127.0.0.1', 0), s.SimpleHTTPRequestHandler);"
    server += "print(h.server_port, flush=True); h.serve_forever()"
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as web:
        assert web.stdout is not None
        address = f"127.0.0.1:{int(web.stdout.readline())}"
        done = program(
            "search", "--budget", "10ms", "--out", str(tmp_path / "run"), "--address", "auto", RAY_ADDRESS=address
        )
        web.kill()
    assert refusal(done).startswith(f"nas search: RAY_ADDRESS: the server at {address} is not Ray")


def test_a_long_folder_for_temporary_files_is_refused_before_a_search(
    tmp_path: Path, program: Program, refusal: Refusal
) -> None:
    long = tmp_path / "slurm_jobdir" / "1355700" / "people" / "somebody"
    long.mkdir(parents=True)
    done = program("search", "--budget", "10ms", "--out", str(tmp_path / "run"), TMPDIR=str(long))
    assert "set TMPDIR to a shorter one" in refusal(done)
    assert not (tmp_path / "run").exists()


def test_a_path_that_ray_misreads_is_refused_before_a_search(
    tmp_path: Path, environment: Environment, program: Program, refusal: Refusal
) -> None:
    out = tmp_path / "run"
    with tempfile.TemporaryDirectory(prefix="o'", dir="/tmp") as temporary:
        done = program("search", "--budget", "10ms", "--out", str(out), TMPDIR=temporary)
        assert f"got {temporary}; set TMPDIR to another one" in refusal(done)
    (tmp_path / "o'brien").symlink_to(sys.prefix)
    python = tmp_path / "o'brien" / Path(sys.executable).relative_to(sys.prefix)
    words = [python, "-m", "nas.cli", "search", "--budget", "10ms", "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=120)
    assert f"got {python}; install this program in an environment in another folder" in refusal(done)
    assert not out.exists()
