"""Measuring through a real ssh and a real sshd, on a host of the ssh configuration.

The tests start the daemon, on the loopback alone; they read and change no ssh files of the user.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import space
from nas.errors import HaltedError, TargetError
from nas.latency import Meter, WorkerError, parse_target
from nas.latency.machine import lane
from nas.latency.worker.session import environment

SIZE = (64, 96)
QUICK = 0.12  # requested half of the interval, as a share of the latency
TARGET = "onnxruntime@ssh:board/cpu:1"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
SEPARATION = Path("/run/sshd")
"""What a daemon of root's asks for."""
PASSED = ("FRAMEBUDGET_PYTHON", "XDG_CACHE_HOME", "TMPDIR")
NETWORK = space.load("ndnet29-fcn32")
Family = Callable[[int], list[int]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SSHD is None or not shutil.which("ssh"), reason="needs OpenSSH: ssh, ssh-keygen and sshd"),
]


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """An sshd of this user, and the ssh options that lead to it."""

    process: int
    config: Path
    """As `~/.ssh/config`."""
    log: Path


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "sshd_config").write_text(
        f"""ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
PidFile {folder}/pid
AuthorizedKeysFile {folder}/user.pub
AuthenticationMethods publickey
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
AcceptEnv {" ".join(PASSED)}
"""
    )
    (folder / "config").write_text(
        f"""Host board
  HostName 127.0.0.1
  Port {port}
  User {getpass.getuser()}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
"""
    )
    assert SSHD is not None
    made = os.getuid() == 0 and not SEPARATION.exists()
    if made:
        SEPARATION.mkdir(mode=0o755)
    process = subprocess.Popen([SSHD, "-D", "-f", folder / "sshd_config", "-E", folder / "log"])
    try:
        while not answers(port):
            if process.poll() is not None:
                pytest.skip(f"sshd does not start here: {(folder / 'log').read_text('utf-8')}")
            time.sleep(0.05)
        allowed = subprocess.run(["ssh", "-F", folder / "config", "board", "true"], capture_output=True, text=True)
        if allowed.returncode:
            pytest.skip(f"this user cannot log in: {allowed.stderr} {(folder / 'log').read_text('utf-8')}")
        yield Daemon(process=process.pid, config=folder / "config", log=folder / "log")
    finally:
        process.terminate()
        process.wait()
        if made:
            SEPARATION.rmdir()


def answers(port: int) -> bool:
    """Whether a server listens on the port."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def config(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ssh configuration that `ssh` reads in place of the user's own, which only a home folder could change."""
    config, ssh = tmp_path / "config", tmp_path / "ssh"
    config.write_text(daemon.config.read_text())
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return config


@pytest.fixture
def cache(config: Path, bare_python: Callable[..., Path], tmp_path: Path) -> Path:
    """Makes `board` a host with only NumPy and ONNX Runtime; returns the folder of its anchors."""
    place = tmp_path / "cache"
    its = (bare_python("numpy", "onnxruntime"), place, tempfile.gettempdir())
    with config.open("a") as more:
        more.write(f"  SetEnv {' '.join(f'{name}={value}' for name, value in zip(PASSED, its, strict=True))}\n")
    return place


def sessions(daemon: Daemon, family: Family) -> list[int]:
    """Processes that the daemon has started for connections, and their child processes."""
    return [each for each in family(daemon.process) if each != daemon.process]


@contextlib.contextmanager
def measured_beside(daemon: Daemon, family: Family, meter: Meter) -> Iterator[tuple[Callable[[], object], list[int]]]:
    """A measurement that waits for a training step on the host, so that a test can interfere. Yields the function that
    waits for its result, and its processes on the host.
    """
    with ThreadPoolExecutor(1) as pool, lane.shared():
        before = len(sessions(daemon, family))
        measuring = pool.submit(meter.measure, NETWORK, within=QUICK)
        while len(sessions(daemon, family)) <= before and not measuring.done():
            time.sleep(0.05)
        yield measuring.result, sessions(daemon, family)


@pytest.mark.parametrize(
    "more",
    [
        "",
        "  RequestTTY force\n  RemoteCommand echo for people\n",
        "  ControlMaster auto\n  ControlPath {folder}/%n\n  ControlPersist 5\n",
    ],
    ids=["plain", "for people", "shared"],
)
def test_a_host_of_the_ssh_configuration_measures(
    cache: Path, config: Path, more: str, daemon: Daemon, family: Family, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with config.open("a") as written:
        written.write(more.format(folder=tmp_path_factory.mktemp("s")))  # the path of a socket has to be short
    with Meter(parse_target(TARGET), SIZE, 4) as meter:
        told = dict(meter.environment)
        latency = meter.measure(NETWORK, within=QUICK)
    assert latency.target == TARGET
    assert latency.samples >= 5
    assert dict(latency.environment) == told == environment(parse_target("onnxruntime@cpu:1"))
    assert [file.name for file in (cache / "framebudget").iterdir()] == ["anchors"]
    if "ControlMaster" in more:
        subprocess.run(["ssh", "-O", "exit", "board"], check=True, capture_output=True)
    while sessions(daemon, family):
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dropped_connection_is_made_again(
    how: signal.Signals, cache: Path, daemon: Daemon, family: Family, capsys: pytest.CaptureFixture[str]
) -> None:
    """The connection is closed or goes silent, which ssh notices by itself."""
    with Meter(parse_target(TARGET), SIZE, 4) as meter:
        with measured_beside(daemon, family, meter) as (result, there):
            sshd = [each for each in there if b"sshd" in Path(f"/proc/{each}/cmdline").read_bytes()]
            for each in sshd:
                os.kill(each, how)
            while len(sessions(daemon, family)) <= len(there) and how == signal.SIGSTOP:
                time.sleep(0.1)
        latency = result()
    assert latency.target == TARGET  # type: ignore[attr-defined]
    said = capsys.readouterr().err
    assert said.startswith("note: lost the connection to board, connecting again: ended with code 255; ")
    assert ("not responding" in said) == (how == signal.SIGSTOP)
    for each in sshd:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    while sessions(daemon, family):
        time.sleep(0.05)


def test_a_connection_that_drops_twice_ends_the_measurement_with_one_line(
    cache: Path, config: Path, daemon: Daemon, family: Family
) -> None:
    with Meter(parse_target(TARGET), SIZE, 4) as meter:
        with measured_beside(daemon, family, meter) as (result, there):
            config.write_text(config.read_text().replace("/user\n", "/nowhere\n"))
            for each in there:
                os.kill(each, signal.SIGKILL)
        with pytest.raises(HaltedError, match=r"connection to board was lost twice: .*Permission denied") as told:
            result()
    assert "\n" not in str(told.value)
    assert "nothing finished is lost" in str(told.value)


def test_a_killed_agent_is_no_lost_connection(cache: Path, daemon: Daemon, family: Family) -> None:
    with Meter(parse_target(TARGET), SIZE, 4) as meter:
        with measured_beside(daemon, family, meter) as (result, there):
            python = [each for each in there if b"\0-S\0" in Path(f"/proc/{each}/cmdline").read_bytes()]
            os.kill(python[0], signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"measuring on .* was killed by signal 9") as told:
            result()
        assert told.value.ended
        assert meter.measure(NETWORK, within=QUICK).target == TARGET


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ("/user\n", "/nowhere\n", "Permission denied"),
        ("/known_hosts\n", "/nowhere\n", "Host key verification failed"),
        ("127.0.0.1\n", "nowhere.invalid\n", "Could not resolve hostname nowhere.invalid"),
    ],
)
def test_a_host_that_refuses_the_login_is_reported_in_one_line(config: Path, was: str, now: str, words: str) -> None:
    config.write_text(config.read_text().replace(was, now))
    with pytest.raises(TargetError, match="cannot be timed: the process on board ended with code 255") as told:
        Meter(parse_target(TARGET), SIZE, 4).__enter__()
    assert words in str(told.value)
    assert "check that `ssh board python3 --version` answers" in str(told.value)
