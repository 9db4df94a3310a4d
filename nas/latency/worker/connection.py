"""Connection: a process that works for this one, here or on another host over ssh, and the pipes to it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

from nas.errors import TargetError
from nas.host.python import environment_variables
from nas.host.words import one_line
from nas.latency.machine import device, lane
from nas.latency.target import Target
from nas.latency.worker.replies import LostError, WorkerError

# Never prompt; report an unreachable host after 10 s and a dropped connection after 15 s. Settings for people at a
# terminal in the user's ssh configuration (`RemoteCommand tmux`) are overridden.
SSH_OPTIONS = (
    "BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3", "RequestTTY=no",
    "RemoteCommand=none",
)  # fmt: skip
# If a signal ends the program there, ssh exits as if it had failed itself, unless a shell waits for the program.
AFTER = "; exit $?"
SSH_FAILED = 255  # exit code of ssh for a failure of its own
SIGNALLED = 128  # exit code of a shell, plus the signal's number, if a signal ended the program

SEND_SECONDS = 120.0  # without the process reading what is sent to it, after which it counts as hung
MOST_WAIT_SECONDS = 3600.0  # of waiting for the lane that do not count: its holder may be suspended or hang


class Connection:
    """A process and its pipes."""

    def __init__(self, target: Target, words: list[str], descriptors: Sequence[int] = ()) -> None:
        """Start Python with the arguments `words`, which a shell reads on another host. On this host the process also
        inherits the open `descriptors`.

        Raises: TargetError when ssh or Python is missing.
        """
        if target.host:
            # ssh joins the words by spaces, and a shell on the other host reads them.
            options = [word for option in SSH_OPTIONS for word in ("-o", option)]
            command = ["ssh", *options, target.host, "${FRAMEBUDGET_PYTHON:-python3}", *words, AFTER]
        else:
            command = [sys.executable, *words]
        self._here = not target.host
        self._errors = os.fdopen(os.memfd_create("stderr"), "w+b")  # a pipe that nobody reads would block the process
        try:
            with device.on_all_cores():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env=environment_variables(),
                    pass_fds=descriptors,
                    start_new_session=True,  # Ctrl-C reaches only this process, which then ends the other
                )
        except FileNotFoundError:
            raise TargetError(f"{target} cannot be timed: there is no {command[0]} here; install it") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout

    def say(self, request: dict[str, Any]) -> None:
        """Send a request.

        Raises: WorkerError when the process has died.
        """
        self.send(json.dumps(request).encode() + b"\n")

    def send(self, content: bytes) -> None:
        """Write bytes to the process's input.

        Raises: WorkerError when the process has died.
        """
        rest = memoryview(content)
        while rest:
            _, ready, _ = select.select([], [self._requests], [], SEND_SECONDS)
            if not ready:
                self._process.kill()
                raise self._died(f"read no input for {SEND_SECONDS:.0f} s and was ended")
            try:
                rest = rest[os.write(self._requests.fileno(), rest[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                raise self._died() from None

    def hear(self, limit_seconds: float) -> dict[str, Any]:
        """Wait for a reply. While the process waits for the lane, this prints which processes hold it, and up to
        `MOST_WAIT_SECONDS` of that time do not count.

        Raises: WorkerError when the process died, or did not reply within `limit_seconds` and was therefore ended.
        """
        pause, left, waited = min(lane.TELL_SECONDS, limit_seconds), limit_seconds, 0.0
        while not select.select([self._replies], [], [], pause)[0]:
            if words := lane.awaited(session=self._process.pid) if self._here else "":
                print(words, file=sys.stderr, flush=True)
                waited += pause
                if waited <= MOST_WAIT_SECONDS:
                    continue
            left -= pause
            if left <= 0:
                self._process.kill()
                raise self._died(f"gave no answer within {limit_seconds:.0f} s and was ended")
        line = self._replies.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:  # for example a greeting of the shell on the other host
            self._process.kill()
            output = line[:200].decode(errors="replace").strip()
            raise self._died(f"printed {output!r} instead of an answer, and was ended") from None
        return reply

    def kill(self) -> None:
        """Kill the process, even while another thread waits for its reply."""
        self._process.kill()

    def stop(self) -> None:
        """Close the process's input, which ends it; kill it if it does not end."""
        with contextlib.suppress(BrokenPipeError):  # it died with a request unread
            self._requests.close()
        try:
            self._process.wait(timeout=5 if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:  # in the middle of a measurement
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._errors.close()

    def _died(self, how: str = "") -> WorkerError:
        code = self._process.wait()
        if not self._here and SIGNALLED < code < SSH_FAILED:
            code = SIGNALLED - code
        self._errors.seek(0)
        last = self._errors.read()[-2000:].decode(errors="replace").strip()
        ended = code == -signal.SIGKILL and not how  # killed, but not by us
        lost = not self._here and code == SSH_FAILED
        how = how or (f"was killed by signal {-code}" if code < 0 else f"ended with code {code}")
        if lost:
            return LostError(f"{how}; its last output: {one_line(last) or '(none)'}", ended=True, code=code)
        return WorkerError(f"{how}; its last output: {last or '(none)'}", ended=ended, code=code)
