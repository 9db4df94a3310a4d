"""Replies between processes of this package: one JSON object, which is an answer, a refusal or a failure.

{"latencies": ["<yaml>", ...]}                        an answer
{"refused": "<message>", "kind": "TargetError"}       an error that the user can correct, or of the operating system
{"failed": "<traceback>"}                             an unexpected error
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import nas
from nas import errors as more_errors
from nas.latency.protocol import VERSION
from space import errors
from space.errors import UserError

PROGRAM = f"framebudget {nas.__version__} (protocol {VERSION})"
"""Program and protocol version, which must be the same at both ends of a connection."""
LONGEST_REASON = 300  # characters


class WorkerError(RuntimeError):
    """The measuring process died, hung or failed through no fault of the user; the message has its last output.

    `ended`: whether it was ended from outside, for example by the kernel for lack of memory or by `kill`. `code`: its
    exit code, if it ended.
    """

    def __init__(self, message: str, *, ended: bool = False, code: int | None = None) -> None:
        super().__init__(message)
        self.ended = ended
        self.code = code


class LostError(WorkerError):
    """The connection to the measuring host failed or was lost, which says nothing about the networks to be measured."""


def was_ended(error: BaseException) -> bool:
    """Whether the process was ended from outside, which says nothing about the networks that it was measuring."""
    return isinstance(error, WorkerError) and error.ended


def reason_of(error: BaseException) -> str:
    """The last line of an error's message, which names the error if the message is a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[-LONGEST_REASON:]


def answer(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work`, or the reply for the error that it raised."""
    try:
        return work()
    except Exception as error:
        return refusal(error)


def refusal(error: Exception) -> dict[str, Any]:
    """The reply for an error."""
    if isinstance(error, UserError):
        return {"refused": str(error), "kind": type(error).__name__}
    if isinstance(error, OSError):
        return {"refused": str(error), "kind": OSError.__name__}
    if isinstance(error, WorkerError):
        return {"failed": str(error)}
    return {"failed": "".join(traceback.format_exception(error))}


def accept(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply, if it is an answer.

    Raises: the same kind of UserError or an OSError, if the other process raised one; WorkerError when it failed
    otherwise.
    """
    if reply.get("kind") == OSError.__name__:
        raise OSError(reply["refused"])
    if "refused" in reply:
        kinds = vars(errors) | vars(more_errors)
        raise kinds.get(reply["kind"], UserError)(reply["refused"])
    if "failed" in reply:
        raise WorkerError(reply["failed"])
    return reply
