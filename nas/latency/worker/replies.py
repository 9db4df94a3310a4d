"""How processes of ours answer each other: with one JSON object, which is an answer, a refusal or a failure.

{"latencies": ["<yaml>", ...]}                        an answer
{"refused": "<message>", "kind": "TargetError"}       for what a user can put right, or the world denies
{"failed": "<traceback>"}                             for what nobody expected
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import nas
from nas.latency.protocol import VERSION
from space import errors
from space.errors import UserError

PROGRAM = f"framebudget {nas.__version__} (protocol {VERSION})"
"""What both ends of a connection have to be."""
LONGEST_REASON = 300


class WorkerError(RuntimeError):
    """The measuring process died, hung or failed in a way that is not the user's; the message has its last words.

    `ended`: it died of something outside it, such as the kernel's want of memory or a `kill`. `code`: its exit code, if
    it ended.
    """

    def __init__(self, message: str, *, ended: bool = False, code: int | None = None) -> None:
        super().__init__(message)
        self.ended = ended
        self.code = code


class LostError(WorkerError):
    """The connection to the host that measures could not be made, or was lost: no word on what was to be measured."""


def was_ended(error: BaseException) -> bool:
    """Whether the process was ended from outside, by the kernel for want of memory say: no word on what it did."""
    return isinstance(error, WorkerError) and error.ended


def reason_of(error: BaseException) -> str:
    """The last line of what an error says, which names it where the text is a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[-LONGEST_REASON:]


def answer(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, or why it gave nothing."""
    try:
        return work()
    except Exception as error:
        return refusal(error)


def refusal(error: Exception) -> dict[str, Any]:
    """The reply that says what was raised."""
    if isinstance(error, UserError):
        return {"refused": str(error), "kind": type(error).__name__}
    if isinstance(error, OSError):
        return {"refused": str(error), "kind": OSError.__name__}
    if isinstance(error, WorkerError):
        return {"failed": str(error)}
    return {"failed": "".join(traceback.format_exception(error))}


def accept(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply that is an answer.

    Raises: UserError or OSError when one was raised there, of the same kind; WorkerError when something else failed.
    """
    if reply.get("kind") == OSError.__name__:
        raise OSError(reply["refused"])
    if "refused" in reply:
        raise getattr(errors, reply["kind"], UserError)(reply["refused"])
    if "failed" in reply:
        raise WorkerError(reply["failed"])
    return reply
