"""The two pipes that a measuring process is driven by: requests come in, replies go out, and it ends with its input."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO


def end_with_the_input() -> None:
    """End this process at once when the other end of its input is closed, as it is when its owner has been killed.

    The kernel's signal of a parent's death would not do: it comes when the *thread* ends that started us, and not at
    all over ssh.
    """
    asked = select.poll()
    asked.register(sys.stdin.fileno(), 0)  # for nothing but its end, which is always told

    def wait() -> None:
        asked.poll()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def own_stdout() -> TextIO:
    """Standard output for replies alone; what libraries print, in Python or C, goes to standard error."""
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return replies


def sayer() -> Callable[[dict[str, Any]], bool]:
    """What sends a reply through standard output, which is then its own, and says whether it was an answer."""
    replies = own_stdout()

    def say(reply: dict[str, Any]) -> bool:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        return "refused" not in reply and "failed" not in reply

    return say
