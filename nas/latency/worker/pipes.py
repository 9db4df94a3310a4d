"""The two pipes of a measuring process: requests come in, replies go out, and it ends when its input is closed."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO


def end_with_the_input() -> None:
    """End this process at once when the other end of its input is closed, for example because its owner was killed.

    The kernel's signal for the death of a parent would not do: it is sent when the *thread* that started the process
    ends, and never over ssh.
    """
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)  # no events requested: a closed pipe is always reported

    def wait() -> None:
        poll.poll()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def own_stdout() -> TextIO:
    """Standard output, from now on for replies alone: what libraries print, in Python or C, goes to standard error."""
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return replies


def sayer() -> Callable[[dict[str, Any]], bool]:
    """A function that sends a reply through standard output (see `own_stdout`) and returns whether it is an answer."""
    replies = own_stdout()

    def say(reply: dict[str, Any]) -> bool:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        return "refused" not in reply and "failed" not in reply

    return say
