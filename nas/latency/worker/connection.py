"""Connection: a process that works for us, here or at the other end of ssh, and the pipes that it is spoken to by."""

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
from nas.host.python import environment
from nas.latency.machine import device, lane
from nas.latency.target import Target
from nas.latency.worker.replies import LostError, WorkerError

# No questions; a host that is not there is told after 10 s, and a connection that has dropped after 15 s. What an ssh
# configuration says for people at a terminal (`RemoteCommand tmux`) is not for us.
SSH_OPTIONS = (
    "BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3", "RequestTTY=no",
    "RemoteCommand=none",
)  # fmt: skip
# Of a program that a signal ends over there ssh says what it says of itself, unless a shell waits for the program.
AFTER = "; exit $?"
SSH_FAILED = 255  # what ssh ends with for a reason of its own
SIGNALLED = 128  # what a shell ends with, and the signal's number more, for a program that was ended by one

SEND_SECONDS = 120.0  # in which a process takes nothing that is sent to it, and counts as lost
MOST_WAIT_SECONDS = 3600.0  # for others, that do not count: who is suspended or hangs would be waited for without end


class Connection:
    """The process and its pipes."""

    def __init__(self, target: Target, words: list[str], descriptors: Sequence[int] = ()) -> None:
        """Start Python with `words`, which on another host a shell reads. Here it gets open `descriptors` too.

        Raises: TargetError when there is no program to start it by.
        """
        if target.host:
            # The words are joined by spaces and read by a shell over there.
            options = [word for option in SSH_OPTIONS for word in ("-o", option)]
            command = ["ssh", *options, target.host, "${FRAMEBUDGET_PYTHON:-python3}", *words, AFTER]
        else:
            command = [sys.executable, *words]
        self._here = not target.host
        self._words = os.fdopen(os.memfd_create("words"), "w+b")  # a pipe nobody reads would block the worker
        try:
            with device.on_all_cores():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._words,
                    env=environment(),
                    pass_fds=descriptors,
                    start_new_session=True,  # Ctrl-C is for us, who then end it
                )
        except FileNotFoundError:
            raise TargetError(f"{target} cannot be timed: there is no {command[0]} here; install it") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout

    def say(self, request: dict[str, Any]) -> None:
        """Ask.

        Raises: WorkerError when the process has died.
        """
        self.send(json.dumps(request).encode() + b"\n")

    def send(self, content: bytes) -> None:
        """Write to its input.

        Raises: WorkerError when the process has died.
        """
        rest = memoryview(content)
        while rest:
            _, ready, _ = select.select([], [self._requests], [], SEND_SECONDS)
            if not ready:
                self._process.kill()
                raise self._died(f"took nothing for {SEND_SECONDS:.0f} s and was ended")
            try:
                rest = rest[os.write(self._requests.fileno(), rest[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                raise self._died() from None

    def hear(self, limit_seconds: float) -> dict[str, Any]:
        """The reply. While the process waits for others, so that timings are taken alone, it is said for whom, and the
        time does not count, up to `MOST_WAIT_SECONDS`.

        Raises: WorkerError when the process died, or gave none within `limit_seconds` and was therefore ended.
        """
        pause, left, waited = min(lane.TELL_SECONDS, limit_seconds), limit_seconds, 0.0
        while not select.select([self._replies], [], [], pause)[0]:
            if words := lane.waiting(session=self._process.pid) if self._here else "":
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
        except ValueError:  # a shell over there greets, say
            self._process.kill()
            said = line[:200].decode(errors="replace").strip()
            raise self._died(f"said {said!r} where an answer was expected, and was ended") from None
        return reply

    def kill(self) -> None:
        """End the process, whoever waits for its answer."""
        self._process.kill()

    def stop(self) -> None:
        """Close its requests, on which it ends; end it when it does not."""
        with contextlib.suppress(BrokenPipeError):  # it is gone, and a request was still on its way
            self._requests.close()
        try:
            self._process.wait(timeout=5 if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:  # in the middle of a measurement
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._words.close()

    def _died(self, how: str = "") -> WorkerError:
        code = self._process.wait()
        if not self._here and SIGNALLED < code < SSH_FAILED:
            code = SIGNALLED - code
        self._words.seek(0)
        last = self._words.read()[-2000:].decode(errors="replace").strip()
        ended = code == -signal.SIGKILL and not how  # not by us
        lost = not self._here and code == SSH_FAILED
        how = how or (f"was killed by signal {-code}" if code < 0 else f"ended with code {code}")
        if lost:
            return LostError(f"{how}; its last words: {' '.join(last.split()) or '(none)'}", ended=True, code=code)
        return WorkerError(f"{how}; its last words: {last or '(none)'}", ended=ended, code=code)
